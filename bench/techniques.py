"""What each technique of furious buys: generate() with it and, turn by turn, with what it took the place of.

    python -m bench.techniques --model_type large --weights seeded      masks are planted, as with `bench --planted`
    python -m bench.techniques checkpoints large

One thing is switched at a time, in one process and on one photograph.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from tqdm import tqdm

from bench import RESULTS
from bench.harness.machine import machine
from bench.harness.planted import PlantedDecoder, plant
from bench.harness.weights import add_model, choose_model, get_model
from bench.report.pages import write
from sam2_amg.compilation.static_decoder import StaticDecoder, StaticEncoder
from sam2_amg.compilation.subgraphs import Subgraphs
from sam2_amg.config import GeneratorConfig, Limits, Mode
from sam2_amg.decoding.decode import decode_image
from sam2_amg.demo import PHOTOGRAPHS
from sam2_amg.modes.build import build_generator, compile_mode, fill_in, static_shapes, subgraphs_of
from sam2_amg.network.decoder import Kept
from sam2_amg.network.fused_upscaling import FusedUpscaling
from sam2_amg.pipeline.generator import MaskGenerator, Stages
from sam2_amg.pipeline.preprocess import Preprocess
from sam2_amg.postprocess import mask_stats, rle

_FEW = 128  # points at a time
_MEMORY = 1 << 30  # bytes that plain torch may have for upsampled masks
_UPSCALED = 64  # points that plain torch upscales at a time


@dataclass(frozen=True)
class Parts:
    """The network in every form that is compared: subgraphs, and how many points they take at a time."""

    furious: Subgraphs
    points: int
    few: Subgraphs  # furious' for `few_points`
    few_points: int
    eager: Subgraphs  # furious' before they are compiled
    fast: Subgraphs
    fast_points: int
    upscaling: FusedUpscaling  # furious'
    fast_upscaling: FusedUpscaling


@dataclass(frozen=True)
class Form:
    """A generator's stages without one technique, and what does its work."""

    technique: str
    instead: str
    stages: Stages


def upscale_plainly(
    upscaling: FusedUpscaling, keys: Tensor, hyper: Tensor, children: Tensor, grandchildren: Tensor, kept: Kept
) -> Tensor:
    """What `upscaling.masks` answers, by plain torch in float16: three masks of each point that has one."""
    points, row = kept.point.unique(return_inverse=True)
    with torch.autocast(keys.device.type, torch.float16):
        logits = [upscaling(keys[some], hyper[some], children, grandchildren) for some in points.split(_UPSCALED)]
    return torch.cat(logits)[row, kept.mask].float()


def forms(stages: Stages, parts: Parts, image_size: int, device: torch.device) -> list[Form]:
    """Every technique switched off alone; `stages` are furious' own."""
    upscale, plainly = parts.upscaling.masks, partial(upscale_plainly, parts.upscaling)
    dtype = parts.upscaling.dtype
    fp16x3_decoder = StaticDecoder(parts.fast, parts.fast_points, parts.fast_upscaling.masks)
    eager = {"encode": StaticEncoder(parts.eager), "decoder": StaticDecoder(parts.eager, parts.points, upscale, dtype)}
    fp16x3, upsampled = "by fp16x3, as in fast", "from upsampled masks"
    switched: list[tuple[str, str, dict[str, Any]]] = [
        ("encoder by products of float16", fp16x3, {"encode": StaticEncoder(parts.fast)}),
        ("decoder by products of float16", fp16x3, {"decoder": fp16x3_decoder}),
        (
            f"{parts.points} points at a time",
            f"{parts.few_points} at a time",
            {"decoder": StaticDecoder(parts.few, parts.few_points, upscale, dtype)},
        ),
        (
            "masks of kept points in one kernel",
            "plain torch, float16",
            {"decoder": StaticDecoder(parts.furious, parts.points, plainly)},
        ),
        ("compiled, in CUDA graphs", "call by call", eager),
        (
            "counts and boxes from low-res logits",
            upsampled,
            {"mask_stats": partial(mask_stats.mask_stats, memory=_MEMORY)},
        ),
        (
            "run lengths from low-res logits",
            upsampled,
            {"run_boundaries": partial(rle.run_boundaries, memory=_MEMORY)},
        ),
        ("resizing on the device", "on the host", {"preprocess": Preprocess(image_size, device)}),
    ]
    return [Form(technique, instead, replace(stages, **stage)) for technique, instead, stage in switched]


def build_parts(model: SAM2Base, config: GeneratorConfig, device: torch.device) -> tuple[MaskGenerator, Parts]:
    """Furious' generator and the parts around it; `model` is left as it is."""

    def compiled(mode: Mode, points_per_batch: int | None) -> tuple[SAM2Base, Subgraphs, int]:
        own = deepcopy(model)
        shapes = static_shapes(mode, model.image_size, replace(config, points_per_batch=points_per_batch), device)
        return own, compile_mode(own, mode, shapes, device, partial(print, flush=True)), shapes.points

    own, furious, points = compiled(Mode.FURIOUS, None)
    _, few, few_points = compiled(Mode.FURIOUS, _FEW)
    fast_model, fast, fast_points = compiled(Mode.FAST, None)
    parts = Parts(
        furious,
        points,
        few,
        few_points,
        subgraphs_of(deepcopy(model), Mode.FURIOUS, device, 1),
        fast,
        fast_points,
        FusedUpscaling(own.sam_mask_decoder, fp16x3=False),
        FusedUpscaling(fast_model.sam_mask_decoder, fp16x3=True),
    )
    generator = build_generator(own, Mode.FURIOUS, config, device, lambda *_: furious)
    assert isinstance(generator, MaskGenerator)
    return generator, parts


def time_forms(generators: dict[str, MaskGenerator], image: NDArray[Any], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of generate() of each, all of them in every round, after two rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in generators}
    for _ in tqdm(range(repeats + 2), desc="rounds", disable=None):
        for name, generator in generators.items():
            started = time.perf_counter()
            generator.generate(image)
            times[name].append((time.perf_counter() - started) * 1e3)
    return {name: values[2:] for name, values in times.items()}


@torch.inference_mode()
def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for furious itself, and one for each technique switched off."""
    device = torch.device("cuda")
    model = get_model(args.weights, args.checkpoint_dir, args.model_type, device)
    config = fill_in(GeneratorConfig(points_per_side=args.points_per_side), Mode.FURIOUS, device)
    generator, parts = build_parts(model, config, device)
    planted = plant(config.points_per_side, model.image_size // 4, device) if args.weights == "seeded" else None
    every = [Form("furious", "", generator.stages), *forms(generator.stages, parts, model.image_size, device)]

    def generator_of(stages: Stages) -> MaskGenerator:
        stages = stages if planted is None else replace(stages, decoder=PlantedDecoder(stages.decoder, planted))
        return MaskGenerator(stages, config, model.image_size, device)

    image = decode_image(args.image.read_bytes(), Limits())
    times = time_forms({form.technique: generator_of(form.stages) for form in every}, image, args.repeats)
    return [
        {
            "technique": form.technique,
            "instead": form.instead,
            "median_ms": round(statistics.median(times[form.technique]), 2),
            "ms": [round(value, 2) for value in times[form.technique]],
        }
        for form in every
    ]


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.techniques", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    parser.add_argument("--image", type=Path, default=PHOTOGRAPHS / "truck.jpg")
    parser.add_argument("--points_per_side", type=int, default=GeneratorConfig.points_per_side)
    parser.add_argument("--repeats", type=int, default=15, help="rounds that count (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    args = parser.parse_args(arguments)
    choose_model(parser, args)
    if not torch.cuda.is_available():
        parser.error("there is no CUDA GPU here, and furious is for those")
    result = {
        "what": "techniques" + "-seeded" * (args.weights == "seeded"),
        "model": args.model_type,
        "command": shlex.join(["python", "-m", "bench.techniques", *arguments]),
        "machine": machine("cuda"),
        "image": args.image.name,
        "weights": args.weights,
        "rows": measure(args),
    }
    write(result, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
