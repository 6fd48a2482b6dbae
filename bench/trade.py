"""What exactness costs: furious with more or less of it, up to fast, by agreement and by milliseconds.

    python -m bench.trade                   agreement of the demo model on crops of photographs, time of large

Agreement is that of `bench.decisions`: uncompiled, with the kernels that compiled modes have, beside mode ao. Time is
that of generate() on truck.jpg, compiled, with seeded weights and planted masks; in each round every form has a turn.
All forms lie in the GPU's memory at once, large takes about 30 GB. On Ctrl-C, the forms that are done make the page,
and the exit status is 1.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from bench.decisions import figures, find_all, generator_of
from bench.harness.arguments import model_parser, model_result, parse_model
from bench.harness.interrupts import interruptible, stopping_early
from bench.harness.photographs import crops_named
from bench.harness.planted import PlantedDecoder, plant
from bench.harness.weights import get_model, seeded_model
from bench.report.pages import write
from bench.techniques import time_forms
from sam2_amg.compilation.jit import compile_subgraphs
from sam2_amg.compilation.subgraphs import Subgraphs, SubgraphShapes, plain_subgraphs
from sam2_amg.config import GeneratorConfig, Limits, Mode
from sam2_amg.decoding.decode import decode_image
from sam2_amg.demo import PHOTOGRAPHS
from sam2_amg.modes import fast, furious
from sam2_amg.modes.build import fill_in
from sam2_amg.modes.compiled import CompiledRecipe, compiled_stages, subgraphs_of
from sam2_amg.network.checkpoints import image_size_of
from sam2_amg.network.encoder import PlainEncoder
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.fp16_encoder import Fp16Encoder
from sam2_amg.network.fp16x3_encoder import use_fp16x3_encoder
from sam2_amg.network.fused_decoder import fused_decoder
from sam2_amg.network.model_types import MODEL_TYPES
from sam2_amg.network.precision import float32_convolutions
from sam2_amg.pipeline.generator import MaskGenerator

MakeEncoder = Callable[[SAM2Base], nn.Module]
MakeDecoder = Callable[[SAM2Base], FoldedDecoder]


@dataclass(frozen=True)
class Form:
    """A network between furious and fast."""

    name: str
    recipe: CompiledRecipe


def fast_encoder(model: SAM2Base) -> nn.Module:
    """Modifies `model`."""
    use_fp16x3_encoder(model)
    return PlainEncoder(model)


def recipe_of(own: CompiledRecipe, encoder: MakeEncoder, decoder: MakeDecoder) -> CompiledRecipe:
    """The recipe of a mode with another network; its decoder is made before its encoder changes the model."""

    def subgraphs(model: SAM2Base, _device: torch.device, batch_size: int = 1) -> Subgraphs:
        made = decoder(model)
        return plain_subgraphs(model, made, upscale=False, encoder=encoder(model), batch_size=batch_size)

    return replace(own, plain_subgraphs=subgraphs)


def forms() -> list[Form]:
    """From furious with float16 in all stages of the encoder to fast."""
    own, exact = furious.RECIPE, fast.RECIPE
    float16, fp16x3 = partial(fused_decoder, fp16x3=False), partial(fused_decoder, fp16x3=True)
    staged = {stages: recipe_of(own, partial(Fp16Encoder, exact_stages=stages), float16) for stages in (0, 4)}
    return [
        Form("furious", own),
        *(Form(f"furious, more exact in {stages} stages of the encoder", recipe) for stages, recipe in staged.items()),
        Form("furious with fast's encoder", recipe_of(own, fast_encoder, float16)),
        Form("furious with fast's decoder", recipe_of(exact, Fp16Encoder, fp16x3)),
        Form("fast", exact),
    ]


def build(
    form: Form,
    model: SAM2Base,
    config: GeneratorConfig,
    device: torch.device,
    finish: Callable[[Subgraphs, SubgraphShapes], Subgraphs],
) -> MaskGenerator:
    """A form's generator; `finish` gets its subgraphs uncompiled. Modifies the model."""
    config = fill_in(config, Mode.FURIOUS, device)
    with torch.inference_mode(), float32_convolutions():
        plain = partial(subgraphs_of, form.recipe, model, device, 1)
        stages = compiled_stages(form.recipe, model, config, device, lambda shapes: finish(plain(), shapes))
    return MaskGenerator(stages, config, model.image_size, device)


def measure_agreement(
    made: Sequence[Form], config: GeneratorConfig, device: torch.device, new_model: Callable[[], SAM2Base]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each form's name, and its figures of `bench.decisions`."""
    crops = crops_named()
    expected = find_all("ao", generator_of(new_model(), Mode.AO, config, device), crops)
    for form in made:
        generator = build(form, new_model(), config, device, lambda subgraphs, _: subgraphs)
        found = find_all(form.name, generator, crops)
        yield form.name, figures(list(zip(expected, found, strict=True)), config)


def measure_times(
    made: Sequence[Form], model_type: str, config: GeneratorConfig, device: torch.device, rounds: int
) -> dict[str, float]:
    """The median of generate() on truck.jpg in milliseconds, with seeded weights and planted masks, for each form."""
    generators = {}
    planted = plant(config.points_per_side, image_size_of(MODEL_TYPES[model_type]) // 4, device)
    finish = partial(compile_subgraphs, device=device, report=partial(print, flush=True))
    for form in made:
        generator = build(form, seeded_model(model_type, device), config, device, finish)
        generator.stages = replace(generator.stages, decoder=PlantedDecoder(generator.stages.decoder, planted))
        generators[form.name] = generator
    image = decode_image((PHOTOGRAPHS / "truck.jpg").read_bytes(), Limits())
    with torch.inference_mode():
        times = time_forms(generators, image, rounds)
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = model_parser("trade", __doc__)
    parser.add_argument("--timed", default="large", metavar="MODEL_TYPE", help="whose time it takes (default large)")
    parser.add_argument("--rounds", type=int, default=15, help="of generate(), that count (default %(default)s)")
    parser.add_argument("--points_per_side", type=int, default=32, help="default %(default)s")
    args = parse_model(parser, arguments)
    if args.device != "cuda":
        parser.error("furious needs a CUDA GPU, and there is none here")
    device, config, made = torch.device(args.device), GeneratorConfig(points_per_side=args.points_per_side), forms()
    rows: list[dict[str, Any]] = []
    with stopping_early():
        times = measure_times(made, args.timed, config, device, args.rounds)
        print("\n".join(f"{name}: {ms} ms" for name, ms in times.items()), file=sys.stderr)
        agreement = measure_agreement(
            made, config, device, lambda: get_model(args.weights, args.checkpoint_dir, args.model_type, device)
        )
        for name, found in agreement:
            rows.append({"form": name, "median_ms": times[name], **found})
    done = {row["form"] for row in rows}
    missing = {form.name: "interrupted" for form in made if form.name not in done}
    if not rows:
        print("nothing is written: no form has both time and agreement", file=sys.stderr)
        return 1
    write({**model_result("trade", args, arguments), "timed": args.timed, "rows": rows, "missing": missing}, args.out)
    return 1 if missing else 0


if __name__ == "__main__":
    with interruptible():
        sys.exit(main(sys.argv[1:]))
