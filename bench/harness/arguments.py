"""What programs that measure one system ask for, and the job that is made of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness.weights import add_device, add_model
from bench.harness.worker import Job


def add_system(parser: argparse.ArgumentParser) -> None:
    """The model, the device, the mode, the points, and whether outputs are planted."""
    add_model(parser)
    add_device(parser)
    parser.add_argument("--mode", default="ao", help="default %(default)s")
    parser.add_argument("--planted", action="store_true", help="plant decoder outputs")
    parser.add_argument("--points_per_side", type=int, default=32, help="default %(default)s")


def job_of(args: argparse.Namespace, system: str, images: Sequence[Path], **more: Any) -> Job:
    """The job of a system, without a result's path. `more` are the fields of Job that the arguments do not give."""
    return Job(
        system=system,
        model_type=args.model_type,
        weights=args.weights,
        directory=str(args.checkpoint_dir.resolve()),
        device=args.device,
        planted=args.planted,
        points_per_side=args.points_per_side,
        images=[str(path.resolve()) for path in images],
        result="",
        **more,
    )
