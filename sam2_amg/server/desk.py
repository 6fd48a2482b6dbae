"""What the routes share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from sam2_amg.answers.options import Answer
from sam2_amg.server.metrics import Metrics
from sam2_amg.server.parameters import Asked
from sam2_amg.server.reception import Reception
from sam2_amg.server.ticket import Ticket, Tickets
from sam2_amg.server.upload import Upload


@dataclass(frozen=True)
class Made:
    """An answer, and how many masks it tells of."""

    answer: Answer
    masks: int


class Segmenter(Protocol):
    """Makes answers, in this process or elsewhere. Safe to use from many threads."""

    def answer(self, upload: Upload, asked: Asked, ticket: Ticket) -> Made:
        """The answer to one image, for which the caller holds a slot. Raises RequestError."""
        ...


@dataclass
class Desk:
    """The slots, what makes answers, the tickets of requests, and what is counted."""

    engine: Reception
    segmenter: Segmenter
    tickets: Tickets = field(default_factory=Tickets)
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.engine)

    def answer(self, upload: Upload, asked: Asked, ticket: Ticket) -> Answer:
        """The answer to one image, for which the caller holds a slot. Raises RequestError."""
        made = self.segmenter.answer(upload, asked, ticket)
        self.metrics.segmented(made.masks)
        return made.answer
