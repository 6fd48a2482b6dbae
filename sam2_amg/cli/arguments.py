"""The parser and the arguments that the command lines share."""

from __future__ import annotations

import argparse
import os.path
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from sam2_amg.config import MOST_TOGETHER, ModelConfig, ReplicaConfig
from sam2_amg.demo import DEMO_DIR
from sam2_amg.errors import StartupError
from sam2_amg.network.model_types import MODEL_TYPES, ModelType, find_model_type
from sam2_amg.process.logs import FORMATS


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
    text = "cpu, cuda, or cuda:N for one of several GPUs (default auto: cuda if available, else cpu)"
    parser.add_argument("--device", type=_device, default="auto", metavar="DEVICE", help=text)


def _device(text: str) -> str:
    """Raises argparse.ArgumentTypeError for what is no device."""
    if re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda and cuda:N")
    return text


def device_of(name: str, replicas: ReplicaConfig | None = None) -> str:
    """The type of a device, "cpu" or "cuda", with `auto` resolved. Raises StartupError if it is not there.

    Replicas of a cluster have GPUs unless the name is cpu; this host need not have one. To be called before anything
    uses CUDA: of several GPUs, the process then sees the one that `cuda:N` names alone.
    """
    if name == "cpu":
        return name
    if replicas is not None and replicas.ray_address is not None:
        return "cuda"
    kind, colon, index = name.partition(":")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if colon:
        os.environ["CUDA_VISIBLE_DEVICES"] = _nth(visible, int(index))
    import torch  # takes seconds; --help and flag errors do not wait for it

    there = torch.cuda.is_available()
    if kind == "cuda" and not there:
        known = f" (CUDA_VISIBLE_DEVICES={visible})" if visible is not None else ""
        raise StartupError(f"--device {name}: torch finds no such CUDA device{known}; give another, or leave it out")
    if kind == "auto":
        return "cuda" if there else "cpu"
    return kind


def _nth(visible: str | None, index: int) -> str:
    """What CUDA_VISIBLE_DEVICES is for one of the devices that it lists now; it lists all where it is not set."""
    if visible is None:
        return str(index)
    listed = [each.strip() for each in visible.split(",")]
    return listed[index] if index < len(listed) else ""


def add_replicas(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds --replicas and --ray_address, which `replicas_of` reads."""
    text = "make masks in N processes, each with a GPU of its own, or MIN to MAX as there is work (extra: ray)"
    parser.add_argument("--replicas", type=_counts, metavar="N|MIN:MAX", help=text)
    text = "the Ray cluster of the replicas, auto for the one of this host (default: this host alone)"
    parser.add_argument("--ray_address", metavar="ADDRESS", help=text)


def _counts(text: str) -> tuple[int, int]:
    """The numbers of "N" or "MIN:MAX". Raises argparse.ArgumentTypeError."""
    least, colon, most = text.partition(":")
    if not (least.isdecimal() and (most.isdecimal() if colon else True)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither N nor MIN:MAX")
    return int(least), int(most or least)


def replicas_of(args: argparse.Namespace) -> ReplicaConfig | None:
    """Which replicas make masks; None if this process does. Raises StartupError for flags that contradict them."""
    if args.replicas is None:
        if args.ray_address is not None:
            raise StartupError("--ray_address needs --replicas; give both, or leave it out")
        return None
    if ":" in args.device:
        raise StartupError(
            f"--device {args.device} contradicts --replicas, which have a GPU each; choose GPUs by CUDA_VISIBLE_DEVICES"
        )
    least, most = args.replicas
    return ReplicaConfig(least, most, args.ray_address)
