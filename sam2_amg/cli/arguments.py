"""The parser and the arguments that the command lines share."""

from __future__ import annotations

import argparse
import os.path
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from sam2_amg.config import MOST_TOGETHER, ModelConfig
from sam2_amg.demo import DEMO_DIR
from sam2_amg.errors import StartupError
from sam2_amg.logs import FORMATS
from sam2_amg.network.model_types import MODEL_TYPES, ModelType, find_model_type


class Parser(argparse.ArgumentParser):
    """A parser that raises StartupError and keeps the line breaks of its texts."""

    def __init__(self, program: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=program,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Called by argparse. Raises StartupError."""
        raise StartupError(f"{message}; see --help")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """`parse_args`, for flags with underscores or hyphens."""
        return self.parse_args([underscored(argument) for argument in arguments])


def underscored(argument: str) -> str:
    """--points-per-side=8 -> --points_per_side=8"""
    name, equals, value = argument.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if name.startswith("--") else argument


def path_of(text: str) -> Path:
    """A path as it is given; `~` at its beginning becomes a home folder, which a shell leaves to us within quotes."""
    return Path(os.path.expanduser(text))


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds CHECKPOINT_DIR and MODEL_TYPE."""
    text = "folder of checkpoints, or a file of fine-tuned weights of this type (default: the bundled demo model)"
    parser.add_argument("checkpoint_dir", metavar="CHECKPOINT_DIR", nargs="?", type=path_of, help=text)
    parser.add_argument("model_type", metavar="MODEL_TYPE", nargs="?", help=", ".join(MODEL_TYPES))


def model_of(args: argparse.Namespace) -> tuple[Path, ModelType]:
    """The checkpoint folder and the model type; the demo model's by default. Raises StartupError."""
    if (args.checkpoint_dir is None) != (args.model_type is None):
        raise StartupError(f"CHECKPOINT_DIR needs a MODEL_TYPE after it: {', '.join(MODEL_TYPES)}")
    return args.checkpoint_dir or DEMO_DIR, find_model_type(args.model_type or "demo")


def add_model_flag(parser: argparse.ArgumentParser) -> None:
    """Adds --model, for commands whose positional arguments are photographs."""
    text = "a folder of checkpoints, or a file of fine-tuned weights, and its size (default: the bundled demo model)"
    parser.add_argument("--model", nargs=2, metavar=("CHECKPOINT_DIR", "MODEL_TYPE"), help=text)


def model_of_flag(args: argparse.Namespace) -> tuple[Path, ModelType]:
    """The same as `model_of`, by --model."""
    folder, model_type = args.model or (str(DEMO_DIR), "demo")
    return path_of(folder), find_model_type(model_type)


def add_log_format(parser: argparse.ArgumentParser) -> None:
    """Adds --log_format."""
    log = parser.add_argument_group("log")
    text = "what the log on standard error is made of: text, or a line of JSON an event (default %(default)s)"
    log.add_argument("--log_format", choices=FORMATS, default="text", help=text)


def add_batch_size(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds --batch_size."""
    text = (
        f"encode up to N waiting images together, N at most {MOST_TOGETHER}; with --fast the encoder is compiled for N "
        "images and for each power of two below N, each takes memory, and packages fit one N (default %(default)s)"
    )
    parser.add_argument("--batch_size", type=int, default=ModelConfig.batch_size, metavar="N", help=text)


def add_device(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds --device, which `device_of` resolves."""
    text = "default auto: cuda if available, else cpu"
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=text)


def device_of(name: str) -> str:
    """A device's name, with `auto` resolved. Raises StartupError if cuda is not available."""
    if name == "cpu":
        return name
    import torch  # takes seconds; --help and flag errors do not wait for it

    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise StartupError("--device cuda: torch finds no CUDA device here; give --device cpu, or leave it out")
    if name == "auto":
        return "cuda" if there else "cpu"
    return name
