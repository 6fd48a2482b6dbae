"""Launch configurations that are worth a try on a GPU that nobody has measured: `sam2-amg tune` times them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from sam2_amg.kernels.launch_configs import LaunchConfig


def _tiles(blocks: Sequence[int], parts: Sequence[int] = ()) -> list[LaunchConfig]:
    every = product(blocks, (4, 8), (1, 2, 3))
    tiles = [{"BLOCK": block, "num_warps": warps, "num_stages": stages} for block, warps, stages in every]
    return [{**tile, "PARTS": part} for tile in tiles for part in parts] if parts else [*tiles]


# By the field of `LaunchConfigs`. The least number of parts of `read` is four: in fewer, sums are less exact.
CANDIDATES: dict[str, list[LaunchConfig]] = {
    **dict.fromkeys(("update_first", "update_second"), _tiles((32, 64), (1, 2))),
    "read": _tiles((32, 64), (4, 8)),
    **dict.fromkeys(("fp16_update_first", "fp16_update_second", "fp16_read"), _tiles((32, 64), (1, 2))),
    "position_scores": [{**tile, "POINTS": points} for tile in _tiles((64, 128)) for points in (8, 16)],
    "attention": _tiles((32, 64, 128)),
    "upscale": _tiles((32, 64)),
    "fp16_upscale": _tiles((64, 128)),
}
