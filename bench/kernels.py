"""Times the kernels of the large model one by one, in every form and with every configuration that may be worth a try.

    python -m bench.kernels                    128 points at a time
    python -m bench.kernels --points 1024      as furious has them
    python -m bench.kernels --only "update float16"      what begins with this

It tells what to write into `sam2_amg/kernels/launch_configs.py`, and what a kernel takes beside its twin. For the
fastest configurations of one GPU alone, `sam2-amg tune` takes less time.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm
from triton.runtime.errors import OutOfResources
from triton.testing import do_bench

from bench import RESULTS
from bench.harness.machine import machine
from bench.harness.weights import seeded_model
from bench.report.pages import write
from sam2_amg.kernels.launch_candidates import CANDIDATES
from sam2_amg.kernels.launch_configs import launch_configs, using_launch_configs
from sam2_amg.network.addend import Addend
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.fp16x3_linear import Fp16x3Linear
from sam2_amg.network.residual import add_and_normalise, add_and_normalise_in_torch
from sam2_amg.tuning.trials import Inputs, Trial, all_trials

# rows, inputs, outputs, what is behind: stages 1 to 3 of the large encoder, prompt tokens of 1,024 points
_LAYERS = (
    *((65536, 144, 432, ""), (65536, 144, 144, ""), (65536, 144, 576, "gelu")),
    *((16384, 288, 864, ""), (16384, 288, 288, ""), (16384, 288, 1152, "gelu")),
    *((4096, 576, 576, ""), (4096, 576, 2304, "gelu")),
    *((8192, 256, 128, ""), (8192, 256, 256, ""), (8192, 256, 2048, "relu")),
)
_NORMS = (256, 144, 8), (128, 288, 4), (64, 576, 16), (32, 1152, 8)  # side, channels, windows of the large encoder


def linear_trials(inputs: Inputs) -> Iterator[Trial]:
    """fp16x3 layers: reading rows as they are, and as parts of them that lie in memory."""
    for count, width, outputs, activation in _LAYERS:
        layer = Fp16x3Linear(nn.Linear(width, outputs).requires_grad_(False), activation).to(inputs.device)
        rows, name = inputs.normal(count, width), f"linear {count} x {width} to {outputs} {activation}".rstrip()
        yield Trial(name, "in one kernel", partial(layer.in_one_kernel, rows))
        yield Trial(name, "as one product", partial(layer.as_one_product, rows))


def norm_trials(inputs: Inputs) -> Iterator[Trial]:
    """The encoder's additions and LayerNorm, with a norm of float16: our kernel, and what torch.compile makes alone."""
    compiled = torch.compile(add_and_normalise_in_torch)

    def normed(call: Callable[..., tuple[Tensor, Tensor]], *given: Any) -> Tensor:
        return call(*given)[1]

    for side, channels, window in _NORMS:
        x, rows = inputs.normal(1, side, side, channels), inputs.normal(side * side, channels)
        norm = nn.LayerNorm(channels, 1e-6).requires_grad_(False).to(inputs.device)
        for name, windows in (("to windows", (0, window)), ("from windows", (window, 0))):
            given = x, Addend(rows, inputs.normal(channels)), norm, *windows, torch.float16
            name = f"norm {side} x {side} x {channels} {name}"
            yield Trial(name, "in one kernel", partial(normed, add_and_normalise, *given))
            yield Trial(name, "compiled", partial(normed, compiled, *given))


def time_trial(trial: Trial, device: torch.device) -> list[dict[str, Any]]:
    """Median milliseconds with the configuration that ships, then with each that may be tried; None where it does not
    fit."""
    name = {"kernel": trial.kernel, "form": trial.form}
    rows: list[dict[str, Any]] = [{**name, "launch": None, "ms": do_bench(trial.run, return_mode="median")}]
    for launch in CANDIDATES.get(trial.config_name or "", []):
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
    decoder = FoldedDecoder(seeded_model("large", device)).decoder
    trials = [
        trial
        for trial in chain(
            all_trials(device, decoder, dict.fromkeys((True, False), points)),
            linear_trials(Inputs(device)),
            norm_trials(Inputs(device)),
        )
        if f"{trial.kernel} {trial.form}".startswith(only)
    ]
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
