"""What every output is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from sam2_amg.batch.items import Result


class ShardWriter(Protocol):
    """Writes a shard to a stream, which its caller opens, closes and puts in its place."""

    def add(self, encoded: Any) -> None:
        """The next image, in the order of the shard: what `encode` made of it."""
        ...

    def finish(self) -> None:
        """Writes what stands at the end."""
        ...


@dataclass(frozen=True)
class Output:
    """How shards are written in a format.

    `encode` is the costly part, and may run in any thread, for several images at once. `begin` opens a shard:
    begin(stream, settings) where `settings` is the settings' hash, which rows hold. `suffix` is that of a shard's name,
    with its dot. `require` raises StartupError if a package is missing. `check`
    gives a result a Problem in place of masks that the format cannot hold; it comes before `encode`. `place_of` tells
    from an image's name where in the shard its masks will lie, if they cannot lie there beside another's.
    """

    suffix: str
    encode: Callable[[Result], Any]
    begin: Callable[[BinaryIO, str], ShardWriter]
    needs_image: bool = False
    require: Callable[[], object] = lambda: None
    check: Callable[[Result], Result] = lambda result: result
    place_of: Callable[[str], str | None] = lambda name: None
