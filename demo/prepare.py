"""Turns a training state into the checkpoint that ships: every key of the model, half precision, steep logits.

    python -m demo.prepare STATE.pt --logit_scale 10

Keys that training leaves out (what only video needs) are filled with zeros. Scaling the last layer of every mask's
hypernetwork scales its logits: the masks stay the same, and pass the generator's stability test.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from sam2_amg.checkpoints import MODEL_TYPES, build_model


def prepare(state: dict[str, Tensor], logit_scale: float) -> dict[str, Tensor]:
    """The shipped state dict, float16, from a training state; raises KeyError for a key that the model lacks."""
    model = build_model(MODEL_TYPES["demo"])
    full = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    for name, value in state.items():
        full[name].copy_(value)
    for i in range(model.sam_mask_decoder.num_mask_tokens):
        for part in ("weight", "bias"):
            full[f"sam_mask_decoder.output_hypernetworks_mlps.{i}.layers.2.{part}"] *= logit_scale
    return {name: value.half() for name, value in full.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Prepare the demo checkpoint from a training state.")
    parser.add_argument("state", type=Path, help="training state: a .pt file with a dict under the key 'model'")
    parser.add_argument("--logit_scale", type=float, default=10.0, help="factor on the mask logits (default 10)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / MODEL_TYPES["demo"].file)
    args = parser.parse_args()
    state = torch.load(args.state, map_location="cpu", weights_only=True)["model"]
    torch.save({"model": prepare(state, args.logit_scale)}, args.output)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
