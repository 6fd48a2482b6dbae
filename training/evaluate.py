"""Measures the demo model: on drawn scenes that training never saw, and on the bundled photographs.

    python -m training.evaluate

writes `results/demo-evaluation.json`, the same as a table in `results/demo-evaluation.md`, and an overlay for each
photograph, `results/demo-dog.png` and so on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from bench import DOG_MASKS, RESULTS
from sam2_amg.answers.overlay import overlay
from sam2_amg.answers.png import encode_png
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.demo import DEMO_DIR, PHOTOGRAPHS
from sam2_amg.modes.build import build_generator
from sam2_amg.network.checkpoints import load_model
from sam2_amg.network.model_types import MODEL_TYPES
from sam2_amg.pipeline.base import Generator, MaskRecord
from training.scenes.scenery import draw_ahead
from training.scenes.scenes import Scenes
from training.unseen import BORDER

SMALLEST_SHARE = 0.005  # of the image, of regions that count
_NAMES = ("dog", "truck", "groceries")
_OVERLAY_SIDE = 900
_LOGITS = 128  # side of what a mask is made from


@dataclass(frozen=True)
class SceneScore:
    """One scene: for each region its best mask, for each mask its best region or union, and its predicted IoU."""

    regions: NDArray[np.float64]  # best IoU of each visible region
    masks: NDArray[np.float64]  # best IoU of each mask
    predicted: NDArray[np.float64]


def _runs(masks: NDArray[np.bool_]) -> list[Any]:
    """[n, H, W] in pycocotools' form."""
    return coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))) if len(masks) else []


def _records_to_runs(records: Sequence[MaskRecord]) -> list[Any]:
    if not records:
        return []
    height, width = records[0]["segmentation"]["size"]
    return coco_mask.frPyObjects([dict(record["segmentation"]) for record in records], height, width)


def _best(of: list[Any], among: list[Any]) -> NDArray[np.float64]:
    """The highest IoU of each of `of` with any of `among`."""
    if not of or not among:
        return np.zeros(len(of))
    return np.asarray(coco_mask.iou(of, among, [0] * len(among))).max(1)


def score_scene(scene: Scenes, records: Sequence[MaskRecord]) -> SceneScore:
    """Compares what the generator returned with what was drawn."""
    levels = scene.levels[0].numpy()  # [6, S, S]: islands, which are what is to be found, then whole regions
    whole = [[level == label for label in np.unique(level)] for level in levels]
    large = [mask for mask in whole[0] if mask.mean() > SMALLEST_SHARE]
    returned = _records_to_runs(records)
    unions = _runs(np.stack([mask for masks in whole for mask in masks]))
    predicted = np.array([record["predicted_iou"] for record in records])
    return SceneScore(_best(_runs(np.stack(large)), returned), _best(returned, unions), predicted)


def summarise_scenes(scores: Sequence[SceneScore]) -> dict[str, float]:
    """The figures over all scenes: recall of regions, precision of masks, error of predicted IoU."""
    regions = np.concatenate([score.regions for score in scores])
    masks = np.concatenate([score.masks for score in scores])
    predicted = np.concatenate([score.predicted for score in scores])
    return {
        "scenes": len(scores),
        "regions": len(regions),
        "masks": len(masks),
        "recall_0.5": float((regions >= 0.5).mean()),
        "recall_0.75": float((regions >= 0.75).mean()),
        "recall_0.9": float((regions >= 0.9).mean()),
        "precision_0.75": float((masks >= 0.75).mean()) if len(masks) else 0.0,
        "iou_error": float(np.abs(predicted - masks).mean()) if len(masks) else 1.0,
    }


def measure_scenes(generator: Generator, scenes: Iterable[Scenes]) -> dict[str, float]:
    """Runs the generator on drawn scenes."""
    scores = []
    for scene in scenes:
        image = (scene.images[0].permute(1, 2, 0) * 255).round().byte().numpy()  # [S, S, 3]
        scores.append(score_scene(scene, generator.generate(image)))
        if len(scores) % 20 == 0:
            print(len(scores), "scenes:", summarise_scenes(scores), flush=True)
    return summarise_scenes(scores)


def recall_of_reference(records: Sequence[MaskRecord]) -> dict[str, float]:
    """How many of SAM 2.1 large's masks of dog.jpg the records match."""
    masks = json.loads(DOG_MASKS.read_text()).values()
    height, width = next(iter(masks))["size"]
    best = _best(coco_mask.frPyObjects(list(masks), height, width), _records_to_runs(records))
    return {
        "reference_masks": len(best),
        "recall_0.5": float((best >= 0.5).mean()),
        "recall_0.75": float((best >= 0.75).mean()),
    }


def share_on_borders(records: Sequence[MaskRecord]) -> float:
    """How much of all masks' outlines lies on borders of the image embedding's cells: a quarter would by chance.

    Where nothing holds an outline it falls there, in steps of 16 of the model's pixels. 0 without an outline.
    """
    borders, everywhere = 0, 0
    for record in records:
        mask = torch.from_numpy(coco_mask.decode(_records_to_runs([record])[0])).float()  # [H, W]
        inside = F.adaptive_avg_pool2d(mask[None], _LOGITS)[0] > 0.5  # [128, 128]
        for turned in (inside, inside.T):
            outline = turned[1:] != turned[:-1]  # [127, 128]
            borders += int(outline[BORDER - 1 :: BORDER].sum())
            everywhere += int(outline.sum())
    return borders / everywhere if everywhere else 0.0


def measure_photographs(generator: Generator, output: Path) -> dict[str, dict[str, float]]:
    """Segments the bundled photographs and writes their overlays."""
    figures: dict[str, dict[str, float]] = {}
    for name in _NAMES:
        with Image.open(PHOTOGRAPHS / f"{name}.jpg") as file:
            image = np.array(file.convert("RGB"))
        records = generator.generate(image)
        figures[name] = {"masks": len(records), "on_borders": share_on_borders(records)}
        if name == "dog":
            figures[name] |= recall_of_reference(records)
        drawn = Image.fromarray(overlay(image, records))
        drawn.thumbnail((_OVERLAY_SIDE, _OVERLAY_SIDE), Image.Resampling.LANCZOS)
        (output / f"demo-{name}.png").write_bytes(encode_png(np.asarray(drawn)))
    return figures


def write_table(report: dict[str, Any], path: Path) -> None:
    """The report as Markdown."""
    scenes, photographs = report["scenes"], report["photographs"]
    rows = [
        ("drawn scenes", f"{scenes['scenes']}", ""),
        ("visible regions above 0.5 % of the image", f"{scenes['regions']}", ""),
        ("matched at IoU 0.5", f"{scenes['recall_0.5']:.1%}", ""),
        ("matched at IoU 0.75", f"{scenes['recall_0.75']:.1%}", "80 %"),
        ("matched at IoU 0.9", f"{scenes['recall_0.9']:.1%}", "60 %"),
        ("masks returned", f"{scenes['masks']}", ""),
        ("that match a region, or a thing with its parts, at 0.75", f"{scenes['precision_0.75']:.1%}", "75 %"),
        ("predicted IoU minus real IoU, mean absolute", f"{scenes['iou_error']:.3f}", "at most 0.07"),
    ]
    rows += [(f"masks in {name}.jpg", f"{photographs[name]['masks']}", "20") for name in _NAMES]
    dog = photographs["dog"]
    rows += [
        (
            f"SAM 2.1 large's {dog['reference_masks']} masks of dog.jpg, matched at IoU {at}",
            f"{dog[f'recall_{at}']:.1%}",
            "",
        )
        for at in ("0.5", "0.75")
    ]
    rows += [
        (
            f"of the outlines in {name}.jpg, on borders of cells of 16 pixels",
            f"{photographs[name]['on_borders']:.1%}",
            "",
        )
        for name in _NAMES
    ]
    lines = ["# The demo model, measured", "", "| | measured | target |", "| --- | --- | --- |"]
    lines += [f"| {name} | {value} | {target} |" for name, value, target in rows]
    generator = report["generator"]
    lines += [
        "",
        f"`python -m training.evaluate --scenes {scenes['scenes']}`: "
        f"{report['device']}, torch {report['torch']}, Python {report['python']}, mode ao, "
        f"{generator['points_per_side']} x {generator['points_per_side']} points, predicted IoU above "
        f"{generator['pred_iou_thresh']}, stability from {generator['stability_score_thresh']}.",
    ]
    path.write_text("\n".join(lines) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the demo model.")
    parser.add_argument("--checkpoint", type=Path, default=DEMO_DIR / MODEL_TYPES["demo"].file)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw scenes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    kind = MODEL_TYPES["demo"]
    generator = build_generator(load_model(args.checkpoint, kind, device), Mode.AO, GeneratorConfig(), device)
    args.output.mkdir(parents=True, exist_ok=True)
    report = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "generator": asdict(generator.config),
        "photographs": measure_photographs(generator, args.output),
        "scenes": measure_scenes(generator, draw_ahead(range(args.scenes), args.workers)),
    }
    (args.output / "demo-evaluation.json").write_text(json.dumps(report, indent=1) + "\n")
    write_table(report, args.output / "demo-evaluation.md")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
