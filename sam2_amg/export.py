"""Writes ahead-of-time packages, and keeps them only if processes that start from them find what mode ao finds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_amg.agreement import signal_to_noise
from sam2_amg.compilation.aot import export_subgraphs, file_names, from_packages
from sam2_amg.compilation.compiler import use_working_compiler
from sam2_amg.compilation.isolated_process import ProcessDied, run_in_subprocess
from sam2_amg.compilation.manifest import Build, check_packages, write_manifest
from sam2_amg.compilation.triton_cache import NAME, keep_kernels_in, pack
from sam2_amg.config import ExportConfig, GeneratorConfig, Limits, Mode
from sam2_amg.decoding.decode import decode_image
from sam2_amg.demo import EXAMPLE
from sam2_amg.errors import StartupError
from sam2_amg.modes.build import build_generator, least_decibels, static_shapes, subgraphs_of
from sam2_amg.modes.warmup import memory_errors, warm_up
from sam2_amg.network.checkpoints import find_checkpoint, image_size_of, load_model
from sam2_amg.network.decoder import every_mask, predict
from sam2_amg.network.model_types import find_model_type
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.generator import MaskGenerator
from sam2_amg.pipeline.prompts import to_model_input
from sam2_amg.postprocess.crops import crops_of
from sam2_amg.signals import exit_on_signals

logger = logging.getLogger(__name__)
_SIDE_OF_TRIAL = 8  # of the grid, at most, on a CPU
_POINTS_WITH_MASKS = 64  # at most


def export(config: ExportConfig) -> None:
    """Writes the packages, tries them, and only then puts them where they are wanted. Raises StartupError."""
    exit_on_signals()
    use_working_compiler(partial(logger.info, "%s ..."))  # first of all, rather than fail after minutes
    output = config.output
    kind, device = find_model_type(config.model_type), torch.device(config.device)
    checkpoint = find_checkpoint(config.checkpoint_dir, kind)
    shapes = static_shapes(config.mode, image_size_of(kind), config.generator, device, config.batch_size)
    build = Build(checkpoint, kind.name, config.mode, device, shapes)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # what is left of it is cleared away, whatever happens; in the end that is nothing
        with (
            memory_errors("--batch_size or --points_per_side"),
            TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.", ignore_cleanup_errors=True) as folder,
        ):
            part = Path(folder)
            decibels = make_packages(config, build, part)
            part.chmod(0o755)  # a temporary folder is its owner's alone
            part.rename(output)
    except OSError as error:
        at = error.filename or output
        raise StartupError(
            f"making packages for --output {output} ends at {at} ({error.strerror}); "
            "choose another folder, or another TMPDIR where that is in the way"
        ) from error
    size = sum(path.stat().st_size for path in output.iterdir()) / 2**20
    print(f"Wrote {output} ({size:.0f} MiB); in {EXAMPLE.name} {_in_words(decibels)}.")


def make_packages(config: ExportConfig, build: Build, folder: Path) -> list[float]:
    """Writes packages and their manifest to `folder`, and tries them: what `try_packages` answers."""
    device, report = build.device, partial(logger.info, "%s ...")
    model = load_model(build.checkpoint, find_model_type(build.model_type), device)
    subgraphs = subgraphs_of(model, config.mode, device, config.batch_size)
    paths = export_subgraphs(subgraphs, build.shapes, device, folder, report)
    del model, subgraphs  # the processes that follow want the device's memory
    if device.type == "cuda":
        torch.cuda.empty_cache()
        report("compiling our own kernels")
        paths.append(_in_subprocess("compiled kernels for", compile_kernels, config, build, folder))
    write_manifest(folder, build, paths)
    report("trying the packages")
    return try_packages(config, build, folder)


def try_packages(config: ExportConfig, build: Build, folder: Path) -> list[float]:
    """How far the packages agree with mode ao on a photograph, each in a process of its own, as servers are: dB of
    predicted IoU, and of low-res logits.

    Raises StartupError where they do not agree, or where native code crashes.
    """
    check_packages(folder, build, file_names(build.shapes, build.device))
    expected, found = (
        _in_subprocess("tried", answer_example, config, build, folder, mode) for mode in (Mode.AO, config.mode)
    )
    decibels = [signal_to_noise(*pair) for pair in zip(expected, found, strict=True)]
    if min(decibels) < least_decibels(config.mode):
        raise StartupError(
            f"the packages find something else in {EXAMPLE.name} ({_in_words(decibels)}); they are not kept"
        )
    return decibels


def _in_subprocess(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """`isolated_process.run_in_subprocess`; a crash of the process, which did `what` with the packages, is a
    StartupError."""
    try:
        return run_in_subprocess(function, *arguments)
    except ProcessDied as died:
        raise StartupError(
            f"a process that {what} the packages crashed ({died}); they are not kept. Another C++ compiler may write "
            "better ones: set CXX to it, such as /usr/bin/g++"
        ) from died


def load_packaged(build: Build, folder: Path, mode: Mode, config: GeneratorConfig) -> Generator:
    """The generator of a mode, from the packages in `folder` where it has any."""
    model = load_model(build.checkpoint, find_model_type(build.model_type), build.device)
    return build_generator(model, mode, config, build.device, from_packages(folder), build.shapes.batch_size)


def compile_kernels(config: ExportConfig, build: Build, folder: Path) -> Path:
    """Has Triton compile what else a server from the packages in `folder` runs, and keeps it there; in which file."""
    with TemporaryDirectory() as cache:
        keep_kernels_in(Path(cache))
        generator = load_packaged(build, folder, config.mode, config.generator)
        warm_up(generator, decode_image(EXAMPLE.read_bytes(), Limits()), build.device)  # as a server begins
        pack(Path(cache), folder / NAME)
    return folder / NAME


def answer_example(config: ExportConfig, build: Build, folder: Path, mode: Mode) -> tuple[NDArray[np.float32], ...]:
    """Predicted IoUs [P, 3], and logits [n, h, w] of some masks, of a photograph: in mode ao, or from the packages in
    `folder`, of the last of as many images as are encoded together.
    """
    # on a CPU a large model would take minutes for all points, and its subgraphs take few of them anyway
    most = config.generator.points_per_side if build.device.type == "cuda" else _SIDE_OF_TRIAL
    side = min(config.generator.points_per_side, most)
    image = decode_image(EXAMPLE.read_bytes(), Limits())
    generator = load_packaged(build, folder, mode, replace(config.generator, points_per_side=side))
    assert isinstance(generator, MaskGenerator)
    stages, decoder = generator.stages, generator.stages.decoder
    whole = crops_of((image.shape[0], image.shape[1]), generator.config)[0]
    points = to_model_input(generator.point_grids(whole), whole.size, generator.image_size).to(build.device)
    with torch.inference_mode():
        # all in one stream: what `generator.encode` answers belongs to the stream of the generator's thread
        features = stages.encode(torch.cat([stages.preprocess(image)] * config.batch_size)).unbatch()[-1]
        prepared = decoder.prepare(features)
        predicted_iou = predict(decoder, prepared, points, lambda iou: every_mask(iou[:0])).predicted_iou
        some = points[:: -(-len(points) // _POINTS_WITH_MASKS)]
        logits = predict(decoder, prepared, some, every_mask).logits
        return predicted_iou.float().cpu().numpy(), logits.float().cpu().numpy()


def _in_words(decibels: Sequence[float]) -> str:
    iou, logits = decibels
    return f"predicted IoU {iou:.0f} dB and logits {logits:.0f} dB above the difference from mode ao"
