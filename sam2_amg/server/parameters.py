"""The parameters of a request, from its query and its body, and the format that it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args
from urllib.parse import parse_qsl

from werkzeug.datastructures import MIMEAccept

from sam2_amg.answers.filters import Filters
from sam2_amg.answers.options import Options
from sam2_amg.config import Bounds, GeneratorConfig
from sam2_amg.errors import ParameterError, RequestError
from sam2_amg.parameters import Format, Parameters, UnknownParameter, bounded, read_texts, shown

FORMATS: dict[str, tuple[Format, ...]] = {
    "upload": ("png",),
    "upload_rle": ("rle",),
    "segment": get_args(Format),
    "batch": ("rle", "records", "coco", "polygons"),
}
"""The endpoints that take images, and the formats of their answers, the default first."""
_QUERIES = 32  # that are remembered; one may have 64 kB
BY_TYPE: dict[str, Format] = {"application/json": "rle", "image/png": "png", "application/octet-stream": "npz"}
"""What /segment answers to the header Accept, if no parameter says a format."""


@dataclass(frozen=True)
class Asked:
    """What a request asks for: parameters that do not contradict each other, and all that follows from them."""

    parameters: Parameters
    format: Format
    options: Options
    filters: Filters


def model_of(endpoint: str, bounds: Bounds) -> type[Parameters]:
    """The parameters that a route takes."""
    return bounded(bounds, FORMATS[endpoint])


@lru_cache(_QUERIES)
def parameters_of(query: str, model: type[Parameters]) -> Parameters:
    """The parameters of a query. Raises RequestError unknown_parameter or invalid_parameter (400).

    Each request asks twice, before and after its body is read, and most requests have the query of the one before.
    """
    with refusing():
        return read_texts(parse_qsl(query, keep_blank_values=True, errors="replace"), model)


def asked_for(parameters: Parameters, endpoint: str, accept: MIMEAccept, own: GeneratorConfig) -> Asked:
    """All that a request asks for. `own` has the generator's parameters.

    Raises RequestError invalid_parameter (400) for contradictions, and not_acceptable (406).
    """
    formats = FORMATS[endpoint]
    with refusing():
        parameters.check(own)
        format = parameters.format or (accepted(accept) if endpoint == "segment" else formats[0])
        return Asked(parameters, format, parameters.options(format), parameters.filters())


def accepted(accept: MIMEAccept) -> Format:
    """The format that the header Accept chooses. Raises RequestError not_acceptable (406)."""
    if not accept:
        return "rle"
    best = accept.best_match(BY_TYPE)
    if best is None:
        types = ", ".join(f"{kind} ({format})" for kind, format in BY_TYPE.items())
        message = f"The header Accept fits no answer. Accept one of {types}, or send ?format=."
        raise RequestError(406, "not_acceptable", message)
    return BY_TYPE[best]


@contextmanager
def refusing() -> Iterator[None]:
    """Turns a ParameterError into a RequestError (400) that names the parameter."""
    try:
        yield
    except UnknownParameter as error:
        raise RequestError(400, "unknown_parameter", f"The parameter {shown(error.name)} {error.problem}.") from error
    except ParameterError as error:
        raise RequestError(400, "invalid_parameter", f"The parameter {error.name} {error.problem}.") from error
