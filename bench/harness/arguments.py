"""What programs that measure one system or one model ask for, and what their results begin with."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import RESULTS
from bench.harness.machine import machine
from bench.harness.weights import add_device, add_model, check_device, choose_model
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


def model_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m bench.PROGRAM`, which measures a model on a device; `parse_model` parses with it."""
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.{program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(parser)
    add_device(parser)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    return parser


def parse_model(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Ends with a line where model and weights do not fit together, or the device is not there."""
    args = parser.parse_args(arguments)
    choose_model(parser, args)
    check_device(parser, args)
    return args


def model_result(program: str, args: argparse.Namespace, arguments: Sequence[str]) -> dict[str, Any]:
    """What the result of `python -m bench.PROGRAM` begins with."""
    return {
        "what": program + "-seeded" * (args.weights == "seeded"),
        "model": args.model_type,
        "command": shlex.join(["python", "-m", f"bench.{program}", *arguments]),
        "machine": machine(args.device),
        "weights": args.weights,
    }
