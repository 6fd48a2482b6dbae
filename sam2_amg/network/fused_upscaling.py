"""Masks of kept points in one kernel, `kernels/upscale.py`. This file prepares its weights and launches it."""

from __future__ import annotations

import torch
from sam2.modeling.sam.mask_decoder import MaskDecoder as Sam2MaskDecoder
from torch import Tensor

from sam2_amg.kernels.image_tokens import CHANNELS
from sam2_amg.kernels.launch import require_kernel_device
from sam2_amg.kernels.launch_configs import launch_configs
from sam2_amg.kernels.upscale import CHILD, FOUR, upscale_kernel
from sam2_amg.network.decoder import Kept
from sam2_amg.network.encoder import ImageFeatures
from sam2_amg.network.fp16x3_linear import to_fp16_pair
from sam2_amg.network.layer_norm import without_mean
from sam2_amg.network.upscaling import LinearUpscaling, square_side


class FusedUpscaling(LinearUpscaling):
    """`LinearUpscaling` that computes the masks of kept points in one kernel.

    It takes image tokens without gain and bias of their norm, as `Fp16x3ImageTokens` stores them. Both are folded into
    its weights, whose means over a child's channels are left out.
    """

    def __init__(self, decoder: Sam2MaskDecoder, fp16x3: bool) -> None:
        """Kernel operands are float32 in two float16 parts if `fp16x3`, else float16."""
        super().__init__(decoder)
        norm = decoder.transformer.layers[-1].norm4
        first_bias, second_bias = self.biases
        self.biases = first_bias + (norm.bias @ self.first).unflatten(0, (2, 2, -1)), second_bias
        by_child = (norm.weight[:, None] * self.first).unflatten(1, (4, -1))  # [C, 4, C/4]
        self.first = without_mean(by_child).flatten(1)
        self.fp16x3, self.dtype = fp16x3, torch.float32 if fp16x3 else torch.float16
        self.operands = tuple(
            part.contiguous() for weight in (self.first, self.second) for part in to_fp16_pair(weight)
        )
        if self.first.shape != (int(CHANNELS), 4 * int(CHILD)) or self.second.shape != (int(CHILD), int(FOUR)):
            raise ValueError("the upscaling kernel supports only SAM 2's mask decoder")

    def arrange(self, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """See `LinearUpscaling`; children without their means over channels, so that the kernel need not find them."""
        children, grandchildren = super().arrange(features)
        return without_mean(children), grandchildren

    def masks(self, keys: Tensor, hyper: Tensor, children: Tensor, grandchildren: Tensor, kept: Kept) -> Tensor:
        """Low-res logits of kept masks, float32 [n, 4h, 4w].

        `keys` are float16 [P, N, C], with `fp16x3` in two parts [P, 2, N, C]; `hyper` is float32 [P, C/8, 3]. Both are
        of all points. `children` and `grandchildren` are from `arrange`, of `dtype`. Raises ValueError for a device
        other than CUDA, for other dtypes, and for a number of image tokens that is not a multiple of the kernel's tile.
        """
        require_kernel_device(keys, "keys")
        pixels = keys.shape[-2]
        side = square_side(pixels)
        configs = launch_configs(keys.device)
        config = configs.upscale if self.fp16x3 else configs.fp16_upscale
        if pixels % config["BLOCK"]:
            raise ValueError(f"the upscaling kernel takes tiles of {config['BLOCK']} image tokens, not {pixels}")
        if keys.dtype != torch.float16 or keys.shape[1:-2] != ((2,) if self.fp16x3 else ()):
            raise ValueError(
                f"image tokens must be float16, in two parts by fp16x3, not {keys.dtype} {tuple(keys.shape)}"
            )
        if not children.dtype == grandchildren.dtype == self.dtype:
            raise ValueError(f"features must be {self.dtype}, not {children.dtype} and {grandchildren.dtype}")
        if not all(x.is_contiguous() for x in (keys, hyper, children, grandchildren)):
            raise ValueError("image tokens, mask vectors and features must be contiguous")
        count = len(kept.point)
        logits = torch.empty(count, 4 * side, 4 * side, device=keys.device)
        if count > 0:
            upscale_kernel[(count, pixels // config["BLOCK"])](
                keys, kept.point.contiguous(), kept.mask.contiguous(), count, hyper,
                children, grandchildren, *self.operands,
                self.norm.weight, self.norm.bias, self.norm.eps, logits, SIDE=side, FP16X3=self.fp16x3, **config,
            )  # fmt: skip
        return logits
