"""The network with chosen roundings, as `bench.noise` has it."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from helpers import CPU, drawn_image, load_demo_model

from bench.harness.rounding import Rounding, rounded_by_furious, rounded_decoder, rounded_encoder
from bench.noise import Network, groups_of, stability
from bench.numerics import points_on, signal_to_noise
from sam2_amg.network.encoder import PlainEncoder
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.fp16_encoder import Fp16Encoder
from sam2_amg.network.fused_decoder import fused_decoder
from sam2_amg.pipeline.preprocess import Preprocess
from training.network import build

IMAGE = drawn_image(120, 160)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return Preprocess(512, CPU)(IMAGE)


@torch.inference_mode()
def test_without_places_nothing_is_rounded_and_each_place_is_noise(pixels: torch.Tensor) -> None:
    points = points_on(IMAGE, 2, 512)
    plain = FoldedDecoder(load_demo_model(CPU))
    prepared = plain.prepare(PlainEncoder(plain.model)(pixels))
    attended = plain.attend(prepared, points)
    network = Network(load_demo_model(CPU))
    iou, logits = network(pixels, points)
    assert (signal_to_noise(attended.predicted_iou, iou) or 200) > 100
    assert (signal_to_noise(plain.image_tokens.upscale(prepared, attended.state, attended.hyper), logits) or 200) > 90
    places = sorted(network.rounding.known)
    groups = groups_of(places)
    assert sorted(groups["encoder"] + groups["decoder"]) == places == sorted(groups["all"])
    alone = [
        place for label, group in groups.items() if ": " in label and label.startswith("decoder") for place in group
    ]
    assert set(alone) == set(groups["decoder"])
    for place in groups["decoder"]:
        _, noisy = network(pixels, points, [place])
        assert (signal_to_noise(logits, noisy) or 0) > 40, place


@torch.inference_mode()
def test_furious_places_of_the_encoder_are_as_loud_as_the_modes_own() -> None:
    torch.manual_seed(0)
    model = build(128).eval()
    pixels = torch.randn(1, 3, 128, 128)
    exact = PlainEncoder(deepcopy(model))(pixels)
    rounding = Rounding()
    encoder = rounded_encoder(deepcopy(model), rounding)
    encoder(pixels)
    rounding.places = frozenset(filter(rounded_by_furious, rounding.known))
    assert 0 < len(rounding.places) < len(rounding.known)
    found, modes = encoder(pixels), Fp16Encoder(model)(pixels)
    noises = [signal_to_noise(exact.image_embedding, each.image_embedding) for each in (found, modes)]
    assert noises[0] == pytest.approx(noises[1], abs=1)


@torch.inference_mode()
def test_furious_places_of_the_decoder_are_as_loud_as_the_modes_own(pixels: torch.Tensor) -> None:
    features = PlainEncoder(load_demo_model(CPU))(pixels)
    points = points_on(IMAGE, 2, 512)
    rounding = Rounding()
    rounded, modes = rounded_decoder(load_demo_model(CPU), rounding), fused_decoder(load_demo_model(CPU), fp16x3=False)
    exact = rounded.attend(rounded.prepare(features), points)
    rounding.places = frozenset(filter(rounded_by_furious, rounding.known))
    found = [decoder.attend(decoder.prepare(features), points) for decoder in (rounded, modes)]
    for values in ("predicted_iou", "hyper"):
        noises = [signal_to_noise(getattr(exact, values), getattr(each, values)) for each in found]
        assert noises[0] == pytest.approx(noises[1], abs=3), values


def test_stability_of_low_res_logits() -> None:
    logits = torch.tensor([[-2.0, -0.5, 0.0, 0.5, 2.0, 3.0]]).view(1, 1, 2, 3)
    assert stability(logits).item() == pytest.approx(2 / 5)
