"""How far a mode's scores are from float32's, and which decisions turn by it.

    python -m bench.decisions                                   fast and, on a GPU, furious; demo model, photographs
    python -m bench.decisions --modes fast --crops whole middle

A mask is kept if its predicted IoU and its stability reach their thresholds. What a mode adds to them, times how many
masks are near the threshold, is how many decisions turn. The modes run uncompiled, with the kernels they have compiled;
nothing is timed. Expected is what mode ao finds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from bench.harness.arguments import model_parser, model_result, parse_model
from bench.harness.photographs import FEW, crops_named, read_crops
from bench.harness.systems import modes_on
from bench.harness.weights import get_model
from bench.numerics import points_on
from bench.report.pages import write
from sam2_amg.agreement.masks import ImageAgreement, Masks, compare_images, parse_masks, summarise
from sam2_amg.answers.rle import rles_by_name
from sam2_amg.compilation.subgraphs import Subgraphs, SubgraphShapes
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.modes.build import build_generator, subgraphs_of
from sam2_amg.network.decoder import Kept, predict
from sam2_amg.network.precision import float32_convolutions
from sam2_amg.pipeline.generator import MaskGenerator

_BELOW = 0.1  # masks whose predicted IoU is so far below the threshold are looked at, too


@dataclass(frozen=True)
class Found:
    """What a generator makes of an image: its masks, and the scores of all, also of those it drops."""

    masks: Masks
    predicted_iou: Tensor  # [P, 3]
    stability: Tensor  # [P, 3], NaN where predicted IoU is far below its threshold


def uncompiled(model: SAM2Base, mode: Mode, shapes: SubgraphShapes, device: torch.device) -> Subgraphs:
    """The subgraphs of a mode as they are before they are compiled."""
    return subgraphs_of(model, mode, device, shapes.batch_size)


def generator_of(model: SAM2Base, mode: Mode, config: GeneratorConfig, device: torch.device) -> MaskGenerator:
    """A mode, uncompiled; it may modify the model."""
    generator = build_generator(model, mode, config, device, uncompiled)
    assert isinstance(generator, MaskGenerator)
    return generator


@torch.inference_mode()
@float32_convolutions()
def find(generator: MaskGenerator, image: NDArray[np.uint8]) -> Found:
    """Segments uint8 RGB [H, W, 3]."""
    config, stages = generator.config, generator.stages
    masks = parse_masks(orjson.dumps(rles_by_name(generator.generate(image))))
    points = points_on(image, config.points_per_side, generator.image_size).to(generator.device)
    prepared = stages.decoder.prepare(stages.encode(stages.preprocess(image)))
    scores = []
    for some in points.split(config.points_per_batch or len(points)):
        iou, kept, logits = predict(
            stages.decoder,
            prepared,
            some,
            lambda iou: Kept(*(iou > config.pred_iou_thresh - _BELOW).nonzero(as_tuple=True)),
        )
        size = image.shape[0], image.shape[1]
        stats = stages.mask_stats(logits, size, config.mask_threshold, config.stability_score_offset)
        stability = torch.full_like(iou, torch.nan)
        stability[kept.point, kept.mask] = stats.stability.to(iou.dtype)
        scores.append(torch.stack([iou, stability]))
    iou, stability = torch.cat(scores, dim=1)
    return Found(masks, iou, stability)


def find_all(name: str, generator: MaskGenerator, crops: Sequence[Path]) -> list[Found]:
    """Segments every crop; says for which generator."""
    print(f"{name}: {len(crops)} crops", file=sys.stderr)
    return [find(generator, image) for image in read_crops(crops)]


def figures(pairs: Sequence[tuple[Found, Found]], config: GeneratorConfig) -> dict[str, Any]:
    """What a mode found on some images, beside what was expected.

    Errors are means of absolute differences: of predicted IoU where that is near or above the threshold, of stability
    where predicted IoU is above it on both sides. A mask without a pixel has no stability, and is never kept.
    """
    iou_errors, stability_errors, turned = [], [], [0, 0]
    agreements: list[ImageAgreement] = []
    for expected, found in pairs:
        agreements.append(compare_images(expected.masks, found.masks))
        near = expected.predicted_iou > config.pred_iou_thresh - _BELOW
        iou_errors.append((found.predicted_iou - expected.predicted_iou)[near].abs().double())
        above = [each.predicted_iou > config.pred_iou_thresh for each in (expected, found)]
        both = above[0] & above[1]
        difference = (found.stability - expected.stability)[both].abs().double()
        stability_errors.append(difference[~difference.isnan()])  # of masks without a pixel
        stable = [each.stability >= config.stability_score_thresh for each in (expected, found)]
        turned[0] += int((above[0] ^ above[1]).sum())
        turned[1] += int(((stable[0] ^ stable[1]) & both).sum())
    summary = summarise(agreements)
    return {
        "images": len(pairs),
        "count_mismatches": summary["count_mismatches"],
        "matched_miou": summary["matched_miou"],
        "predicted_iou": {"error": _mean(iou_errors), "masks": sum(map(len, iou_errors)), "turned": turned[0]},
        "stability": {"error": _mean(stability_errors), "masks": sum(map(len, stability_errors)), "turned": turned[1]},
    }


def _mean(errors: Sequence[Tensor]) -> float | None:
    every = torch.cat([each.cpu() for each in errors])
    return every.mean().item() if len(every) else None


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = model_parser("decisions", __doc__)
    parser.add_argument("--modes", nargs="+", choices=("fast", "furious"), help="default: all that the device runs")
    parser.add_argument("--crops", nargs="+", default=FEW, metavar="NAME", help="of bench/photographs.toml")
    parser.add_argument("--points_per_side", type=int, default=32, help="default %(default)s")
    args = parse_model(parser, arguments)
    device = torch.device(args.device)
    made = crops_named(args.crops)
    config = GeneratorConfig(points_per_side=args.points_per_side)
    there = [mode for mode in modes_on(device) if mode in (Mode.FAST, Mode.FURIOUS)]
    modes = [Mode(name) for name in args.modes] if args.modes else there

    def every(mode: Mode) -> list[Found]:
        model = get_model(args.weights, args.checkpoint_dir, args.model_type, device)
        return find_all(mode.value, generator_of(model, mode, config, device), made)

    expected = every(Mode.AO)
    rows = [{"mode": mode.value, **figures(list(zip(expected, every(mode), strict=True)), config)} for mode in modes]
    result = {
        **model_result("decisions", args, arguments),
        "crops": list(args.crops),
        "rows": rows,
    }
    write(result, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
