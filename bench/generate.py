"""Baseline and ao side by side in one process: how long generate() takes, and whether it finds the same.

python -m bench.generate                      # the demo model on the bundled photographs
python -m bench.generate checkpoints large    # another model
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from sam2_amg.checkpoints import DEMO_DIR, MODEL_TYPES, default_thresholds, find_checkpoint, load_model
from sam2_amg.comparison import compare_images, parse_masks
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.http import rles_by_name
from sam2_amg.records import Generator, MaskRecord
from sam2_amg.stages import build_generator

RESULTS = Path(__file__).resolve().parent.parent / "results"


def timed(generator: Generator, image: NDArray[np.uint8]) -> tuple[float, list[MaskRecord]]:
    """Milliseconds that one generate() takes, RLEs in host memory at its end, and what it found."""
    started = time.perf_counter()
    records = generator.generate(image)
    return (time.perf_counter() - started) * 1e3, records


def agreement(expected: list[MaskRecord], found: list[MaskRecord]) -> dict[str, Any]:
    """How far two answers agree: counts, and the least and mean IoU of masks matched one to one."""
    sides = (parse_masks(orjson.dumps(rles_by_name(records))) for records in (expected, found))
    image = compare_images(*sides)
    return {
        "masks": [image.reference_count, image.candidate_count],
        "matched_miou": image.score,
        "least_iou": float(image.matched.min()) if len(image.matched) else None,
    }


def measure_image(generators: dict[Mode, Generator], path: Path, repeats: int) -> dict[str, Any]:
    """Runs the modes in turn, `repeats` times, so that whatever else the machine does hits all alike."""
    image = np.array(Image.open(path).convert("RGB"))
    times: dict[Mode, list[float]] = {mode: [] for mode in generators}
    found: dict[Mode, list[MaskRecord]] = {}
    for _ in range(repeats):
        for mode, generator in generators.items():
            milliseconds, found[mode] = timed(generator, image)
            times[mode].append(milliseconds)
    median = {mode: statistics.median(values) for mode, values in times.items()}
    return {
        "image": path.name,
        "height_width": list(image.shape[:2]),
        "ms": {mode.value: [round(value, 1) for value in values] for mode, values in times.items()},
        "median_ms": {mode.value: round(value, 1) for mode, value in median.items()},
        "baseline_over_ao": round(median[Mode.BASELINE] / median[Mode.AO], 2),
        **agreement(found[Mode.BASELINE], found[Mode.AO]),
    }


def to_markdown(result: dict[str, Any]) -> str:
    """The result as a table."""
    lines = [
        f"generate(), {result['model']}, {result['points']} points, {result['machine']}, torch {result['torch']}, "
        f"medians of {result['repeats']} interleaved runs. Made by `{result['command']}`.",
        "",
        "| photograph | baseline, ms | ao, ms | baseline / ao | masks, baseline and ao | least IoU of a mask |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["images"]:
        median, masks = row["median_ms"], row["masks"]
        height, width = row["height_width"]
        lines.append(
            f"| {row['image']} {height} x {width} | {median['baseline']:.0f} | {median['ao']:.0f} "
            f"| {row['baseline_over_ao']:.1f} | {masks[0]}, {masks[1]} | {row['least_iou']:.6f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint_dir", nargs="?", type=Path, default=DEMO_DIR)
    parser.add_argument("model_type", nargs="?", choices=MODEL_TYPES, default="demo")
    parser.add_argument("--images", nargs="+", type=Path, default=sorted((DEMO_DIR / "photographs").glob("*.jpg")))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    kind, device = MODEL_TYPES[args.model_type], torch.device(args.device)
    model = load_model(find_checkpoint(args.checkpoint_dir, kind), kind, device)
    config = GeneratorConfig(**default_thresholds(kind))
    generators = {mode: build_generator(model, mode, config, device) for mode in Mode}
    warm_up = np.zeros((64, 64, 3), np.uint8)
    for generator in generators.values():
        generator.generate(warm_up)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU with {os.cpu_count()} cores"
    result = {
        "command": f"python -m bench.generate {args.checkpoint_dir.name} {kind.name} --repeats {args.repeats}",
        "model": kind.name,
        "points": config.points_per_side**2,
        "machine": f"{name} ({platform.machine()}, {torch.get_num_threads()} threads)",
        "torch": torch.__version__,
        "repeats": args.repeats,
        "images": [measure_image(generators, path, args.repeats) for path in tqdm(args.images, unit="image")],
    }
    RESULTS.mkdir(exist_ok=True)
    label = name.replace(" ", "-").lower() if device.type == "cuda" else "cpu"
    stem = f"generate-{kind.name}-{label}-torch{torch.__version__.split('+')[0]}"
    (RESULTS / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / f"{stem}.md").write_text(to_markdown(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
