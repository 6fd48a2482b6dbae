"""The bundled model: that it ships as promised, segments scenes that it never saw, and can be trained."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import photograph as bundled
from sam2.utils.amg import mask_to_rle_pytorch
from torch.distributed.launcher.api import LaunchConfig, launch_agent

from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.demo import DEMO_DIR
from sam2_amg.modes.build import build_generator
from sam2_amg.network.checkpoints import load_model
from sam2_amg.network.encoder import encode
from sam2_amg.network.model_types import MODEL_TYPES
from training import calibrate, evaluate, mix, train
from training.auxiliary import Auxiliary, Dense, outline_loss, pair_loss
from training.batch import Batch, Pictures
from training.batches import Batches
from training.consistency import Experience, Signs, read_signs
from training.losses import LossConfig, losses, mask_costs, real_ious, region_targets
from training.network import decode
from training.photographs.crops import Photographs, crop_photographs, kept_file
from training.pool import Pool
from training.ranks import Ranks
from training.run import TrainConfig, resume
from training.scenes.camera import photograph
from training.scenes.islands import with_islands
from training.scenes.light import cast_shadows, illuminate, reflect, relight, shine
from training.scenes.randomness import Draw
from training.scenes.scenery import draw_ahead, draw_scene
from training.scenes.scenes import SceneConfig, draw_plan, paint
from training.scenes.textures import draw_textures
from training.schedule import SCHEDULE, learning_rate
from training.unseen import stairs, unseen_outlines

SHIPPED = DEMO_DIR / MODEL_TYPES["demo"].file
CPU = torch.device("cpu")
# a little under what 8 scenes give, of a grid coarser than that of the evaluation
FLOORS = {"recall_0.5": 0.81, "recall_0.75": 0.74, "recall_0.9": 0.62, "precision_0.75": 0.93, "iou_error": 0.055}


@pytest.fixture(scope="module")
def model():
    return load_model(SHIPPED, MODEL_TYPES["demo"], CPU)


@pytest.fixture(scope="module")
def small_scenes():
    draw = Draw(7, CPU)
    textures = draw_textures(draw, 3, 64)
    return paint(draw_plan(draw, SceneConfig(), 2, 64, 3), textures)


def test_shipped_file_is_small_and_half_precision():
    assert SHIPPED.stat().st_size <= 24e6
    state = torch.load(SHIPPED, map_location="cpu", weights_only=True)["model"]
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert all(bool(torch.isfinite(value).all()) for value in state.values())


def test_decode_agrees_with_sam2(model):
    points = torch.tensor([[[100.0, 200.0], [300.5, 40.5]]])
    pixels = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = encode(model, pixels)
        logits, iou = decode(model, features, points)
        prompt = (points[0][:, None], torch.ones(2, 1, dtype=torch.int))
        sparse, dense = model.sam_prompt_encoder(points=prompt, boxes=None, masks=None)
        expected_logits, expected_iou, _, _ = model.sam_mask_decoder(
            image_embeddings=features.image_embedding,
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=True,
            high_res_features=list(features.high_res_features),
        )
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(iou, expected_iou, rtol=1e-4, atol=1e-4)


def test_segments_scenes_it_never_saw(model):
    config = GeneratorConfig(points_per_side=12)
    generator = build_generator(model, Mode.AO, config, CPU)
    measured = evaluate.measure_scenes(generator, map(draw_scene, range(8)))
    assert measured["recall_0.5"] >= FLOORS["recall_0.5"]
    assert measured["recall_0.75"] >= FLOORS["recall_0.75"]
    assert measured["recall_0.9"] >= FLOORS["recall_0.9"]
    assert measured["precision_0.75"] >= FLOORS["precision_0.75"]
    assert measured["iou_error"] <= FLOORS["iou_error"]


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


def test_scenes_of_a_seed_are_the_same_and_others_differ(small_scenes):
    draw = Draw(7, CPU)
    textures = draw_textures(draw, 3, 64)
    again = paint(draw_plan(draw, SceneConfig(), 2, 64, 3), textures)
    assert torch.equal(small_scenes.images, again.images)
    assert torch.equal(small_scenes.levels, again.levels)
    other = paint(draw_plan(Draw(8, CPU), SceneConfig(), 2, 64, 3), textures)
    assert not torch.equal(small_scenes.levels, other.levels)


def test_scenes_drawn_ahead_come_in_order_and_are_the_same():
    for seed, scene in zip((24, 25), draw_ahead((24, 25), 2), strict=True):
        again = draw_scene(seed)
        assert torch.equal(scene.images, again.images)
        assert torch.equal(scene.levels, again.levels)


def test_levels_nest(small_scenes):
    for levels in small_scenes.levels:
        for fine, coarse in ((levels[0], levels[1]), (levels[1], levels[2])):
            for label in fine.unique():
                assert len(coarse[fine == label].unique()) == 1


def test_camera_keeps_images_in_range(small_scenes):
    images = photograph(Draw(1, CPU), small_scenes.images)
    assert images.shape == small_scenes.images.shape
    assert images.min() >= 0
    assert images.max() <= 1


def test_region_targets_are_shares_of_cells():
    levels = torch.zeros(1, 3, 8, 8, dtype=torch.int64)
    levels[0, 0, :, 3:] = 1
    targets = region_targets(levels, torch.tensor([[7, 0]]), 2)  # [2 points, 3 levels, 2, 2]
    assert targets[0, 0].tolist() == [[0.25, 1.0], [0.25, 1.0]]
    assert targets[1, 0].tolist() == [[0.75, 0.0], [0.75, 0.0]]
    assert targets[:, 1:].eq(1).all()


def test_cost_is_least_for_the_mask_itself():
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    disc = torch.sigmoid(8 - torch.hypot(x - 15, y - 15))[None, None].repeat(1, 3, 1, 1)
    config = LossConfig()
    right = torch.logit(disc.clamp(1e-4, 1 - 1e-4)) * config.temperature
    shifted = right.roll(2, -1)
    costs = mask_costs(torch.cat([right[:, :1], shifted[:, :1]], 1), disc, config)  # [1, 2, 3]
    assert (costs[0, 0] < costs[0, 1]).all()


def test_outlines_count_where_nothing_is_to_be_seen():
    images = torch.zeros(1, 3, 64, 64)
    images[..., 32:] = 0.5
    at_the_edge = torch.full((1, 1, 16, 16), -99.0)
    at_the_edge[..., 8:] = 99
    beside_it = at_the_edge.roll(3, -1)  # has two outlines, for it comes in again on the other side
    assert unseen_outlines(at_the_edge, images, 1.0).length < 1e-3
    assert unseen_outlines(beside_it, images, 1.0).length.item() == pytest.approx(2)
    both = torch.cat([at_the_edge, beside_it])
    assert unseen_outlines(both, images, 1.0).length.item() == pytest.approx(1, abs=1e-3)
    two_pictures = torch.cat([images, images.mT])  # the other has its edge from left to right
    assert unseen_outlines(torch.cat([both, both.mT]), two_pictures, 1.0).length.item() == pytest.approx(1, abs=1e-3)
    assert unseen_outlines(torch.cat([both, both]), two_pictures, 1.0).length.item() == pytest.approx(1.25, abs=1e-3)


def test_stairs_cost_more_than_a_slope_and_most_at_the_borders_of_cells():
    def bends(mask):  # of shares along rows, [16], in a picture of one colour
        logits = torch.logit(mask, eps=1e-6).expand(1, 1, 16, 16)
        across, along = (
            unseen_outlines(x, torch.full((1, 3, 32, 32), 0.5), 1.0).bends.item() for x in (logits, logits.mT)
        )
        assert across == pytest.approx(along)
        return across

    at_border, beside_it, in_the_middle = ((torch.arange(16) >= place).float() for place in (8, 9, 10))
    assert bends(at_border) == pytest.approx(2 * 1.5, rel=1e-3)
    assert bends(beside_it) == pytest.approx(1.5 + 0.5, rel=1e-3)
    assert bends(in_the_middle) == pytest.approx(2 * 0.5, rel=1e-3)
    staircase = (torch.arange(16) // 4) / 4 + 0.1
    slope = torch.linspace(0.1, 0.85, 16)
    assert bends(slope) < 1e-3 < 2 < bends(staircase)


def test_stairs_are_outlines_on_borders_of_cells_that_nobody_sees():
    masks = torch.full((1, 1, 3, 16, 16), -1.0)
    masks[..., 0, :8, :8] = 1  # two sides on borders of cells, half a picture long each
    masks[..., 1, :9, :9] = 1  # beside them
    masks[..., 2, 4:12, 4:8] = 1
    images = torch.zeros(1, 3, 32, 32)
    assert stairs(masks, images)[0, 0].tolist() == pytest.approx([1, 0, 1.5])
    images[..., 16:] = 0.5  # the right half of the picture is seen to begin there
    assert stairs(masks, images)[0, 0].tolist() == pytest.approx([0.5, 0, 1])


def test_real_iou_of_a_shifted_square():
    targets = torch.zeros(1, 2, 16, 16)
    targets[:, 0, 4:12, 4:12] = 1
    targets[:, 1] = 0.4  # nowhere half a cell
    logits = torch.where(targets[:, :1] > 0, 20.0, -20.0)
    assert real_ious(logits, targets).tolist() == [[[1.0, 0.0]]]
    assert real_ious(logits.roll(4, -1), targets)[0, 0, 0].item() == pytest.approx(1 / 3)


def halves(side, step):
    """An image of two regions, side by side, and what the encoder would best say of its cells of `step` pixels."""
    levels = torch.zeros(1, 6, side, side, dtype=torch.int32)
    levels[..., 6:] = 1
    cells = levels[:, :3, ::step, ::step].float()  # [1, 3, h, h]
    embedding = 4 * torch.stack([cells, *[torch.zeros_like(cells)] * 15], 2)
    outline = torch.full_like(cells, -9.0)
    outline[..., 6 // step] = 9  # the outline runs through these cells
    return levels, Dense(embedding, outline)


def test_what_the_encoder_is_asked_tells_right_from_wrong():
    levels, right = halves(16, 4)
    pixels = torch.randint(256, (1, 64), generator=torch.Generator().manual_seed(0))
    pixels = pixels[(pixels % 16 < 4) | (pixels % 16 >= 8)][None]  # not in cells of both
    nothing = Dense(torch.zeros_like(right.embedding), torch.zeros_like(right.outline))
    assert pair_loss(right, levels, pixels) < 0.1 < pair_loss(nothing, levels, pixels)
    assert outline_loss(right, levels) < 0.01 < outline_loss(nothing, levels)


def test_auxiliary_reads_every_resolution(model):
    with torch.inference_mode():
        features = encode(model, torch.zeros(1, 3, 512, 512))
        dense = Auxiliary()(features)
    assert dense.embedding.shape == (1, 3, 16, 128, 128)
    assert dense.outline.shape == (1, 3, 128, 128)


def test_predicted_iou_error_counts_the_right_pairs():
    score = evaluate.SceneScore(np.array([1.0, 0.8]), np.array([0.7, 0.9]), np.array([0.8, 0.8]))
    summary = evaluate.summarise_scenes([score])
    assert summary["recall_0.75"] == 1.0
    assert summary["recall_0.9"] == 0.5
    assert summary["precision_0.75"] == 0.5
    assert summary["iou_error"] == pytest.approx(0.1)


def test_learning_rate_warms_up_and_falls():
    stage = replace(SCHEDULE[1], steps=6000, warm_up=300, cycles=3)
    steps = (0, 150, 300, 1000, 1999, 2000, 6000)
    rates = [learning_rate(stage, step, step / stage.steps) for step in steps]
    assert rates[0] < rates[1] < rates[2]
    assert rates[2] > rates[3] > rates[4] > 0
    assert rates[2] > rates[5] > rates[3]  # the next cycle begins a little lower
    assert rates[4] > rates[6] > 0


def test_islands_are_told_apart():
    levels = torch.zeros(1, 2, 40, 40, dtype=torch.int64)
    levels[0, :, 10:20] = 5
    levels[0, 0, 12:14, 3:9] = 7
    levels[0, 0, 30:, 20] = 7
    levels[0, 0, 39, 20:] = 7  # one island, bent
    islands = with_islands(levels)
    assert islands[:, 2:].equal(levels)
    islands = islands[:, :2]
    assert [len(level.unique()) for level in islands[0]] == [5, 3]
    assert islands[0, 0, 30, 20] == islands[0, 0, 39, 39] != islands[0, 0, 13, 4]
    for fine in islands[0, 0].unique():
        assert len(islands[0, 1][islands[0, 0] == fine].unique()) == 1


def test_light_changes_slowly_and_much():
    grey = torch.full((16, 3, 64, 64), 0.4)
    lit = relight(Draw(3, CPU), grey, 0.6)
    assert (lit[:, :, 1:] / lit[:, :, :-1]).log().abs().max() < 0.2  # no edge from pixel to pixel
    darkest, brightest = lit.flatten(1).amin(1), lit.flatten(1).amax(1)
    assert (brightest / darkest).median() > 1.3
    assert lit.mean() < 0.4  # what is too bright loses its outlines


@pytest.mark.parametrize(("change", "sign"), [(cast_shadows, -1), (shine, 1)])
def test_shadows_darken_and_highlights_brighten_some_pictures(change, sign):
    grey = torch.full((32, 3, 64, 64), 0.4)
    difference = sign * (change(Draw(3, CPU), grey, 0.7) - grey)
    assert difference.min() >= 0
    changed = difference.flatten(1).amax(1) > 0.01
    assert 4 < changed.sum() < 28
    assert difference.flatten(1).amax(1).max() > 0.1


def test_a_reflection_leaves_the_brightness_and_adds_contrast():
    grey = torch.full((32, 3, 64, 64), 0.4)
    others = torch.rand(32, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = reflect(Draw(3, CPU), grey, others, 0.3)
    torch.testing.assert_close(seen.mean((2, 3)), grey.mean((2, 3)))
    assert seen.std((1, 2, 3)).max() > 0.02
    assert 4 < (seen.std((1, 2, 3)) < 1e-6).sum() < 28


def test_no_light_changes_nothing():
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(illuminate(Draw(0, CPU), images, images.flip(0), 0.0), images)
    lit, alone = (illuminate(Draw(0, CPU), images, others, 1.0) for others in (images.flip(0), None))
    assert 0 <= lit.min() <= lit.max() <= 1
    assert (lit - images).abs().mean() > 0.05
    assert (lit - alone).abs().mean() > 0.005  # what is reflected


def test_signs_of_good_and_of_scattered_masks():
    points = torch.tensor([[[10.0, 10.0], [14.0, 14.0], [50.0, 50.0]]])
    logits = torch.full((1, 3, 3, 16, 16), -9.0)
    logits[0, :2, :, :8, :8] = 9  # both points inside give the same
    logits[0, 2, :, 8:, 8:] = 0.5  # alone, and with a blurred edge
    signs = read_signs(logits, points, 64, 1.0)
    assert signs.agreement[0, :2].eq(1).all()
    assert signs.agreement[0, 2].isnan().all()
    assert signs.stability[0, :2].eq(1).all()
    assert signs.stability[0, 2].eq(0).all()


def test_experience_expects_what_it_saw():
    signs = Signs(torch.tensor([[[0.99, 0.2, torch.nan]]]), torch.tensor([[[1.0, 0.5, 1.0]]]), torch.ones(1, 1, 3))
    real, experience = torch.tensor([[[0.9, 0.1, 0.5]]]), Experience.empty(CPU)
    for _ in range(10):
        experience = experience.add(signs, real, torch.ones(1, 1))
    assert experience.expect(signs).isnan().all()  # too few
    for _ in range(20):
        experience = experience.add(signs, real, torch.ones(1, 1))
    experience = experience.add(signs, 0 * real, torch.zeros(1, 1))  # of no weight
    expected = experience.expect(signs)
    torch.testing.assert_close(expected[0, 0, :2], real[0, 0, :2])
    assert expected[0, 0, 2].isnan()


def test_calibration_brings_predicted_iou_closer():
    copy = load_model(SHIPPED, MODEL_TYPES["demo"], CPU)
    head = copy.sam_mask_decoder.iou_prediction_head.requires_grad_(True)
    tokens = torch.randn(600, 256, generator=torch.Generator().manual_seed(0))
    ious = torch.full((600, 3), 0.3)
    ious[::5, 1] = torch.nan  # where nothing is known
    samples = calibrate.Samples(tokens, ious, torch.full((600, 1), 0.5), torch.ones(600, 3))
    before, after = calibrate.fit(head, samples, samples, epochs=30, learning_rate=1e-3)
    assert after < before / 2


def test_photographs_can_have_a_quantile_of_their_own():
    signs = Signs(torch.rand(1, 5, 3), torch.rand(1, 5, 3), torch.ones(1, 5, 3))
    drawn = calibrate.Sight(True, torch.zeros(5, 256), signs, torch.rand(1, 5, 3))
    photograph = calibrate.Sight(False, torch.ones(5, 256), signs, None)
    samples, held_out = calibrate.divide([photograph, drawn, photograph], calibrate.Quantiles(0.5, 0.8))
    assert torch.equal(samples.quantiles, torch.tensor([[0.5]] * 5 + [[0.8]] * 5))
    assert torch.equal(held_out.quantiles, torch.full((5, 1), 0.8))
    assert torch.equal(samples.ious[:5], drawn.measured[0])


def test_what_is_fitted_is_each_sample_s_quantile():
    head = torch.nn.Linear(1, 4)
    tokens = torch.tensor([[0.0], [1.0]]).repeat(400, 1)
    ious = torch.rand(800, 3, generator=torch.Generator().manual_seed(0))
    ious[::10] = torch.nan
    samples = calibrate.Samples(tokens, ious, 0.5 + 0.3 * tokens, torch.ones(800, 3))
    calibrate.fit(head, samples, samples, epochs=200, learning_rate=0.03)
    median, high = head(torch.tensor([[0.0], [1.0]]))[:, 1:].mean(1).tolist()
    assert median == pytest.approx(0.5, abs=0.07)
    assert high == pytest.approx(0.8, abs=0.07)


def test_stairs_cost_photographs_predicted_iou_and_drawn_scenes_none(model):
    head = model.sam_mask_decoder.iou_prediction_head
    signs = Signs(*(torch.ones(1, 5, 3) for _ in range(3)))
    tokens = torch.randn(5, 256, generator=torch.Generator().manual_seed(0))
    length = torch.linspace(0, 0.7, 15).view(1, 5, 3)
    photograph = calibrate.Sight(False, tokens, signs, length)
    drawn = calibrate.Sight(True, tokens, signs, None)
    price = calibrate.Stairs(cost=3.0, free=0.15, quantile=0.2)
    samples, held_out = calibrate.charge(head, [drawn, photograph, drawn], price)  # the first is held out
    predicted = head(tokens)[:, 1:4]
    assert torch.allclose(samples.ious, torch.cat([predicted - 3 * (length[0] - 0.15).clamp_min(0), predicted]))
    assert torch.allclose(held_out.ious, predicted)
    assert samples.quantiles.flatten().tolist() == pytest.approx([0.2] * 5 + [0.5] * 5)
    assert held_out.quantiles.eq(0.5).all()


def test_masks_count_as_often_as_the_generator_would_return_them():
    stability = torch.tensor([[[1.0, 0.95, 0.5], [1.0, 0.96, 0.96]]])
    alike = torch.tensor([[[1, 4, 1], [2, 4, 1]]])
    signs = Signs(torch.ones(1, 2, 3), stability, alike)
    torch.testing.assert_close(signs.weights(), torch.tensor([[[1, 0.25, 0.02], [0.5, 0.25, 1]]]))


def test_a_mask_of_no_weight_teaches_nothing():
    head = torch.nn.Linear(1, 4)
    ious = torch.tensor([[0.2] * 3, [0.9] * 3]).repeat(100, 1)
    weights = torch.tensor([[1.0] * 3, [0.0] * 3]).repeat(100, 1)
    samples = calibrate.Samples(torch.zeros(200, 1), ious, torch.full((200, 1), 0.5), weights)
    calibrate.fit(head, samples, samples, epochs=300, learning_rate=0.03)
    assert head(torch.zeros(1, 1))[0, 1:].tolist() == pytest.approx([0.2] * 3, abs=0.05)


def test_counts_the_masks_that_are_alike():
    logits = torch.full((1, 3, 3, 16, 16), -9.0)
    logits[0, :2, :2, :8, :8] = 9  # two points, two masks each, all the same; the third masks are empty
    logits[0, 2, :, 8:, 8:] = 9
    logits[0, 2, 2, 8:, 12:] = -9  # half of the others
    signs = read_signs(logits, torch.full((1, 3, 2), 10.0), 64, 1.0)
    assert signs.alike[0].tolist() == [[4, 4, 1], [4, 4, 1], [2, 2, 1]]


def test_predicted_iou_is_taught_by_masks_as_often_as_they_are_returned():
    levels = torch.ones(1, 6, 64, 64, dtype=torch.int32)
    levels[..., 32:] = 2
    logits = torch.full((2, 3, 16, 16), -80.0)
    logits[0, :, :, :8] = 80  # three times the same, steep
    logits[1] = -0.1
    logits[1, :, :, 8:] = 0.1  # right, too, but blurred: unstable
    pixels = torch.tensor([[32 * 64 + 16, 32 * 64 + 48]])
    batch = Batch(torch.zeros(1, 3, 64, 64), levels, pixels, pixels)
    dense = Dense(torch.zeros(1, 3, 16, 16, 16), torch.zeros(1, 3, 16, 16))
    iou = torch.tensor([[0.9] * 3, [0.5] * 3])
    result, _ = losses(logits, iou, dense, batch, LossConfig(), Experience.empty(CPU))
    assert result.best_iou.item() == 1
    assert result.iou_error.item() == pytest.approx((0.1 + 0.02 * 0.5) / 1.02)
    unknown = batch._replace(levels=-levels)  # photographs, of which nothing has been learned yet
    result, _ = losses(logits, iou, dense, unknown, LossConfig(), Experience.empty(CPU))
    assert result.iou_error.item() == 0


def test_a_batch_in_which_nothing_is_known_changes_nothing():
    head = torch.nn.Linear(1, 4)
    nan = torch.full((4, 3), torch.nan)
    unknown = calibrate.Samples(torch.zeros(4, 1), nan, torch.full((4, 1), 0.5), torch.ones(4, 3))
    calibrate._loss(calibrate._errors(head, unknown), unknown.quantiles, unknown.weights).backward()
    assert torch.equal(head.weight.grad, torch.zeros_like(head.weight))
    assert torch.equal(head.bias.grad, torch.zeros_like(head.bias))


@pytest.mark.parametrize(
    ("aim", "dtype"), [(("--quantile", "0.95"), torch.float16), (("--stairs", "50", "--float32"), torch.float32)]
)
def test_calibrates_on_cpu_and_changes_nothing_else(tmp_path, aim, dtype):
    calibrated = tmp_path / "calibrated.pt"
    dog = torch.from_numpy(bundled("dog")[:512, :512]).permute(2, 0, 1)[None]  # [1, 3, 512, 512]
    photographs = Photographs(dog, torch.zeros(1, 4, 512, 512, dtype=torch.int32), dog)
    torch.save(photographs._asdict(), kept_file(tmp_path))
    few = ["--scenes", "4", "--crops", "4", "--points_per_side", "4", "--epochs", "3", "--directory", str(tmp_path)]
    calibrate.main([str(SHIPPED), "--output", str(calibrated), *few, *aim])
    before, after = (torch.load(path, weights_only=True)["model"] for path in (SHIPPED, calibrated))
    changed = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
    assert changed
    assert all("iou_prediction_head" in name for name in changed)
    assert all(after[name].dtype == dtype for name in changed)


@pytest.mark.parametrize(
    "refused",
    [
        ("--stairs", "2", "--quantile", "0.6"),
        ("--stairs", "2", "--photograph_quantile", "0.9"),
        ("--stairs", "2", "--crops", "0"),
        ("--stairs_free", "0.1"),
        ("--stairs_quantile", "0.2"),
    ],
)
def test_stairs_are_charged_in_a_run_of_their_own_on_photographs(refused, capsys):
    with pytest.raises(SystemExit):
        calibrate.main([str(SHIPPED), *refused])
    assert "--stairs" in capsys.readouterr().err.splitlines()[-1]


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


def test_trains_two_steps_on_cpu_and_resumes(tmp_path):
    arguments = ["--directory", str(tmp_path), "--device", "cpu", "--eager", "--photograph_share", "0"]
    arguments += ["--batch", "1", "--prompts", "2", "--minutes", "5"]
    train.main([*arguments, "--steps", "1", "0", "0"])
    train.main([*arguments, "--steps", "1", "0", "1"])
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["stage"] for entry in log] == ["start", "scenes"]
    assert all(np.isfinite(entry["total"]) for entry in log)
    load_model(tmp_path / SHIPPED.name, MODEL_TYPES["demo"], CPU)
    # another run begins with what this one ends with
    weights, auxiliary = tmp_path / SHIPPED.name, tmp_path / "auxiliary.pt"
    config = TrainConfig(tmp_path / "another", CPU, SCHEDULE, 1.0, False, 1, weights, auxiliary=auxiliary)
    begun, ended = resume(config).auxiliary.state_dict(), torch.load(auxiliary, weights_only=True)
    assert all(torch.equal(begun[name], value) for name, value in ended.items())


def test_scenes_are_shown_several_times_with_other_prompts():
    stage = replace(SCHEDULE[0], batch=2, prompts=8, resolution=64, textures=14, reuse=2, compared=16, pool=3)
    batches = Batches(stage, 0, CPU, compiled=False, photographs=None, ranks=Ranks())
    first, second, *rest = (batches.draw(step) for step in range(7))
    colours = [{image.sum((1, 2)).round(decimals=2).sum().tolist() for image in batch.images} for batch in rest]
    assert not torch.equal(first.pixels, second.pixels)
    assert first.compared.shape == (2, 16)
    assert len(set.union(*colours)) > 2  # later ones come from more than one drawing


@pytest.fixture(scope="module")
def patterned():
    """Two "photographs" of noise, each half a region."""
    images = torch.randint(256, (2, 3, 80, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    levels = torch.arange(0, 8, 2, dtype=torch.int32).view(4, 1, 1).repeat(2, 1, 80, 80)
    levels[..., 40:] += 1
    return Photographs(images, levels, images)


def test_labels_of_photographs_say_that_they_are_no_truth(patterned):
    scenes = crop_photographs(Draw(0, CPU), patterned, 4, 64)
    assert scenes.levels.max() < 0


def test_crops_have_three_levels_of_four_in_a_row(patterned):
    levels = crop_photographs(Draw(0, CPU), patterned, 16, 64).levels  # [16, 3, 64, 64]
    kinds = (-1 - levels) // 2
    seen = {tuple(kind.flatten(1).unique(dim=1).flatten().tolist()) for kind in kinds}
    assert seen == {(0, 1, 2), (1, 2, 3)}


def test_some_crops_have_their_colours_exchanged():
    """Three flat colours: a crop keeps them, whichever channel each is in."""
    flat = torch.tensor([10, 100, 250], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 80, 80)
    photographs = Photographs(flat, torch.zeros(1, 4, 80, 80, dtype=torch.int32), flat)
    colours = (crop_photographs(Draw(0, CPU), photographs, 24, 64).images[:, :, 32, 32] * 255).round()
    assert colours.sort(1).values.equal(torch.tensor([10.0, 100.0, 250.0]).expand(24, 3))
    kept = (colours == torch.tensor([10.0, 100.0, 250.0])).all(1).sum()
    assert 12 <= kept < 24  # a half, and of the others a sixth by chance


def test_things_stand_before_photographs_and_are_the_truth(patterned):
    stage = replace(
        SCHEDULE[1], batch=5, resolution=64, textures=14, photograph_share=0.2, rooms=0.2, before_photographs=0.7
    )
    batches = Batches(stage, 1, CPU, compiled=False, photographs=patterned, ranks=Ranks())
    levels = batches._draw_scenes(0).levels
    plain = Batches(replace(stage, before_photographs=0.0), 1, CPU, False, patterned, Ranks())._draw_scenes(0).levels
    known = levels[:, 3:] >= 0
    assert known[2:4].all()  # a flat scene and one in space
    assert not known[4].any()  # a photograph
    things = plain[:2, 5:] > stage.scenes.backgrounds
    assert 0 < things.float().mean() < 1
    assert known[:2].equal(things.expand(-1, 3, -1, -1))
    assert levels[:, 3:][known].equal(plain[:, 3:][known])
    pixels = torch.arange(64 * 64).expand(5, -1)
    batch = Batch(torch.zeros(5, 3, 64, 64), levels, pixels, pixels)
    assert batch.known().view(5, 64, 64).equal(levels[:, 3] >= 0)


def test_runs_of_different_seeds_and_processes_share_no_scene():
    stage, steps = replace(SCHEDULE[0], photograph_share=0.0), (0, 1, 49_999)
    seen = [
        Batches(stage, index, CPU, False, None, Ranks(rank, 2), seed)._seed(step)
        for index in range(3)
        for seed in range(10)
        for rank in range(2)
        for step in steps
    ]
    assert len(set(seen)) == len(seen)


def test_pool_keeps_the_newest_and_turns_labels_with_images():
    pool = Pool(4)
    image = torch.arange(64.0).view(8, 8) / 255
    for value in range(3):
        levels = (image * 255 + 100 * value).int().expand(2, 6, -1, -1)
        pool.add(Pictures(image.expand(2, 3, -1, -1), levels))
    picked = pool.pick(Draw(0, CPU), 4)
    assert sorted((picked.levels.amin((1, 2, 3)) // 100).tolist()) == [1, 1, 2, 2]
    grey = (picked.images[:, 0] * 255).round().int()
    assert torch.equal(grey, picked.levels[:, 0] % 100)
    assert any(not torch.equal(one, grey[0]) for one in grey)
    with pytest.raises(ValueError, match="the pool has 4 pictures, not 5"):
        pool.pick(Draw(0, CPU), 5)


def tell_the_others(folder):
    """What each of two processes runs."""
    ranks = Ranks.join(CPU)
    mine, mean = torch.full((3,), float(ranks.rank)), [torch.full((2,), float(ranks.rank)), torch.ones(1)]
    ranks.share([mine])
    ranks.average(mean)
    seen = [mine.tolist(), [x.tolist() for x in mean], ranks.share_number(5.0 + ranks.rank)]
    (folder / f"{ranks.rank}.json").write_text(json.dumps(seen))
    ranks.leave()


def test_processes_that_train_together_agree(tmp_path):
    launch_agent(LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0"), tell_the_others, [tmp_path])
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert seen == [[[0, 0, 0], [[0.5, 0.5], [1]], 5]] * 2
