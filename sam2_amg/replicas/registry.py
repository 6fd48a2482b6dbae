"""The actor that replicas and the front both report to, once a second. It ends with the front's process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

from sam2_amg.replicas.messages import SILENT, ReplicaState, Seen, Word

_FORGOTTEN = 15.0  # seconds of silence after which a replica is gone
_PIECE = 64 << 20  # bytes


class Registry:
    """Runs as a Ray actor on the front's node, with some threads. Hands out `files`, which other nodes may not have."""

    def __init__(self, files: tuple[str, ...] = ()) -> None:
        self._files = frozenset(files)
        self._front_seen = time.monotonic()
        self._load = 0
        self._seen: dict[str, tuple[ReplicaState, float]] = {}
        self._starts: Counter[int] = Counter()
        self._lock = threading.Lock()

    def note(self, state: ReplicaState) -> Word:
        """A replica says how it is, and hears of the front."""
        with self._lock:
            if state.started not in self._seen:
                self._starts[state.rank] += 1
            self._seen[state.started] = state, time.monotonic()
            return Word(time.monotonic() - self._front_seen, self._load)

    def look(self, load: int = 0) -> list[Seen]:
        """The front is there, has `load` images, and asks for all replicas; they are sorted by rank. Of a rank there is
        its latest start, and others as long as they are heard of: Ray Serve gives ranks anew when it ends a replica."""
        with self._lock:
            self._load = load
            self._front_seen = now = time.monotonic()
            self._seen = {key: each for key, each in self._seen.items() if now - each[1] < _FORGOTTEN}
            latest = {state.rank: key for key, (state, _) in self._seen.items()}
            shown = [each for key, each in self._seen.items() if latest[each[0].rank] == key or now - each[1] < SILENT]
            return [
                Seen(state, now - heard, self._starts[state.rank] - 1)
                for state, heard in sorted(shown, key=lambda each: each[0].rank)
            ]

    def read(self, path: str, offset: int) -> bytes:
        """A piece of a file; empty at its end. Raises PermissionError for a file that is not handed out."""
        if path not in self._files:
            raise PermissionError(path)
        with Path(path).open("rb") as file:
            file.seek(offset)
            return file.read(_PIECE)
