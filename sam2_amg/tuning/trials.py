"""Calls of the kernels with the sizes of the large model and random numbers, to be timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from sam2.modeling.sam.mask_decoder import MaskDecoder as Sam2MaskDecoder
from torch import Tensor

from sam2_amg.kernels.attention import attention
from sam2_amg.kernels.fp16x3 import fp16_parts
from sam2_amg.kernels.image_attention import read_keys, update_first, update_second
from sam2_amg.kernels.launch_configs import launch_configs
from sam2_amg.kernels.position_scores import position_scores
from sam2_amg.network.decoder import Kept
from sam2_amg.network.fused_upscaling import FusedUpscaling
from sam2_amg.network.layer_norm import without_mean

_SIDE, _CHANNELS, _HEADS, _TOKENS, _WIDTH = 64, 256, 8, 8, 16
_TOLERANCE = {True: 1e-5, False: 4e-3}  # by `fp16x3`
_PIXELS, _ROWS = _SIDE * _SIDE, _HEADS * _TOKENS
# attention of the large encoder: how many windows, tokens of each, heads of 72 channels, blocks that have them
_WINDOWS = {
    "8 x 8": (1024, 64, 2, 2),
    "4 x 4": (1024, 16, 4, 6),
    "16 x 16": (16, 256, 8, 33),
    "whole image": (1, 4096, 8, 3),
    "8 x 8, last stage": (16, 64, 16, 4),
}


@dataclass(frozen=True)
class Trial:
    """One form of a kernel. `config_name` is its field of `LaunchConfigs`, if modes use the form and it may be tuned.

    `result` is what a call gives, computed without changing what the next call gets; None if that is what `run`
    returns. `weight` is how many times an image needs the call, beside the others with the same `config_name`. The
    results of two configurations may differ by `tolerance`, as a fraction of their norm.
    """

    kernel: str
    form: str
    run: Callable[[], Tensor]
    config_name: str | None = None
    result: Callable[[], Tensor] | None = None
    weight: int = 1
    tolerance: float = _TOLERANCE[True]


class Inputs:
    """Random tensors on a device, always the same."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._generator = torch.Generator(device).manual_seed(0)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=self._generator, device=self.device, dtype=dtype)

    def halves(self, fp16x3: bool, points: int, *shape: int) -> Tensor:
        """Float16, with `fp16x3` in two parts: [P, 2, ...]."""
        high = self.normal(points, *shape, dtype=torch.float16)
        return torch.stack([high, high * 2**-12], dim=1) if fp16x3 else high


def image_token_trials(points: int, inputs: Inputs, fp16x3: bool) -> Iterator[Trial]:
    """Image tokens: updated and read, with float32's accuracy (`fp16x3`) or in float16."""
    dtype = torch.float32 if fp16x3 else torch.float16
    form, prefix = str(dtype).removeprefix("torch."), "" if fp16x3 else "fp16_"
    tolerance = _TOLERANCE[fp16x3]
    centre, gain, after = (inputs.normal(_CHANNELS) for _ in range(3))
    shift, positions = inputs.normal(points, _ROWS), inputs.normal(_PIXELS, _HEADS * _WIDTH)
    heads = 0.5 * inputs.normal(points, _HEADS, _TOKENS, _WIDTH)
    shared, keys = inputs.normal(_PIXELS, _CHANNELS, dtype=dtype), inputs.halves(fp16x3, points, _PIXELS, _CHANNELS)
    folded, values = (inputs.normal(points, _ROWS, _CHANNELS, dtype=dtype) for _ in range(2))
    shared, centre, values = map(without_mean, (shared, centre, values))
    queries, own = fp16_parts(positions) if fp16x3 else positions.half(), heads.to(dtype)
    first = partial(update_first, shared, centre, queries, own, values, gain, after, 1e-5, fp16x3)
    name = f"{prefix}update_first"
    yield Trial("update", f"{form}, layer 1", first, name, lambda: _whole(first(), fp16x3), tolerance=tolerance)
    scores = position_scores(positions, heads, not fp16x3)

    def second(tokens: Tensor) -> Tensor:
        update_second(tokens, *scores, shift, folded, values, 1e-5, fp16x3)
        return tokens

    run, name = partial(second, keys.clone()), f"{prefix}update_second"  # each run changes its tokens again
    whole = partial(_whole, fp16x3=fp16x3)
    yield Trial("update", f"{form}, layer 2", run, name, lambda: whole(second(keys.clone())), tolerance=tolerance)
    read = partial(read_keys, keys, queries, own, folded, fp16x3)
    yield Trial("read", form, read, f"{prefix}read", tolerance=tolerance)
    scoring = partial(position_scores, positions, heads, not fp16x3)
    yield Trial("scores of positions", form, lambda: scoring()[0], "position_scores")


def _whole(keys: Tensor, fp16x3: bool) -> Tensor:
    """Image tokens; of two parts their sum, because what is rounded up in one is less in the other."""
    return keys[:, 0].float() + keys[:, 1].float() if fp16x3 else keys


def upscale_trials(points: int, inputs: Inputs, decoder: Sam2MaskDecoder, fp16x3: bool) -> Iterator[Trial]:
    """Every point with one kept mask, with float32's accuracy (`fp16x3`) or in float16. `decoder` has the weights."""
    dtype = torch.float32 if fp16x3 else torch.float16
    hyper = inputs.normal(points, _CHANNELS // 8, 3)
    children = without_mean(inputs.normal(_PIXELS, 4, 64, dtype=dtype))
    features = children, inputs.normal(_PIXELS, 4, 128, dtype=dtype)
    every = torch.arange(points, device=inputs.device)
    kept = Kept(every, every % 3)
    upscaling = FusedUpscaling(decoder, fp16x3)
    keys = inputs.halves(fp16x3, points, _PIXELS, _CHANNELS)
    form, name = f"{str(dtype).removeprefix('torch.')}, one mask a point", "upscale" if fp16x3 else "fp16_upscale"
    run = partial(upscaling.masks, keys, hyper, *features, kept)
    yield Trial("upscale", form, run, name, tolerance=_TOLERANCE[fp16x3])


def attention_trials(inputs: Inputs) -> Iterator[Trial]:
    """Attention of the encoder: ours, and torch's, which furious has in the large windows of stages 3 and 4.

    The form of float32 alone is tuned: furious has ours in eight blocks.
    """
    for name, (windows, tokens, heads, blocks) in _WINDOWS.items():
        for dtype in (torch.float32, torch.float16):
            form = str(dtype).removeprefix("torch.")
            q, k, v = inputs.normal(windows, tokens, 3, heads, 72, dtype=dtype).unbind(2)
            is_small = tokens <= launch_configs(inputs.device).small_attention["BLOCK"]
            config_name = None if is_small or dtype == torch.float16 else "attention"
            yield Trial(f"attention {name}", f"{form}, ours", partial(attention, q, k, v), config_name, weight=blocks)
            theirs = partial(F.scaled_dot_product_attention, q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
            yield Trial(f"attention {name}", f"{form}, torch's", theirs)


def prompt_token_trials(points: int, inputs: Inputs) -> Iterator[Trial]:
    """Attention of layer 1's prompt tokens to the image, which is fp16x3 in both modes."""
    q = inputs.normal(1, points * _TOKENS, _HEADS, _WIDTH)
    k, v = (inputs.normal(1, _PIXELS, _HEADS, _WIDTH) for _ in range(2))
    run = partial(attention, q, k, v)
    yield Trial("attention prompt tokens", "float32, ours", run, "attention", weight=4)  # calls of 256 points


def all_trials(device: torch.device, decoder: Sam2MaskDecoder, points: Mapping[bool, int]) -> Iterator[Trial]:
    """Every kernel in every form. `points` are at a time, by `fp16x3`; `decoder` has the weights of upscaling."""
    inputs = Inputs(device)
    for fp16x3, count in points.items():
        yield from image_token_trials(count, inputs, fp16x3)
    for fp16x3, count in points.items():
        yield from upscale_trials(count, inputs, decoder, fp16x3)
    yield from attention_trials(inputs)
    yield from prompt_token_trials(points[True], inputs)
