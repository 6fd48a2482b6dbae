"""The folded decoder against sam2's own, not through the pipeline."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.network.decoder import Kept, PlainDecoder
from sam2_amg.network.encoder import ImageFeatures, encode
from sam2_amg.network.folded_decoder import FoldedDecoder

# dtype -> (predicted IoU, logits of magnitude up to about 200); the algebra is exact, what is left is rounding
TOLERANCE = {torch.float64: (1e-12, 1e-10), torch.float32: (2e-5, 5e-3)}


def in_dtype(model: SAM2Base, dtype: torch.dtype) -> SAM2Base:
    copy = deepcopy(model).to(dtype)
    copy.sam_prompt_encoder.pe_layer.float()  # sam2 computes positions in float32 whatever the model's dtype
    return copy


def random_features(model: SAM2Base, dtype: torch.dtype) -> ImageFeatures:
    torch.manual_seed(0)
    return encode(model, torch.randn(1, 3, model.image_size, model.image_size, dtype=dtype))


def random_points(count: int) -> torch.Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(count)) * 256


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("points", [1, 7, 24])
@torch.inference_mode()
def test_folded_decoder_equals_sam2(small_model: SAM2Base, dtype: torch.dtype, points: int) -> None:
    model = in_dtype(small_model, dtype)
    features = random_features(model, dtype)
    everything = Kept(*torch.ones(points, 3).nonzero(as_tuple=True))
    answers = []
    for decoder in (PlainDecoder(model), FoldedDecoder(model)):
        attended = decoder.attend(decoder.prepare(features), random_points(points))
        answers.append((attended.predicted_iou, decoder.predict_masks(attended, everything)))
    (plain_iou, plain_logits), (folded_iou, folded_logits) = answers
    iou_tolerance, logit_tolerance = TOLERANCE[dtype]
    assert plain_logits.shape == folded_logits.shape == (points * 3, 64, 64)
    assert plain_logits.abs().max() > 10  # the comparison below is about something
    torch.testing.assert_close(folded_iou, plain_iou, rtol=0, atol=iou_tolerance)
    torch.testing.assert_close(folded_logits, plain_logits, rtol=0, atol=logit_tolerance)


@torch.inference_mode()
def test_folded_decoder_without_object_score_token(small_model: SAM2Base) -> None:
    model = in_dtype(small_model, torch.float64)
    model.sam_mask_decoder.pred_obj_scores = False
    features = random_features(model, torch.float64)
    kept = Kept(torch.tensor([0, 2, 2]), torch.tensor([1, 0, 2]))
    plain, folded = PlainDecoder(model), FoldedDecoder(model)
    expected = plain.attend(plain.prepare(features), random_points(3))
    answer = folded.attend(folded.prepare(features), random_points(3))
    torch.testing.assert_close(answer.predicted_iou, expected.predicted_iou, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        folded.predict_masks(answer, kept), plain.predict_masks(expected, kept), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("decoder_type", [PlainDecoder, FoldedDecoder])
@torch.inference_mode()
def test_kept_masks_are_rows_of_all_masks(small_model: SAM2Base, decoder_type: type) -> None:
    decoder = decoder_type(small_model)
    prepared = decoder.prepare(random_features(small_model, torch.float32))
    attended = decoder.attend(prepared, random_points(4))
    everything = decoder.predict_masks(attended, Kept(*torch.ones(4, 3).nonzero(as_tuple=True)))
    kept = Kept(torch.tensor([0, 1, 3, 3]), torch.tensor([2, 0, 0, 1]))
    torch.testing.assert_close(
        decoder.predict_masks(attended, kept), everything[kept.point * 3 + kept.mask], rtol=0, atol=1e-4
    )
    nothing = Kept(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert decoder.predict_masks(attended, nothing).shape == (0, 64, 64)


def test_decoder_without_high_resolution_features_is_refused(small_model: SAM2Base) -> None:
    model = deepcopy(small_model)
    model.sam_mask_decoder.use_high_res_features = False
    with pytest.raises(ValueError, match="high-resolution features"):
        FoldedDecoder(model)
