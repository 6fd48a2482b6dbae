"""Writes ahead-of-time packages, and keeps them only if their results agree with mode ao's."""

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

from sam2_amg.agreement.masks import signal_to_noise
from sam2_amg.compilation.aot import export_subgraphs, file_names, from_packages
from sam2_amg.compilation.compiler import use_working_compiler
from sam2_amg.compilation.isolated_process import ProcessDied, run_in_subprocess
from sam2_amg.compilation.manifest import Build, check_packages, write_manifest
from sam2_amg.compilation.triton_cache import NAME, keep_kernels_in, pack
from sam2_amg.config import ExportConfig, GeneratorConfig, Limits, Mode
from sam2_amg.decoding.decode import decode_image
from sam2_amg.demo import EXAMPLE
from sam2_amg.errors import StartupError
from sam2_amg.kernels.launch_tables import use_table
from sam2_amg.modes.build import build_generator, least_decibels, static_shapes, subgraphs_of
from sam2_amg.modes.warmup import memory_errors, warm_up
from sam2_amg.network.checkpoints import find_checkpoint, image_size_of, load_model
from sam2_amg.network.decoder import every_mask, predict
from sam2_amg.network.model_types import find_model_type
from sam2_amg.network.weights import check_weights
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.generator import MaskGenerator
from sam2_amg.pipeline.prompts import PointGrids, to_model_input
from sam2_amg.postprocess.crops import crops_of
from sam2_amg.process.signals import exit_on_signals

logger = logging.getLogger(__name__)
_SIDE_OF_TRIAL = 8  # maximum side of the trial's point grid on a CPU
_POINTS_WITH_MASKS = 64  # maximum number of points whose logits are compared


def export(config: ExportConfig) -> None:
    """Writes the packages to a temporary folder, tries them, and moves them to --output. Raises StartupError."""
    exit_on_signals()
    use_working_compiler(partial(logger.info, "%s ..."))  # first, because a failure after minutes wastes them
    output = config.output
    kind, device = find_model_type(config.model_type), torch.device(config.device)
    checkpoint = find_checkpoint(config.checkpoint_dir, kind)
    check_weights(checkpoint, kind)
    shapes = static_shapes(config.mode, image_size_of(kind), config.generator, device, config.batch_size)
    build = Build(checkpoint, kind.name, config.mode, device, shapes)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # on failure the temporary folder is deleted; on success it has been renamed
        with (
            memory_errors("--batch_size or --points_per_side"),
            TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.", ignore_cleanup_errors=True) as folder,
        ):
            part = Path(folder)
            decibels = make_packages(config, build, part)
            part.chmod(0o755)  # temporary folders have mode 0700
            part.rename(output)
    except OSError as error:
        at = error.filename or output
        raise StartupError(
            f"making packages for --output {output} failed at {at} ({error.strerror}); "
            "choose another folder, or set TMPDIR if the path is in it"
        ) from error
    size = sum(path.stat().st_size for path in output.iterdir()) / 2**20
    print(f"Wrote {output} ({size:.0f} MiB). Agreement with mode ao on {EXAMPLE.name}: {_in_words(decibels)}.")


def make_packages(config: ExportConfig, build: Build, folder: Path) -> list[float]:
    """Writes packages and their manifest to `folder`, and tries them; returns the result of `try_packages`."""
    device, report = build.device, partial(logger.info, "%s ...")
    if device.type == "cuda":
        use_table(device, report)
    model = load_model(build.checkpoint, find_model_type(build.model_type), device)
    subgraphs = subgraphs_of(model, config.mode, device, config.batch_size)
    paths = export_subgraphs(subgraphs, build.shapes, device, folder, report)
    del model, subgraphs  # frees device memory for the subprocesses
    if device.type == "cuda":
        torch.cuda.empty_cache()
        report("compiling the Triton kernels")
        paths.append(_in_subprocess("compiled kernels for", compile_kernels, config, build, folder))
    write_manifest(folder, build, paths)
    report("trying the packages")
    return try_packages(config, build, folder)


def try_packages(config: ExportConfig, build: Build, folder: Path) -> list[float]:
    """Signal over difference from mode ao on a photograph, in dB: of predicted IoU, and of low-res logits.

    Each mode runs in a separate process, as a server does. Raises StartupError if they disagree or native code crashes.
    """
    check_packages(folder, build, file_names(build.shapes, build.device))
    expected, found = (
        _in_subprocess("tried", answer_example, config, build, folder, mode) for mode in (Mode.AO, config.mode)
    )
    decibels = [signal_to_noise(*pair) for pair in zip(expected, found, strict=True)]
    if min(decibels) < least_decibels(config.mode):
        raise StartupError(
            f"the packages disagree with mode ao on {EXAMPLE.name} ({_in_words(decibels)}; the minimum is "
            f"{least_decibels(config.mode):.0f} dB); they are not kept"
        )
    return decibels


def _in_subprocess(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """`isolated_process.run_in_subprocess`. Raises StartupError if the process crashes; `what` says what it did."""
    try:
        return run_in_subprocess(function, *arguments)
    except ProcessDied as died:
        raise StartupError(
            f"a process that {what} the packages crashed ({died}); they are not kept. Try another C++ compiler: "
            "set CXX, for example to /usr/bin/g++"
        ) from died


def load_packaged(build: Build, folder: Path, mode: Mode, config: GeneratorConfig) -> Generator:
    """The generator of a mode; a compiled mode loads the packages in `folder`."""
    model = load_model(build.checkpoint, find_model_type(build.model_type), build.device)
    return build_generator(model, mode, config, build.device, from_packages(folder), build.shapes.batch_size)


def compile_kernels(config: ExportConfig, build: Build, folder: Path) -> Path:
    """Compiles the Triton kernels outside the packages, by a warm-up, and packs them into a file in `folder`.

    Returns its path.
    """
    with TemporaryDirectory() as cache:
        keep_kernels_in(Path(cache))
        generator = load_packaged(build, folder, config.mode, config.generator)
        warm_up(generator, decode_image(EXAMPLE.read_bytes(), Limits()), build.device)  # as a server does
        pack(Path(cache), folder / NAME)
    return folder / NAME


def answer_example(config: ExportConfig, build: Build, folder: Path, mode: Mode) -> tuple[NDArray[np.float32], ...]:
    """Predicted IoUs [P, 3] of a photograph and logits [n, h, w] of some masks, in mode ao or from `folder`'s packages.

    A full batch of `batch_size` copies is encoded; the result is that of the last one.
    """
    # on a CPU, all points of a large model take minutes, and its subgraphs take only a few points at a time
    most = config.generator.points_per_side if build.device.type == "cuda" else _SIDE_OF_TRIAL
    side = min(config.generator.points_per_side, most)
    image = decode_image(EXAMPLE.read_bytes(), Limits())
    generator = load_packaged(build, folder, mode, replace(config.generator, points_per_side=side))
    assert isinstance(generator, MaskGenerator)
    stages, decoder = generator.stages, generator.stages.decoder
    whole = crops_of((image.shape[0], image.shape[1]), generator.config)[0]
    points = to_model_input(PointGrids(generator.config)(whole), whole.size, generator.image_size).to(build.device)
    with torch.inference_mode():
        # all in one stream: the result of `generator.encode` belongs to the stream of the generator's thread
        features = stages.encode(torch.cat([stages.preprocess(image)] * config.batch_size)).unbatch()[-1]
        prepared = decoder.prepare(features)
        predicted_iou = predict(decoder, prepared, points, lambda iou: every_mask(iou[:0])).predicted_iou
        some = points[:: -(-len(points) // _POINTS_WITH_MASKS)]
        logits = predict(decoder, prepared, some, every_mask).logits
        return predicted_iou.float().cpu().numpy(), logits.float().cpu().numpy()


def _in_words(decibels: Sequence[float]) -> str:
    iou, logits = decibels
    return f"predicted IoU {iou:.0f} dB, logits {logits:.0f} dB"
