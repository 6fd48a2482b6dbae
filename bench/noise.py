"""Where rounding errors of float16 come from: noise of the outputs with some products in float16, the rest in float32.

    python -m bench.noise                                       the demo model, on crops of photographs

Every place that a network in float16 rounds at is rounded alone, and in groups, in float32 arithmetic, on any device
(`bench/harness/rounding.py`). Furious rounds at some of them only. Noise adds up by its power: of two sources 3 dB
apart the quieter counts half.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base
from sam2.utils.amg import calculate_stability_score
from torch import Tensor

from bench.harness.arguments import model_parser, model_result, parse_model
from bench.harness.photographs import listed_photographs, make_crops, read_crops
from bench.harness.rounding import Rounding, rounded_by_furious, rounded_decoder, rounded_encoder
from bench.harness.weights import get_model
from bench.numerics import points_on
from bench.report.pages import write
from sam2_amg.network.encoder import ImageFeatures
from sam2_amg.network.precision import float32_convolutions
from sam2_amg.pipeline.preprocess import Preprocess

_CROPS = ("dog-whole", "truck-top-left", "coffee-whole", "china-middle")
_LEAST_IOU = 0.6  # of masks whose predicted IoU and stability count
_FROM_PHOTOGRAPH = ("stage", "patch", "neck")  # what places of the encoder begin with


def groups_of(places: Sequence[str]) -> dict[str, list[str]]:
    """Places together: all, those of each network, and of these the ones that furious rounds at; those of each of the
    encoder's stages and kinds of layers; each of the decoder's alone."""
    encoder = [place for place in places if place.startswith(_FROM_PHOTOGRAPH)]
    decoder = [place for place in places if place not in encoder]
    groups = {"all": list(places), "encoder": encoder, "decoder": decoder}
    groups |= {f"furious: {name}": [place for place in groups[name] if rounded_by_furious(place)] for name in groups}
    staged = [place.split(", ", 1) for place in encoder if place.startswith("stage")]
    for index, part in enumerate(("stage", "kind")):
        for name in dict.fromkeys(place[index] for place in staged):
            label = name if part == "stage" else f"all stages, {name}"
            groups[f"encoder: {label}"] = [", ".join(place) for place in staged if place[index] == name]
    groups |= {f"encoder: {place}": [place] for place in encoder if not place.startswith("stage")}
    for side in ("tokens", "image"):
        own = [place for place in decoder if place.startswith(side)]
        groups[f"decoder: {side}"] = own
        groups |= {f"decoder: {place}": [place] for place in own}
    return groups


def stability(logits: Tensor) -> Tensor:
    """Stability scores of low-res logits [P, 3, h, w], at the offset 1: [P, 3]."""
    return calculate_stability_score(logits, 0.0, 1.0).nan_to_num(0.0)  # of no pixels


class Network:
    """Predicted IoU and low-res logits of the points of a photograph, with some places rounded."""

    def __init__(self, model: SAM2Base) -> None:
        """Modifies the model."""
        self.rounding = Rounding()
        self.encoder, self.decoder = rounded_encoder(model, self.rounding), rounded_decoder(model, self.rounding)
        self._exact: tuple[Tensor, ImageFeatures] | None = None

    def __call__(self, pixels: Tensor, points: Tensor, places: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
        """[P, 3] and [P, 3, h, w]"""
        self.rounding.places = frozenset(places)
        if any(place.startswith(_FROM_PHOTOGRAPH) for place in places):
            features = self.encoder(pixels)
        else:
            if self._exact is None or self._exact[0] is not pixels:
                self._exact = pixels, self.encoder(pixels)
            features = self._exact[1]
        prepared = self.decoder.prepare(features)
        attended = self.decoder.attend(prepared, points)
        logits = self.decoder.image_tokens.upscale(prepared, attended.state, attended.hyper)
        return attended.predicted_iou, logits


@torch.inference_mode()
@float32_convolutions()
def measure(
    model: SAM2Base, paths: Sequence[Path], device: torch.device, points_per_side: int = 8
) -> list[dict[str, Any]]:
    """A row for each group: what its noise adds to predicted IoU and stability (root mean square, of masks with a
    predicted IoU over 0.6) and to low-res logits (in dB below the logits' power). Modifies the model."""
    network, preprocess = Network(model), Preprocess(model.image_size, device)
    errors: dict[str, list[tuple[Tensor, Tensor, Tensor, Tensor]]] = {}
    for image in read_crops(paths):
        pixels, points = preprocess(image), points_on(image, points_per_side, model.image_size).to(device)
        iou, logits = network(pixels, points)
        good, stable = iou > _LEAST_IOU, stability(logits)
        groups = groups_of(sorted(network.rounding.known))
        for group, places in groups.items():
            noisy_iou, noisy = network(pixels, points, places)
            found = (noisy_iou - iou)[good], (stability(noisy) - stable)[good]
            errors.setdefault(group, []).append((*found, (noisy - logits).square().mean(), logits.square().mean()))
    return [{"group": group, "places": len(groups[group]), **figures(found)} for group, found in errors.items()]


def figures(errors: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> dict[str, float | None]:
    """Of the errors on several photographs."""
    iou, stable = (torch.cat([each[i] for each in errors]).double().square().mean().sqrt().item() for i in (0, 1))
    noise, signal = (torch.stack([each[i] for each in errors]).double().mean() for i in (2, 3))
    decibels = round(10 * torch.log10(signal / noise).item(), 1) if noise > 0 else None
    return {"predicted_iou": iou, "stability": stable, "logits_db": decibels}


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = model_parser("noise", __doc__)
    parser.add_argument("--points_per_side", type=int, default=8, help="default %(default)s")
    args = parse_model(parser, arguments)
    device = torch.device(args.device)
    made = {path.stem: path for path in make_crops(listed_photographs())}
    result = {
        **model_result("noise", args, arguments),
        "crops": list(_CROPS),
        "points": args.points_per_side**2,
        "rows": measure(
            get_model(args.weights, args.checkpoint_dir, args.model_type, device),
            [made[name] for name in _CROPS],
            device,
            args.points_per_side,
        ),
    }
    write(result, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
