"""The network in training: the same as sam2's, and what is asked of its encoder besides."""

import torch

from sam2_amg.network.encoder import encode
from training.auxiliary import Auxiliary
from training.network import decode


def test_decode_agrees_with_sam2(demo_model):
    points = torch.tensor([[[100.0, 200.0], [300.5, 40.5]]])
    pixels = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = encode(demo_model, pixels)
        logits, iou = decode(demo_model, features, points)
        prompt = (points[0][:, None], torch.ones(2, 1, dtype=torch.int))
        sparse, dense = demo_model.sam_prompt_encoder(points=prompt, boxes=None, masks=None)
        expected_logits, expected_iou, _, _ = demo_model.sam_mask_decoder(
            image_embeddings=features.image_embedding,
            image_pe=demo_model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=True,
            high_res_features=list(features.high_res_features),
        )
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(iou, expected_iou, rtol=1e-4, atol=1e-4)


def test_auxiliary_reads_every_resolution(demo_model):
    with torch.inference_mode():
        features = encode(demo_model, torch.zeros(1, 3, 512, 512))
        dense = Auxiliary()(features)
    assert dense.embedding.shape == (1, 3, 16, 128, 128)
    assert dense.outline.shape == (1, 3, 128, 128)
