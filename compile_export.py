"""Write ahead-of-time packages of --fast (and --furious), from which a server starts in seconds: see --help."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_amg.apart import ProcessDied, call_apart
from sam2_amg.checkpoints import EXAMPLE, find_checkpoint, find_model_type, image_size_of, load_model
from sam2_amg.cli import Parser, add_batch_size, add_device, add_model, device_of, fail, model_of, underscored
from sam2_amg.comparison import signal_to_noise
from sam2_amg.config import GeneratorConfig, Limits, Mode, require_batch_size
from sam2_amg.decoder import every_mask, predict
from sam2_amg.errors import StartupError
from sam2_amg.exported import export_units, file_names, from_packages
from sam2_amg.image import decode_image
from sam2_amg.kernel_cache import NAME, keep_kernels_in, pack
from sam2_amg.manifest import Build, check_packages, write_manifest
from sam2_amg.pipeline import MaskGenerator
from sam2_amg.prompts import crops_of, to_model_input
from sam2_amg.serving import exit_on_signals
from sam2_amg.stages import build_generator, fixed_shapes, units_of
from sam2_amg.warm_up import warm_up

logger = logging.getLogger("compile_export")
# Predicted IoUs and low-res logits of packages above their difference from mode ao's, dB: what masks need, and far
# above what something broken reaches. (Masks themselves would not do: a checkpoint may find none in the photograph.)
_LEAST_DECIBELS = {Mode.FAST: 50.0, Mode.FURIOUS: 35.0}
_SIDE_OF_TRIAL = 8  # of the grid, at most, on a CPU
_POINTS_WITH_MASKS = 64  # at most

_DESCRIPTION = """\
Compile the network of --fast, or --fast --furious, ahead of time, for this machine's device, and write it as packages.

  python compile_export.py checkpoints large --fast --output packages
  python server.py checkpoints large --fast --load_exported packages

Packages are native code: load only those that you made yourself. They hold the weights, and fit one checkpoint, one
kind of GPU or processor, and one version of torch; a server refuses others. They take any image; those of --furious
take as many points at a time as a grid has, up to 1,024, and a server with another grid may need others.
"""


@dataclass(frozen=True)
class ExportConfig:
    """What the command line decides."""

    checkpoint_dir: Path
    model_type: str
    mode: Mode
    device: str
    output: Path
    generator: GeneratorConfig
    batch_size: int


def parse(arguments: Sequence[str]) -> ExportConfig:
    """The configuration that a command line asks for. Raises StartupError; exits where --help is asked for."""
    parser = Parser(
        prog="compile_export.py",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model(parser)
    parser.add_argument("--fast", action="store_true", help="the mode to compile")
    parser.add_argument("--furious", action="store_true", help="with --fast, on a CUDA GPU: compile that mode instead")
    add_batch_size(parser)
    text = "the server's grid: with --furious, packages are for so many points at a time (default %(default)s)"
    side = GeneratorConfig.points_per_side
    parser.add_argument("--points_per_side", type=int, default=side, metavar="N", help=text)
    add_device(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder for the packages")
    args = parser.parse_args([underscored(argument) for argument in arguments])
    directory, kind = model_of(args)
    if not args.fast:
        raise StartupError("give --fast, or --fast --furious: no other mode compiles anything")
    mode, device = Mode.FURIOUS if args.furious else Mode.FAST, device_of(args.device)
    mode.require_device(device)
    require_batch_size(args.batch_size)
    generator = GeneratorConfig(points_per_side=args.points_per_side)
    return ExportConfig(directory, kind.name, mode, device, args.output, generator, args.batch_size)


def export(config: ExportConfig) -> None:
    """Writes the packages, tries them, and only then puts them where they are wanted. Raises StartupError."""
    output = config.output
    if output.exists():
        raise StartupError(f"--output {output} is there already; remove it, or give another folder")
    kind, device = find_model_type(config.model_type), torch.device(config.device)
    checkpoint = find_checkpoint(config.checkpoint_dir, kind)
    shapes = fixed_shapes(config.mode, image_size_of(kind), config.generator, device, config.batch_size)
    build = Build(checkpoint, kind.name, config.mode, device, shapes)
    report = partial(logger.info, "%s ...")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # what is left of it is cleared away, whatever happens; in the end that is nothing
        with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.", ignore_cleanup_errors=True) as folder:
            part = Path(folder)
            units = units_of(load_model(checkpoint, kind, device), config.mode, device, config.batch_size)
            paths = export_units(units, build.shapes, device, part, report)
            del units  # the processes that follow want the device's memory
            if device.type == "cuda":
                torch.cuda.empty_cache()
                report("compiling our own kernels")
                paths.append(_apart(compile_kernels, config, build, part))
            write_manifest(part, build, paths)
            report("trying the packages")
            decibels = try_packages(config, build, part)
            part.chmod(0o755)  # a temporary folder is its owner's alone
            part.rename(output)
    except OSError as error:
        raise StartupError(f"--output {output} cannot be written ({error.strerror}); choose another folder") from error
    size = sum(path.stat().st_size for path in output.iterdir()) / 2**20
    print(f"Wrote {output} ({size:.0f} MiB); in {EXAMPLE.name} {_in_words(decibels)}.")


def try_packages(config: ExportConfig, build: Build, folder: Path) -> list[float]:
    """How far the packages agree with mode ao on a photograph, each in a process of its own, as servers are: dB of
    predicted IoU, and of low-res logits.

    Raises StartupError where they do not agree, or where native code crashes.
    """
    check_packages(folder, build, file_names(build.shapes, build.device))
    expected, found = (_apart(answer_example, config, build, folder, mode) for mode in (Mode.AO, config.mode))
    decibels = [signal_to_noise(*pair) for pair in zip(expected, found, strict=True)]
    if min(decibels) < _LEAST_DECIBELS[config.mode]:
        raise StartupError(
            f"the packages find something else in {EXAMPLE.name} ({_in_words(decibels)}); they are not kept"
        )
    return decibels


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """`apart.call_apart`; a crash is a StartupError."""
    try:
        return call_apart(function, *arguments)
    except ProcessDied as died:
        raise StartupError(
            f"a process that tried the packages crashed ({died}); they are not kept. Where the C++ compiler links "
            "its own library statically, packages crash: set CXX to another, such as /usr/bin/g++"
        ) from died


def compile_kernels(config: ExportConfig, build: Build, folder: Path) -> Path:
    """Has Triton compile what else a server from the packages in `folder` runs, and keeps it there; in which file."""
    with TemporaryDirectory() as cache:
        keep_kernels_in(Path(cache))
        model = load_model(build.checkpoint, find_model_type(config.model_type), build.device)
        make_units = from_packages(folder)
        generator = build_generator(model, config.mode, config.generator, build.device, make_units, config.batch_size)
        warm_up(generator, decode_image(EXAMPLE.read_bytes(), Limits()), build.device)  # as a server begins
        pack(Path(cache), folder / NAME)
    return folder / NAME


def answer_example(config: ExportConfig, build: Build, folder: Path, mode: Mode) -> tuple[NDArray[np.float32], ...]:
    """Predicted IoUs [P, 3], and logits [n, h, w] of some masks, of a photograph: in mode ao, or from the packages in
    `folder`, of the last of as many images as are encoded together.
    """
    # on a CPU a large model would take minutes for all points, and its units take few of them anyway
    most = config.generator.points_per_side if build.device.type == "cuda" else _SIDE_OF_TRIAL
    side = min(config.generator.points_per_side, most)
    image = decode_image(EXAMPLE.read_bytes(), Limits())
    model = load_model(build.checkpoint, find_model_type(config.model_type), build.device)
    generator_config = replace(config.generator, points_per_side=side)
    generator = build_generator(model, mode, generator_config, build.device, from_packages(folder), config.batch_size)
    assert isinstance(generator, MaskGenerator)
    stages, decoder = generator.stages, generator.stages.decoder
    whole = crops_of((image.shape[0], image.shape[1]), generator.config)[0]
    points = to_model_input(generator.point_grids(whole), whole.size, generator.image_size).to(build.device)
    with torch.inference_mode():
        # all in one stream: what `generator.encode` answers belongs to the stream of the generator's thread
        features = stages.encode(torch.cat([stages.preprocess(image)] * config.batch_size)).split()[-1]
        prepared = decoder.prepare(features)
        predicted_iou = predict(decoder, prepared, points, lambda iou: every_mask(iou[:0])).predicted_iou
        some = points[:: -(-len(points) // _POINTS_WITH_MASKS)]
        logits = predict(decoder, prepared, some, every_mask).logits
        return predicted_iou.float().cpu().numpy(), logits.float().cpu().numpy()


def _in_words(decibels: Sequence[float]) -> str:
    iou, logits = decibels
    return f"predicted IoU {iou:.0f} dB and logits {logits:.0f} dB above the difference from mode ao"


def main(arguments: list[str]) -> None:
    """The command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    exit_on_signals()  # what is half-made is cleared away
    try:
        export(parse(arguments))
    except StartupError as error:
        fail(error, "compile_export.py")


if __name__ == "__main__":
    main(sys.argv[1:])
