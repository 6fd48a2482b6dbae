"""The encoder's trunk with other attention and MLPs than sam2's: `fp16_encoder.py` and `fp16x3_encoder.py` fill it in.

sam2's block adds what attention answers to the residual stream, and then what the MLP answers. Here, an addition waits
for the LayerNorm behind it, so that one kernel does both (`residual.py`). A block gives the next one what its MLP has
still to add. At the end of a stage it is added at once, because the neck reads the sum.
"""

from __future__ import annotations

import torch
from sam2.modeling.backbones.hieradet import Hiera, MultiScaleBlock, do_pool
from sam2.modeling.backbones.utils import window_partition
from torch import Tensor, nn

from sam2_amg.network.addend import Addend, Adding
from sam2_amg.network.encoder import LaidOutAttention
from sam2_amg.network.fp16x3_linear import Fp16x3Linear
from sam2_amg.network.residual import add_and_normalise, to_image


class TrunkBlock(nn.Module):
    """A block of sam2's trunk."""

    mlp: Adding

    def __init__(
        self,
        block: MultiScaleBlock,
        attention: LaidOutAttention,
        mlp: Adding,
        takes: tuple[torch.dtype, torch.dtype],
    ) -> None:
        """`attention.proj` is `Adding`, too. `takes` are the dtypes of what attention and MLP get.

        Raises ValueError for a block that is not SAM 2's: there, those that pool by two are those that widen.
        """
        super().__init__()
        pools, widens = block.q_stride is not None, block.dim != block.dim_out
        if pools != widens or (pools and (block.q_stride != (2, 2) or block.window_size % 2)):
            described = f"{block.dim} to {block.dim_out} channels, pooling by {block.q_stride}, windows of"
            raise ValueError(f"the trunk is written for SAM 2's blocks, not {described} {block.window_size}")
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.attention, self.mlp, self.takes = attention, mlp, takes
        self.window, self.pool = block.window_size, block.pool
        self.shortcut = Fp16x3Linear(block.proj) if widens else None

    def forward(self, x: Tensor, before: Addend | None) -> tuple[Tensor, Addend]:
        """The residual stream [n, h, h, C] behind attention, and what the MLP adds to it.

        `before` is what the previous block still has to add to `x`; None if it has been added.
        """
        for_attention, for_mlp = self.takes
        window = self.window
        if before is None:
            normed = self.norm1(x)  # [n, h, h, C]
            if self.shortcut is not None:
                x = do_pool(self.shortcut(normed), self.pool)  # [n, h/2, h/2, C']
            normed = (window_partition(normed, window)[0] if window else normed).to(for_attention)
        else:
            assert self.shortcut is None, "a block that widens begins a stage"
            x, normed = add_and_normalise(x, before, self.norm1, 0, window, for_attention)
        addend = self.attention.proj.addend(self.attention.attended(normed))
        if self.pool is not None:
            window //= 2
        x, normed = add_and_normalise(x, addend, self.norm2, window, 0, for_mlp)
        return x, self.mlp.addend(normed)


class Trunk(nn.Module):
    """sam2's trunk with `TrunkBlock`s in the place of its blocks."""

    positions: Tensor  # [1, S/4, S/4, C] float32

    def __init__(self, trunk: Hiera, blocks: list[TrunkBlock], image_size: int) -> None:
        super().__init__()
        side = image_size // 4
        self.register_buffer("positions", trunk._get_pos_embed((side, side)).contiguous())
        self.patch, self.stage_ends = trunk.patch_embed.proj, trunk.stage_ends
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Normalised pixels, float32 [n, 3, S, S] -> what each stage answers, float32 [n, C, S/4, S/4] to S/32."""
        x = self.patch(pixels).permute(0, 2, 3, 1) + self.positions  # [n, S/4, S/4, C]
        ends, addend = [], None
        for i, block in enumerate(self.blocks):
            x, addend = block(x, addend)
            if i in self.stage_ends:
                x, addend = x + to_image(addend.finish(), x.shape[1], 0), None
                ends.append(x.permute(0, 3, 1, 2))  # each further stage halves the side and doubles the channels
        return ends
