"""`from sam2_amg import load`: what it returns, takes and refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, assert_all_but_equal, drawn_image, photograph
from PIL import ExifTags, Image
from pycocotools import mask as coco_mask
from sam2.modeling.sam2_base import SAM2Base

import sam2_amg
from sam2_amg import Segmenter, StartupError, load
from sam2_amg.config import GeneratorConfig, Limits, Mode
from sam2_amg.decoding.decode import decode_image, pixels_of
from sam2_amg.demo import DEMO_DIR, PHOTOGRAPHS
from sam2_amg.modes.build import build_generator
from sam2_amg.network.model_types import MODEL_TYPES

FEW = {"points_per_side": 4, "pred_iou_thresh": 0.6, "stability_score_thresh": 0.9}
DOG = PHOTOGRAPHS / "dog.jpg"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return load(device="cpu", **FEW)


def test_records_are_those_of_the_mode(segmenter: Segmenter, demo_model: SAM2Base, few_points: GeneratorConfig) -> None:
    config = replace(few_points, points_per_side=4)
    generator = build_generator(demo_model, Mode.AO, config, next(demo_model.parameters()).device)
    expected = generator.generate(photograph("dog"))
    assert len(expected) >= 4
    for image in (str(DOG), Image.open(DOG)):
        assert segmenter.generate(image) == expected
    segmentation = expected[0]["segmentation"]
    pixels = coco_mask.decode(coco_mask.frPyObjects(dict(segmentation), *segmentation["size"]))
    assert (pixels.shape, int(pixels.sum())) == ((534, 800), expected[0]["area"])
    assert segmenter.config.points_per_side == 4


def test_parameters_hold_for_a_call(segmenter: Segmenter) -> None:
    image = drawn_image(60, 90)
    usual = segmenter.generate(image)
    assert segmenter.generate(image, max_masks=np.int64(1)) == usual[:1]
    at = segmenter.generate(image, points=np.array([[50, 30.5]]), pred_iou_thresh=0, stability_score_thresh=0)
    assert {tuple(record["point_coords"][0]) for record in at} == {(50, 30.5)}
    assert len(segmenter.generate(image, points_per_side=2, disjoint=True)) < len(usual)
    assert segmenter.generate(image) == usual


def test_after_a_lack_of_memory_records_are_the_same(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    image = drawn_image(60, 90)
    usual = segmenter.generate(image)

    def generate(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(segmenter._generator, "generate", generate)
    found = segmenter.generate(image)
    assert_all_but_equal(found, usual)
    assert all(isinstance(record["segmentation"]["counts"], list) for record in found)


def test_images_of_pillow_become_what_their_files_become(tmp_path: Path) -> None:
    """Upright, and over white."""
    drawn = Image.fromarray(drawn_image(20, 30))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    drawn.save(tmp_path / "turned.jpg", exif=turned)
    half = drawn.convert("RGBA")
    half.putalpha(128)
    half.save(tmp_path / "half.png")
    drawn.convert("P").save(tmp_path / "palette.gif")
    drawn.convert("1").save(tmp_path / "bits.png")
    for path in tmp_path.iterdir():
        expected = decode_image(path.read_bytes(), Limits())
        with Image.open(path) as image:
            for _ in range(2):  # it is not closed
                assert np.array_equal(pixels_of(image, Limits()), expected), path.name
    assert decode_image((tmp_path / "turned.jpg").read_bytes(), Limits()).shape == (30, 20, 3)


@pytest.mark.parametrize(
    ("image", "parameters", "error", "message"),
    [
        (drawn_image(9, 9), {"points_per_sides": 4}, TypeError, "points_per_sides is no parameter here. Known"),
        (drawn_image(9, 9), {"format": "rle"}, TypeError, "format is no parameter here"),
        (drawn_image(9, 9), {"points_per_side": 0}, ValueError, "points_per_side must be a whole number from 1 to 256"),
        (drawn_image(9, 9), {"points": [[10, 3]]}, ValueError, "points must be within the image of 9 x 9 pixels"),
        (drawn_image(9, 9), {"stretch": "minmax"}, ValueError, "stretch reads the samples of a file"),
        (drawn_image(9, 9).astype(float), {}, ValueError, "the image is float64 [9, 9, 3]; give uint8 RGB [H, W, 3]"),
        (drawn_image(9, 9)[..., 0], {}, ValueError, "the image is uint8 [9, 9]; give uint8 RGB"),
        (np.zeros((0, 9, 3), np.uint8), {}, ValueError, "the image has 9 x 0 pixels; give 1 to 16384 pixels a side"),
        ([[1]], {}, TypeError, "the image is a list; give an array of NumPy, an image of Pillow or a path"),
        (Image.new("I;16", (9, 9)), {}, ValueError, "The image holds samples of Pillow's mode I;16"),
        ("nowhere.jpg", {}, FileNotFoundError, "nowhere.jpg"),
        (ROOT / "README.md", {}, ValueError, f"{ROOT / 'README.md'}: The file is not an image"),
    ],
)
def test_refusals(segmenter: Segmenter, image, parameters: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as refused:
        segmenter.generate(image, **parameters)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "slow"}, ValueError, "mode must be one of baseline, ao, fast, furious, not 'slow'"),
        ({"device": "tpu"}, ValueError, "device must be cpu, cuda or None, not 'tpu'"),
        pytest.param(
            {"device": "cuda"},
            StartupError,
            "torch finds no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
        ({"points": [[1, 1]]}, TypeError, "points is no parameter here"),
        ({"pred_iou_thresh": 2}, ValueError, "pred_iou_thresh must be a number from 0 to 1"),
        ({"mask_memory_mib": 0}, ValueError, "mask_memory_mib must be from 1 to"),
        ({"model_type": "huge"}, StartupError, "MODEL_TYPE 'huge' is unknown"),
        ({"checkpoint_dir": "best.pt"}, StartupError, "CHECKPOINT_DIR best.pt does not exist"),
    ],
    ids=str,
)
def test_refusals_of_load(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as refused:
        load(**arguments)
    assert message in str(refused.value)


def test_where_an_official_checkpoint_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("SAM2_AMG_CHECKPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StartupError, match=re.escape(str(tmp_path / "hub" / "checkpoints" / MODEL_TYPES["tiny"].file))):
        load("tiny", device="cpu")


def test_a_folder_of_ones_own_and_another_mode() -> None:
    segmenter = load("demo", DEMO_DIR, mode="baseline", device="cpu", mask_memory_mib=8, **FEW)
    assert len(segmenter.generate(drawn_image(60, 90), points_per_side=2)) >= 1


def test_what_the_package_shows() -> None:
    assert {"load", "Segmenter", "StartupError"} <= set(dir(sam2_amg))
    with pytest.raises(AttributeError, match="module 'sam2_amg' has no attribute 'lode'"):
        sam2_amg.lode  # noqa: B018
