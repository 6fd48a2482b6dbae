"""Image tokens -> low-res logits: two transposed convolutions, high-resolution features, and mask vectors.

The kernel in `kernels/upscale.py` computes the same. Symbols: U points, N = h * w image tokens, C channels of the
transformer (256).
"""

from __future__ import annotations

import torch.nn.functional as F
from sam2.modeling.sam.mask_decoder import MaskDecoder as Sam2MaskDecoder
from torch import Tensor

from sam2_amg.network.encoder import ImageFeatures
from sam2_amg.network.layer_norm import normalise


class LinearUpscaling:
    """Computes each transposed convolution (kernel 2, stride 2) as a linear layer from a pixel to its 2 x 2 children.

    Only the logits are permuted to image layout.
    """

    def __init__(self, decoder: Sam2MaskDecoder) -> None:
        first, self.norm, _, second, _ = decoder.output_upscaling
        self.first = first.weight.permute(0, 2, 3, 1).flatten(1)  # [C, 2*2*C/4]
        self.second = second.weight.permute(0, 2, 3, 1).flatten(1)  # [C/4, 2*2*C/8]
        self.biases = first.bias, second.bias

    def arrange(self, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """High-resolution features in the layout of `__call__`, with the biases added; once per image.

        Returns children [N, 2*2, C/4] and grandchildren [N, 2*2, 2*2*C/8], grouped by image token and by child.
        """
        h, w = features.image_embedding.shape[-2:]
        s0, s1 = features.high_res_features
        bias_1, bias_2 = self.biases
        # [1, c, 2h, 2w] -> [h, w, 2*2, c]
        s1 = s1[0].unflatten(2, (w, 2)).unflatten(1, (h, 2)).permute(1, 3, 2, 4, 0)
        # [1, c, 4h, 4w] -> [h, w, 2*2, 2*2*c]
        s0 = s0[0].unflatten(2, (w, 2, 2)).unflatten(1, (h, 2, 2)).permute(1, 4, 2, 5, 3, 6, 0)
        return (s1 + bias_1).reshape(h * w, 4, -1), (s0 + bias_2).reshape(h * w, 4, -1)

    def __call__(self, keys: Tensor, hyper: Tensor, children: Tensor, grandchildren: Tensor) -> Tensor:
        """Low-res logits [U, 3, 4h, 4w] of image tokens `keys` [U, N, C], with mask vectors `hyper` [U, C/8, 3]."""
        side = square_side(keys.shape[1])
        x = (keys @ self.first).unflatten(-1, (4, -1))  # [U, N, 2*2, C/4]
        x = normalise(self.norm, x, added=children, with_gelu=True)
        x = F.gelu(x @ self.second + grandchildren)  # [U, N, 2*2, 2*2*C/8]
        logits = x.reshape(len(keys), 16 * side * side, hyper.shape[1]) @ hyper  # [U, N*2*2*2*2, 3]
        logits = logits.reshape(len(keys), side, side, 2, 2, 2, 2, hyper.shape[2])
        return logits.permute(0, 7, 1, 3, 5, 2, 4, 6).flatten(5, 7).flatten(2, 4)


def square_side(tokens: int) -> int:
    """The side of a square of `tokens` image tokens. SAM 2's input is always square."""
    side = round(tokens**0.5)
    assert side * side == tokens
    return side
