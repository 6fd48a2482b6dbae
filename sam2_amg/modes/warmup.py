"""Warm-up: a first image through every stage, before the server reports that it is ready."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from triton.runtime.errors import OutOfResources

from sam2_amg.compilation.subgraphs import encoder_sizes
from sam2_amg.config import GeneratorConfig
from sam2_amg.errors import StartupError
from sam2_amg.kernels.launch_tables import way_out_of_large_kernels
from sam2_amg.pipeline.base import Generator


def warm_up(generator: Generator, image: NDArray[np.uint8], device: torch.device) -> None:
    """Runs uint8 RGB [H, W, 3] through every stage with few points; on a GPU, also with each encoder and in full."""
    generator.generate(image, _few(generator.config))
    if device.type == "cuda":
        for count in encoder_sizes(generator.batch_size)[:-1]:
            generator.encode([image] * count)
        generator.generate(image)


@contextmanager
def memory_errors(flags: str) -> Iterator[None]:
    """Turns what is said of too little memory of a GPU into StartupError: torch.OutOfMemoryError, which lower `flags`
    help against, and OutOfResources of a kernel that needs more of a multiprocessor."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).split(".")[0]
        raise StartupError(f"{reason}; lower {flags}, or give a smaller MODEL_TYPE") from error
    except OutOfResources as error:
        reason = str(error).split(". ")[0]
        raise StartupError(f"a kernel does not fit this GPU ({reason}); {way_out_of_large_kernels()}") from error


def keep_from_garbage_collection() -> None:
    """Excludes all current objects from garbage collection.

    They are hundreds of thousands, mostly torch's, and live until the end. A full collection would scan them for a
    tenth of a second and delay a request.
    """
    gc.collect()
    gc.freeze()


def _few(config: GeneratorConfig) -> GeneratorConfig:
    """Four points and thresholds that all masks pass, so that every stage has input."""
    return replace(
        config,
        points_per_side=2,
        point_grids=None,
        crop_n_layers=0,
        crop_n_points_downscale_factor=1,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
    )
