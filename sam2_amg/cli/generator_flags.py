"""Flags of the commands that make masks: modes, and parameters of the generator."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from sam2_amg.cli.arguments import path_of
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.errors import StartupError
from sam2_amg.process.program import command_for

if TYPE_CHECKING:
    from sam2_amg.parameters import Parameters

# name, type, help; defaults come from GeneratorConfig
GENERATOR_FLAGS = (
    ("points_per_side", int, "points along each side of the grid: N x N prompts per image"),
    (
        "points_per_batch",
        int,
        "points decoded at a time (default: --baseline 64; other modes on cpu 8; on cuda ao 64, --fast all, at most "
        "4096)",
    ),
    ("pred_iou_thresh", float, "minimum predicted IoU of a mask"),
    ("stability_score_thresh", float, "minimum stability score of a mask"),
    ("stability_score_offset", float, "shift of the mask threshold, up and down, for the stability score"),
    ("mask_threshold", float, "logit above which a pixel belongs to a mask"),
    ("box_nms_thresh", float, "of two masks whose boxes overlap by more than this IoU, the worse is dropped"),
    ("crop_n_layers", int, "layers of crops to search besides the whole image"),
    ("crop_nms_thresh", float, "the same as --box_nms_thresh, between crops"),
    ("crop_overlap_ratio", float, "overlap of the crops, as a fraction of the image's side"),
    ("crop_n_points_downscale_factor", int, "each crop layer divides the points per side by N again"),
    ("min_mask_region_area", int, "fill holes and drop islands of fewer pixels than N; 0 for neither"),
    ("use_m2m", bool, "decode each mask again with itself as a prompt, by sam2's uncompiled decoder: takes longer"),
    ("multimask_output", bool, "three masks a point; without, one, by sam2's uncompiled decoder: takes longer"),
    ("mask_memory_mib", int, "memory limit of upsampled masks, in MiB, on cpu; not for --baseline (default 32)"),
)


FILTER_FLAGS = (
    ("min_mask_area", int, "drop masks of fewer than N pixels"),
    ("max_mask_area", int, "drop masks of more than N pixels"),
    ("mask_nms_thresh", float, "of two masks that overlap by more than this IoU, pixel by pixel, drop the worse"),
    ("max_masks", int, "keep the first N masks"),
    ("disjoint", bool, "give each pixel to one mask at most, the smallest"),
)
STRETCH = (("minmax", "percentile"), "scale the samples of dark pictures to 0 to 255")  # choices, help


class _OnOff(argparse.Action):
    """True for --name, False for --no_name."""

    def __call__(
        self, _parser: object, namespace: argparse.Namespace, _values: object, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, not (option or "").startswith("--no_"))


def add_flags(group: argparse._ArgumentGroup, flags: Sequence[tuple], defaults: object = None) -> None:
    """Adds a flag for each (name, type, help), with its default in the attributes of `defaults`."""
    for name, kind, text in flags:
        default = getattr(defaults, name, None)
        if kind is bool:
            text += f" (default {'on' if default else 'off'})"
            group.add_argument(f"--{name}", f"--no_{name}", action=_OnOff, nargs=0, help=text)
            continue
        if default is not None:
            text += f" (default {default:.4g})" if isinstance(default, float) else f" (default {default})"
        group.add_argument(f"--{name}", type=kind, metavar={int: "N", float: "X"}.get(kind, "JSON"), help=text)


def add_modes(parser: argparse.ArgumentParser) -> None:
    """Adds the modes, and what has compiled ones start sooner."""
    modes = parser.add_argument_group(
        "mode (default: ao, float32, the same masks as baseline, faster)",
        "Agreement with baseline is measured on 360 crops of photographs (demo model, H200).",
    )
    modes.add_argument("--baseline", action="store_true", help="sam2's own generator, unchanged")
    text = "ao, compiled: starts a minute or two later; as many masks as baseline in all of them"
    modes.add_argument("--fast", action="store_true", help=text)
    text = (
        "with --fast, on a CUDA GPU: float16 products, faster still; another number of masks than baseline in about "
        "1 image in 6; if masks must match baseline's, use --fast alone"
    )
    modes.add_argument("--furious", action="store_true", help=text)
    starts = parser.add_argument_group("faster start")
    starts.add_argument(
        "--load_exported",
        type=path_of,
        metavar="DIR",
        help=f"with --fast: load packages made by {command_for('export')} instead of compiling",
    )
    starts.add_argument(
        "--compile_cache", type=path_of, metavar="DIR", help="folder that keeps compiled code for the next start"
    )


def parameters_of(args: argparse.Namespace, but: Collection[str] = ()) -> tuple[Parameters, GeneratorConfig]:
    """The parameters of a request that were given as flags, `but` those that are no flags here; and what the
    generator has beside them. Raises StartupError."""
    from sam2_amg.parameters import NAMES, Parameters, read_values  # takes a moment, for pydantic and NumPy

    names = [name for name in NAMES if name not in but]
    parameters = read_values({name: value for name in names if (value := getattr(args, name)) is not None}, Parameters)
    memory = GeneratorConfig(mask_memory_mib=args.mask_memory_mib)
    parameters.check(memory)
    return parameters, memory


def mode_of(args: argparse.Namespace) -> Mode:
    """The mode that flags select. Raises StartupError if they contradict each other."""
    mode = _mode_of(args)
    if not mode.is_pipeline and args.mask_memory_mib is not None:
        raise StartupError("--mask_memory_mib contradicts --baseline, which does not use it; leave one of them out")
    if not mode.is_compiled and args.load_exported is not None:
        raise StartupError(f"--load_exported needs --fast: mode {mode.value} has no packages")
    return mode


def _mode_of(args: argparse.Namespace) -> Mode:
    if args.baseline and (args.fast or args.furious):
        raise StartupError("--baseline contradicts --fast and --furious; give one or the other")
    if args.furious and not args.fast:
        raise StartupError("--furious needs --fast: give both, or neither")
    if args.fast:
        return Mode.FURIOUS if args.furious else Mode.FAST
    return Mode.BASELINE if args.baseline else Mode.AO
