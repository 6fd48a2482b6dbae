"""Huge pages under torch's host tensors."""

from __future__ import annotations

import os


def use_huge_pages() -> None:
    """Has torch ask the kernel for huge pages under its host tensors of 2 MiB and more; to be called before the first,
    for torch looks once (THP_MEM_ALLOC_ENABLE, PyTorch's pull request 107697). NumPy asks for them by itself.

    A photograph of two megapixels lies on 1,600 pages of 4 KiB, which the kernel clears one by one, each time anew.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
