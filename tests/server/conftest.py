"""The server that tests of this folder ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import LENIENT, RunningServer, start_server


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """As that of all tests, but with so few points that most of an answer's half a second goes to its encoder."""
    running = start_server("--points_per_side", "4", "--batch_size", "3", *LENIENT)
    yield running
    assert running.stop() == 0
    running.process.stdout.close()
