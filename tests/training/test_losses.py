"""What training costs: masks, outlines nobody sees, and what the encoder is asked besides."""

import pytest
import torch
from helpers import CPU

from training.auxiliary import Dense, outline_loss, pair_loss
from training.batch import Batch
from training.consistency import Experience
from training.losses import LossConfig, losses, mask_costs, real_ious, region_targets
from training.unseen import stairs, unseen_outlines


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
