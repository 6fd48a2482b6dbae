"""Work on many masks that ends early once nobody waits for its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
_check: ContextVar[Callable[[], None]] = ContextVar("check", default=lambda: None)


@contextmanager
def ending_early(check: Callable[[], None]) -> Iterator[None]:
    """Has `while_wanted` make this call in the block, in this thread. It ends the work by raising."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def while_wanted(items: Iterable[T]) -> Iterator[T]:
    """The items, in turn. Before each, the check of `ending_early` is made."""
    check = _check.get()
    for item in items:
        check()
        yield item
