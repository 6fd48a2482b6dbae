"""Several processes that train one model, a GPU each: what one has to tell the others. One alone needs none of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is, as `torchrun` says it."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def join(device: torch.device) -> Ranks:
        """Meets the other processes that `torchrun` started, if it did."""
        if not dist.is_torchelastic_launched():
            return Ranks()
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        return Ranks(dist.get_rank(), dist.get_world_size())

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()

    def leave(self) -> None:
        """Parts from the others."""
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this one writes files and reports."""
        return self.rank == 0

    @torch.no_grad()
    def share(self, tensors: Sequence[Tensor]) -> None:
        """Gives every process the values of the first, in place."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def share_number(self, value: float) -> float:
        """The first one's number: clocks differ, and what is decided by them must not."""
        if self.count == 1:
            return value
        number = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(number, 0)
        return float(number)

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """The mean over all processes, in place, of tensors of one type; in one message."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        sizes = [tensor.numel() for tensor in tensors]
        means = [mean.view_as(tensor) for mean, tensor in zip(flat.split(sizes), tensors, strict=True)]
        torch._foreach_copy_(list(tensors), means)
