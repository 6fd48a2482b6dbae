"""What goes between the front, which has the HTTP server, and a replica, which makes answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sam2_amg.answers.options import Answer
from sam2_amg.config import GeneratorConfig
from sam2_amg.errors import RequestError
from sam2_amg.network.weights import Weights
from sam2_amg.parameters import Parameters
from sam2_amg.server.parameters import Asked

Address = tuple[str, int]  # host and port
SILENT = 4.0  # seconds without a word after which a replica gets no more images


@dataclass(frozen=True)
class Call:
    """A file as it was received, and what is asked for. `seconds` are left for the answer."""

    name: str
    data: bytes
    asked: Asked
    request_id: str
    seconds: float


@dataclass(frozen=True)
class Reply:
    """An answer, or why there is none. `stages` are names and seconds, as `server.ticket.stages_of` has them."""

    answer: Answer | None = None
    masks: int = 0
    refusal: RequestError | None = None
    stages: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ReplicaState:
    """What a replica says of itself every second. `started` is another one each time that it starts.

    `failure` is why it cannot start. `own` has the parameters of its generator; None until it is ready, and again once
    it is to end. It takes calls at `address`, and works on up to `at_once` at a time.
    """

    started: str
    rank: int
    node: str
    pid: int
    device: str
    phase: str = "starting"
    images: int = 0
    in_flight: int = 0
    at_once: int = 1
    failure: str | None = None
    own: GeneratorConfig | None = None
    address: Address | None = None
    weights: Weights | None = None


@dataclass(frozen=True)
class Word:
    """What a replica hears of the front: seconds since it said something, and how many images it has then."""

    silence: float
    load: int


@dataclass(frozen=True)
class Seen:
    """A replica as the front sees it: what it said last, seconds since then, and how often it was started again."""

    state: ReplicaState
    silent: float
    restarts: int


def portable(asked: Asked) -> Asked:
    """The same, with parameters of a class that every process knows; a server makes one for its own limits."""
    return replace(asked, parameters=Parameters.model_construct(**asked.parameters.given))
