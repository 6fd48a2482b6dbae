"""The folded decoder in float16: float16 products on tensor cores; LayerNorm, softmax and accumulation in float32."""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sam2_amg.network.encoder import ImageFeatures
from sam2_amg.network.folded_decoder import FoldedAttended, FoldedDecoder
from sam2_amg.network.fp16x3_image_tokens import Fp16ImageTokens
from sam2_amg.network.fused_upscaling import FusedUpscaling
from sam2_amg.network.image_tokens import SharedImage


class InFloat32(nn.Module):
    """A module that runs in float32 even under autocast."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """The module's output for `x`, in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return self.module(x.float())


class Fp16Decoder(FoldedDecoder):
    """`FoldedDecoder` with float16 products. Its outputs are float32, except the image tokens, which are float16.

    The head of predicted IoU stays in float32, because predicted IoU selects and orders the masks, and in float16 many
    would tie.
    """

    def __init__(self, model: SAM2Base) -> None:
        """Modifies the weights of `model`'s mask decoder."""
        decoder = model.sam_mask_decoder
        upscaling = FusedUpscaling(decoder, fp16x3=False)
        decoder.iou_prediction_head = InFloat32(decoder.iou_prediction_head)
        convert_linears(decoder.transformer)
        convert_linears(decoder.output_hypernetworks_mlps)
        self.device_type = decoder.iou_token.weight.device.type
        with self._fp16_products():
            super().__init__(model, upscaling, Fp16ImageTokens)

    def _fp16_products(self) -> torch.autocast:
        return torch.autocast(self.device_type, torch.float16)

    def prepare(self, features: ImageFeatures) -> SharedImage:
        """Computes what all points of an image share, float32."""
        with self._fp16_products():
            shared = super().prepare(features)
        return SharedImage(*(x.float() for x in shared.tensors()))

    def attend(self, prepared: SharedImage, points: Tensor) -> FoldedAttended:
        """Runs the transformer for `points` (float [P, 2], (x, y) in pixels of the model's input)."""
        with self._fp16_products():
            attended = super().attend(prepared, points)
        return FoldedAttended(attended.predicted_iou, attended.hyper.float(), attended.state, prepared)


def convert_linears(module: nn.Module) -> None:
    """Converts the linear layers in `module` to float16, in place. Norms do not change."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            child.half()
