"""What every training loop here shares: the optimizer, and the moving average of weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

_DECAY = 0.05


def make_optimizer(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.AdamW:
    """AdamW; vectors do not decay."""
    trained = list(parameters)
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": _DECAY},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)


@torch.no_grad()
def move_average(average: Mapping[str, Tensor], module: nn.Module, decay: float) -> None:
    """Moves the average, in place, towards those weights that the last step had gradients for."""
    trained = [(name, value) for name, value in module.named_parameters() if value.grad is not None]
    torch._foreach_lerp_([average[name] for name, _ in trained], [value for _, value in trained], 1 - decay)
