"""Making an answer ends once nobody waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from answer_masks import discs, records_of
from helpers import drawn_image, png
from numpy.typing import NDArray

from sam2_amg.answers.filters import Filters
from sam2_amg.answers.options import Options
from sam2_amg.config import GeneratorConfig, Limits
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.errors import RequestError
from sam2_amg.parameters import Format, Parameters
from sam2_amg.pipeline.base import Generator, MaskRecord, PendingResult
from sam2_amg.server.engine import Engine
from sam2_amg.server.parameters import Asked
from sam2_amg.server.segmenting import Segmenting
from sam2_amg.server.ticket import Ticket
from sam2_amg.server.upload import Upload

SIZE = (30, 40)


class Interrupting(Generator):
    """Finds discs; what a test says happens once they are found."""

    config = GeneratorConfig()

    def __init__(self, then: Callable[[], object]) -> None:
        self.then = then

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[None]:
        return [None]

    def segment(self, image: NDArray[np.uint8], features: Any, config: Any = None) -> PendingResult:
        def pending() -> list[MaskRecord]:
            self.then()
            return records_of(discs(20, SIZE))

        return pending


@pytest.mark.parametrize("format", ["png", "npz", "polygons", "labelmap"])
@pytest.mark.parametrize("end", ["cancelled", "timeout"])
def test_an_answer_ends_between_two_masks(format: Format, end: str) -> None:
    ticket = Ticket(time.monotonic() + 60)

    def then() -> None:
        if end == "cancelled":
            ticket.cancel()
        else:
            ticket.deadline = time.monotonic()

    limits = Limits(decoders=1)
    engine = Engine(Interrupting(then), limits)
    asked = Asked(Parameters(), format, Options(), Filters())
    with DecoderPool(limits) as decoders, engine.slot(), pytest.raises(RequestError) as refused:
        Segmenting(engine, decoders).answer(Upload("a.png", png(drawn_image(*SIZE))), asked, ticket)
    assert refused.value.code == end
    assert engine.close()
