"""A replica that answers at once. Imports Ray."""

from __future__ import annotations

from bench.harness.instant import ANSWER, MASKS, NoGenerator
from sam2_amg.replicas.messages import Call, Reply
from sam2_amg.replicas.replica import Replica
from sam2_amg.server.ticket import Ticket

_STAGES = (("decode", 0.0), ("queue", 0.0), ("segment", 0.0), ("answer", 0.0))


class InstantReplica(Replica):
    """Reports as the product's does, and has no model."""

    def _start(self) -> None:
        self._engine.set_generator(NoGenerator())
        self._engine.report("ready")

    def answer(self, call: Call, ticket: Ticket) -> Reply:
        """The same for every image."""
        self._images += 1
        return Reply(ANSWER, MASKS, None, _STAGES)
