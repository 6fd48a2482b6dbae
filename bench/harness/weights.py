"""Models to measure: a checkpoint's, or any official size with reproducible random weights."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.demo import DEMO_DIR
from sam2_amg.network.checkpoints import build_model, fill_position_embeddings, find_checkpoint, load_model
from sam2_amg.network.model_types import MODEL_TYPES

_SEED = 0


def seeded_model(model_type: str, device: torch.device) -> SAM2Base:
    """A model with random weights that are the same every time: sam2's own initialisation, positions added."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = build_model(MODEL_TYPES[model_type])
        fill_position_embeddings(model)
    return model.requires_grad_(False).eval().to(device)


def write_seeded(directory: Path, model_type: str) -> None:
    """Writes those weights as a checkpoint, under the name that its type has."""
    model = seeded_model(model_type, torch.device("cpu"))
    torch.save({"model": model.state_dict()}, directory / MODEL_TYPES[model_type].file)


def add_model(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which model is measured, with which weights."""
    parser.add_argument("checkpoint_dir", nargs="?", type=Path, default=DEMO_DIR, metavar="CHECKPOINT_DIR")
    parser.add_argument("type", nargs="?", choices=MODEL_TYPES, metavar="MODEL_TYPE", help=", ".join(MODEL_TYPES))
    parser.add_argument("--model_type", choices=MODEL_TYPES, default="demo", help="the same, without a directory")
    parser.add_argument("--weights", choices=("checkpoint", "seeded"), default="checkpoint")


def choose_model(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Leaves the type, given either way, in `args.model_type`; ends with a line on what does not fit together."""
    if args.checkpoint_dir != DEMO_DIR and args.type is None:
        parser.error(f"CHECKPOINT_DIR needs a MODEL_TYPE after it: {', '.join(MODEL_TYPES)}")
    args.model_type = args.type or args.model_type
    if args.checkpoint_dir == DEMO_DIR and args.model_type != "demo" and args.weights == "checkpoint":
        parser.error(f"--model_type {args.model_type} needs --weights seeded, or a CHECKPOINT_DIR before it")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds --device, a GPU where there is one."""
    there = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=there)


def check_device(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends with a line where the device is not there."""
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here")


def get_model(weights: str, directory: Path, model_type: str, device: torch.device) -> SAM2Base:
    """`weights` is "checkpoint" (from `directory`) or "seeded"."""
    if weights == "seeded":
        return seeded_model(model_type, device)
    kind = MODEL_TYPES[model_type]
    return load_model(find_checkpoint(directory, kind), kind, device)
