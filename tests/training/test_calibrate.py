"""Predicted IoU: what it is fitted to, and signs that tell good masks where there is no truth."""

import pytest
import torch
from helpers import CPU, SHIPPED
from helpers import photograph as bundled

from sam2_amg.network.checkpoints import load_model
from sam2_amg.network.model_types import MODEL_TYPES
from training import calibrate
from training.consistency import Experience, Signs, read_signs
from training.photographs.crops import Photographs, kept_file


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


def test_stairs_cost_photographs_predicted_iou_and_drawn_scenes_none(demo_model):
    head = demo_model.sam_mask_decoder.iou_prediction_head
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


def test_a_mask_of_no_weight_teaches_nothing():
    head = torch.nn.Linear(1, 4)
    ious = torch.tensor([[0.2] * 3, [0.9] * 3]).repeat(100, 1)
    weights = torch.tensor([[1.0] * 3, [0.0] * 3]).repeat(100, 1)
    samples = calibrate.Samples(torch.zeros(200, 1), ious, torch.full((200, 1), 0.5), weights)
    calibrate.fit(head, samples, samples, epochs=300, learning_rate=0.03)
    assert head(torch.zeros(1, 1))[0, 1:].tolist() == pytest.approx([0.2] * 3, abs=0.05)


def test_a_batch_in_which_nothing_is_known_changes_nothing():
    head = torch.nn.Linear(1, 4)
    nan = torch.full((4, 3), torch.nan)
    unknown = calibrate.Samples(torch.zeros(4, 1), nan, torch.full((4, 1), 0.5), torch.ones(4, 3))
    calibrate._loss(calibrate._errors(head, unknown), unknown.quantiles, unknown.weights).backward()
    assert torch.equal(head.weight.grad, torch.zeros_like(head.weight))
    assert torch.equal(head.bias.grad, torch.zeros_like(head.bias))


@pytest.mark.parametrize(
    ("aim", "scenes", "crops", "dtype"),
    [
        (("--quantile", "0.95"), 2, 2, torch.float16),
        pytest.param(
            ("--stairs", "50", "--float32"), 1, 7, torch.float32, marks=pytest.mark.slow
        ),  # a crop is held out
    ],
)
def test_calibrates_on_cpu_and_changes_nothing_else(tmp_path, aim, scenes, crops, dtype):
    calibrated = tmp_path / "calibrated.pt"
    dog = torch.from_numpy(bundled("dog")[:512, :512]).permute(2, 0, 1)[None]  # [1, 3, 512, 512]
    photographs = Photographs(dog, torch.zeros(1, 4, 512, 512, dtype=torch.int32), dog)
    torch.save(photographs._asdict(), kept_file(tmp_path))
    few = ["--scenes", str(scenes), "--crops", str(crops), "--points_per_side", "3", "--epochs", "3"]
    calibrate.main([str(SHIPPED), "--output", str(calibrated), "--directory", str(tmp_path), *few, *aim])
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


def test_masks_count_as_often_as_the_generator_would_return_them():
    stability = torch.tensor([[[1.0, 0.95, 0.5], [1.0, 0.96, 0.96]]])
    alike = torch.tensor([[[1, 4, 1], [2, 4, 1]]])
    signs = Signs(torch.ones(1, 2, 3), stability, alike)
    torch.testing.assert_close(signs.weights(), torch.tensor([[[1, 0.25, 0.02], [0.5, 0.25, 1]]]))


def test_counts_the_masks_that_are_alike():
    logits = torch.full((1, 3, 3, 16, 16), -9.0)
    logits[0, :2, :2, :8, :8] = 9  # two points, two masks each, all the same; the third masks are empty
    logits[0, 2, :, 8:, 8:] = 9
    logits[0, 2, 2, 8:, 12:] = -9  # half of the others
    signs = read_signs(logits, torch.full((1, 3, 2), 10.0), 64, 1.0)
    assert signs.alike[0].tolist() == [[4, 4, 1], [4, 4, 1], [2, 2, 1]]
