"""The bundled model: that it ships as promised, and segments scenes that it never saw."""

import numpy as np
import pytest
import torch
from helpers import CPU, SHIPPED
from sam2.utils.amg import mask_to_rle_pytorch

from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.modes.build import build_generator
from training import evaluate, mix
from training.scenes.scenery import draw_scene


def test_shipped_file_is_small_and_half_precision():
    assert SHIPPED.stat().st_size <= 24e6
    state = torch.load(SHIPPED, map_location="cpu", weights_only=True)["model"]
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert all(bool(torch.isfinite(value).all()) for value in state.values())


FLOORS = {  # a little under what so many points a side and so many scenes give
    (8, 2): {"recall_0.5": 0.63, "recall_0.75": 0.57, "recall_0.9": 0.54, "precision_0.75": 0.93, "iou_error": 0.045},
    (12, 8): {"recall_0.5": 0.81, "recall_0.75": 0.74, "recall_0.9": 0.62, "precision_0.75": 0.93, "iou_error": 0.055},
}


@pytest.mark.xdist_group("scenes")
@pytest.mark.parametrize(("points", "scenes"), [(8, 2), pytest.param(12, 8, marks=pytest.mark.slow)])
def test_segments_scenes_it_never_saw(points, scenes, demo_model, first_scenes):
    generator = build_generator(demo_model, Mode.AO, GeneratorConfig(points_per_side=points), CPU)
    others = map(draw_scene, range(len(first_scenes), scenes))
    measured = evaluate.measure_scenes(generator, [*first_scenes[:scenes], *others])
    assert measured["scenes"] == scenes
    floors = FLOORS[points, scenes]
    assert measured["recall_0.5"] >= floors["recall_0.5"]
    assert measured["recall_0.75"] >= floors["recall_0.75"]
    assert measured["recall_0.9"] >= floors["recall_0.9"]
    assert measured["precision_0.75"] >= floors["precision_0.75"]
    assert measured["iou_error"] <= floors["iou_error"]


def test_outlines_on_borders_of_cells_are_told_from_others():
    def record(first, last):  # a square of four cells, one of 16 pixels, in a picture of 512
        mask = np.zeros((512, 512), np.uint8)
        mask[first:last, first:last] = 1
        return {"segmentation": mask_to_rle_pytorch(torch.from_numpy(mask)[None].bool())[0]}

    on, beside = record(64, 128), record(68, 132)
    assert evaluate.share_on_borders([on]) == 1
    assert evaluate.share_on_borders([beside]) == 0
    assert evaluate.share_on_borders([on, beside, beside]) == pytest.approx(1 / 3)
    assert evaluate.share_on_borders([]) == 0


def test_predicted_iou_error_counts_the_right_pairs():
    score = evaluate.SceneScore(np.array([1.0, 0.8]), np.array([0.7, 0.9]), np.array([0.8, 0.8]))
    summary = evaluate.summarise_scenes([score])
    assert summary["recall_0.75"] == 1.0
    assert summary["recall_0.9"] == 0.5
    assert summary["precision_0.75"] == 0.5
    assert summary["iou_error"] == pytest.approx(0.1)


def test_mixes_weights_by_their_share(tmp_path):
    state = torch.load(SHIPPED, weights_only=True)
    other = {name: value + 1 if value.is_floating_point() else value for name, value in state["model"].items()}
    torch.save({"model": other}, tmp_path / "other.pt")
    mix.main([str(SHIPPED), str(tmp_path / "other.pt"), "--share", "0.25", "--output", str(tmp_path / "mixed.pt")])
    mixed = torch.load(tmp_path / "mixed.pt", weights_only=True)["model"]
    assert mixed.keys() == state["model"].keys()
    for name in ("sam_mask_decoder.iou_token.weight", "image_encoder.trunk.patch_embed.proj.bias"):
        torch.testing.assert_close(mixed[name].float() - 0.25, state["model"][name].float(), rtol=0, atol=2e-3)
    with pytest.raises(SystemExit):
        mix.main([str(SHIPPED), str(SHIPPED), "--share", "2", "--output", str(tmp_path / "never.pt")])
    assert not (tmp_path / "never.pt").exists()
