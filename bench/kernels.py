"""Times the kernels of the large model one by one, in every form and with every configuration that may be worth a try.

    python -m bench.kernels                    128 points at a time
    python -m bench.kernels --points 1024      as furious has them
    python -m bench.kernels --only "update float16"      what begins with this

It tells what to write into `sam2_amg/kernels/launch_configs.py`, and what a kernel takes beside its twin.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.sam.mask_decoder import MaskDecoder as Sam2MaskDecoder
from torch import Tensor
from tqdm import tqdm
from triton.runtime.errors import OutOfResources
from triton.testing import do_bench

from bench import RESULTS
from bench.harness.machine import machine
from bench.harness.weights import seeded_model
from bench.report.pages import write
from sam2_amg.kernels.attention import attention
from sam2_amg.kernels.image_attention import read_keys, update_first, update_second
from sam2_amg.kernels.launch_configs import LaunchConfig, launch_configs, using_launch_configs
from sam2_amg.kernels.position_scores import position_scores
from sam2_amg.network.decoder import Kept
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.fused_upscaling import FusedUpscaling

_SIDE, _CHANNELS, _HEADS, _TOKENS, _WIDTH = 64, 256, 8, 8, 16
_PIXELS, _ROWS = _SIDE * _SIDE, _HEADS * _TOKENS
# attention of the large encoder: how many windows, tokens of each, heads of 72 channels
_WINDOWS = {
    "8 x 8": (1024, 64, 2),
    "4 x 4": (1024, 16, 4),
    "16 x 16": (16, 256, 8),
    "whole image": (1, 4096, 8),
    "8 x 8, last stage": (16, 64, 16),
}


@dataclass(frozen=True)
class Trial:
    """One form of a kernel; `config_name` is its field of `LaunchConfigs`, where other configurations are tried."""

    kernel: str
    form: str
    run: Callable[[], object]
    config_name: str | None = None


def _tiles(blocks: Sequence[int], parts: Sequence[int] = ()) -> list[LaunchConfig]:
    every = product(blocks, (4, 8), (1, 2, 3))
    tiles = [{"BLOCK": block, "num_warps": warps, "num_stages": stages} for block, warps, stages in every]
    return [{**tile, "PARTS": part} for tile in tiles for part in parts] if parts else [*tiles]


TRIES: dict[str, list[LaunchConfig]] = {
    **dict.fromkeys(("update_first", "update_second"), _tiles((32, 64), (1, 2))),
    "read": _tiles((32, 64), (1, 2, 4, 8)),
    **dict.fromkeys(("fp16_update_first", "fp16_update_second", "fp16_read"), _tiles((32, 64), (1, 2))),
    "position_scores": [{**tile, "POINTS": points} for tile in _tiles((64, 128)) for points in (8, 16)],
    "attention": _tiles((32, 64, 128)),
    "upscale": _tiles((32, 64)),
    "fp16_upscale": _tiles((64, 128)),
}


class Inputs:
    """Random tensors on a device, always the same."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._generator = torch.Generator(device).manual_seed(0)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=self._generator, device=self.device, dtype=dtype)


def image_token_trials(points: int, inputs: Inputs) -> Iterator[Trial]:
    """Image tokens: updated and read, in float32's accuracy and in float16."""
    centre, gain, after = (inputs.normal(_CHANNELS) for _ in range(3))
    shift, positions = inputs.normal(points, _ROWS), inputs.normal(_PIXELS, _HEADS * _WIDTH)
    heads = 0.5 * inputs.normal(points, _HEADS, _TOKENS, _WIDTH)
    for dtype in (torch.float32, torch.float16):
        form, fp16x3 = str(dtype).removeprefix("torch."), dtype == torch.float32
        prefix = "" if fp16x3 else "fp16_"
        keys = inputs.normal(points, _PIXELS, _CHANNELS, dtype=dtype)
        folded, values = (inputs.normal(points, _ROWS, _CHANNELS, dtype=dtype) for _ in range(2))
        queries, own = positions.to(dtype), heads.to(dtype)
        first = partial(update_first, keys[0], centre, queries, own, values, gain, after, 1e-5, fp16x3)
        yield Trial("update", f"{form}, layer 1", first, f"{prefix}update_first")
        scores = position_scores(positions, heads, not fp16x3)
        second = partial(update_second, keys, *scores, shift, folded, values, 1e-5, fp16x3)
        yield Trial("update", f"{form}, layer 2", second, f"{prefix}update_second")
        yield Trial("read", form, partial(read_keys, keys, queries, own, folded, fp16x3), f"{prefix}read")
        run = partial(position_scores, positions, heads, not fp16x3)
        yield Trial("scores of positions", form, run, "position_scores")


def upscale_trials(points: int, inputs: Inputs, decoder: Sam2MaskDecoder) -> Iterator[Trial]:
    """Every point with one kept mask, in float32's accuracy and in float16."""
    hyper = inputs.normal(points, _CHANNELS // 8, 3)
    features = inputs.normal(_PIXELS, 4, 64), inputs.normal(_PIXELS, 4, 128)
    every = torch.arange(points, device=inputs.device)
    kept = Kept(every, every % 3)
    for dtype, config_name in ((torch.float32, "upscale"), (torch.float16, "fp16_upscale")):
        upscaling = FusedUpscaling(decoder, fp16x3=dtype == torch.float32)
        keys = inputs.normal(points, _PIXELS, _CHANNELS, dtype=dtype)
        form = f"{str(dtype).removeprefix('torch.')}, one mask a point"
        yield Trial("upscale", form, partial(upscaling.masks, keys, hyper, *features, kept), config_name)


def attention_trials(inputs: Inputs) -> Iterator[Trial]:
    """Attention of the encoder: ours, and torch's."""
    for name, (windows, tokens, heads) in _WINDOWS.items():
        for dtype in (torch.float32, torch.float16):
            form = str(dtype).removeprefix("torch.")
            q, k, v = inputs.normal(windows, tokens, 3, heads, 72, dtype=dtype).unbind(2)
            config_name = "attention" if tokens > launch_configs(inputs.device).small_attention["BLOCK"] else None
            yield Trial(f"attention {name}", f"{form}, ours", partial(attention, q, k, v), config_name)
            theirs = partial(F.scaled_dot_product_attention, q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
            yield Trial(f"attention {name}", f"{form}, torch's", theirs)


def time_trial(trial: Trial, device: torch.device) -> list[dict[str, Any]]:
    """Median milliseconds with the configuration that ships, then with each that may be tried; None where it does not
    fit."""
    name = {"kernel": trial.kernel, "form": trial.form}
    rows: list[dict[str, Any]] = [{**name, "launch": None, "ms": do_bench(trial.run, return_mode="median")}]
    for launch in TRIES.get(trial.config_name or "", []):
        assert trial.config_name is not None
        with using_launch_configs(replace(launch_configs(device), **{trial.config_name: launch})):
            try:
                milliseconds = do_bench(trial.run, warmup=5, rep=30, return_mode="median")
            except OutOfResources:
                milliseconds = None
        rows.append({**name, "launch": dict(launch), "ms": milliseconds})
    return rows


@torch.inference_mode()
def measure(points: int, device: torch.device, only: str) -> list[dict[str, Any]]:
    """A row for each form and configuration of the kernels whose name and form begin with `only`."""
    decoder = FoldedDecoder(seeded_model("large", device))
    inputs = Inputs(device)
    trials = [
        *image_token_trials(points, inputs),
        *upscale_trials(points, inputs, decoder.decoder),
        *attention_trials(inputs),
    ]
    trials = [trial for trial in trials if f"{trial.kernel} {trial.form}".startswith(only)]
    return [row for trial in tqdm(trials, desc="kernels", disable=None) for row in time_trial(trial, device)]


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=128, help="at a time (default %(default)s)")
    parser.add_argument("--only", default="", help="kernels whose name and form begin with this (default: all)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("there is no CUDA GPU here, and kernels are for those")
    rows = measure(args.points, torch.device("cuda"), args.only)
    if not rows:
        parser.error(f'--only "{args.only}": no kernel begins with this')
    result = {
        "what": "-".join(["kernels", *args.only.replace(",", "").split()]),
        "model": "large",
        "command": shlex.join(["python", "-m", "bench.kernels", *arguments]),
        "machine": machine("cuda"),
        "points": args.points,
        "rows": rows,
    }
    write(result, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
