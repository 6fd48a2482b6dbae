"""What the routes share."""

from __future__ import annotations

from dataclasses import dataclass, field

from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.server.engine import Engine
from sam2_amg.server.metrics import Metrics
from sam2_amg.server.ticket import Tickets


@dataclass
class Desk:
    """The engine, the decoders of its images, the tickets of its requests, and what is counted."""

    engine: Engine
    decoders: DecoderPool
    tickets: Tickets = field(default_factory=Tickets)
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.engine)
