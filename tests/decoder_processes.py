"""The processes of a pool of decoders."""

from __future__ import annotations

from helpers import wait_until

from bench.harness.vitals import children
from sam2_amg.decoding.pool import DecoderPool


def processes(pool: DecoderPool) -> list[int]:
    """The decoders, once all are there."""
    wait_until(lambda: len(children(pool._server.process.pid)) == pool.size)
    return children(pool._server.process.pid)
