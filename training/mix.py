"""Mixes the weights of two runs of which one descends from the other, weight by weight.

    python -m training.mix sam2_amg/demo/sam2.1_hiera_demo.pt TRAINED.pt --output MIXED.pt

A model half way between can be better than either: it errs less where one run has forgotten and the other not yet
learned (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). The head that predicts IoU has to be fitted
anew (training/calibrate.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from training.network import SHIPPED_TEMPERATURE, export, load_trained


def mix(first: Path, second: Path, share: float, output: Path) -> None:
    """Writes `share` of the second file's weights and the rest of the first's, in the form that ships."""
    cpu = torch.device("cpu")
    mixed, other = (
        load_trained(path, SHIPPED_TEMPERATURE, SHIPPED_TEMPERATURE, cpu).state_dict() for path in (first, second)
    )
    for name, value in mixed.items():
        if value.is_floating_point():
            value.lerp_(other[name], share)
    export(mixed, SHIPPED_TEMPERATURE, output)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Mix the weights of two demo models.")
    parser.add_argument("first", type=Path, help="weights in the form that ships")
    parser.add_argument("second", type=Path, help="those of a run that descends from the first")
    parser.add_argument("--share", type=float, default=0.5, help="of the second (default: 0.5)")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(arguments)
    if not 0 <= args.share <= 1:
        parser.error(f"--share is {args.share}, not from 0 to 1")
    mix(args.first, args.second, args.share, args.output)


if __name__ == "__main__":
    main()
