"""The parameters of a request, from its query."""

from __future__ import annotations

from dataclasses import dataclass

from werkzeug.datastructures import MultiDict

from sam2_amg.decoding import STRETCHES
from sam2_amg.errors import RequestError

VALUES = {"stretch": tuple(STRETCHES)}  # the parameters, and their values
_USES = [f"?{name}={'|'.join(values)}" for name, values in VALUES.items()]
KNOWN = f"Known parameters: {', '.join(_USES)}."
_LONGEST = 60  # characters of what is wrong that a message repeats


@dataclass(frozen=True)
class Parameters:
    """How an image is read. `stretch` is one of STRETCHES, or None."""

    stretch: str | None = None


def parameters_of(query: MultiDict[str, str]) -> Parameters:
    """The parameters of a query. Raises RequestError unknown_parameter or invalid_parameter (400)."""
    for name, values in query.lists():
        if name not in VALUES:
            raise RequestError(400, "unknown_parameter", f"The parameter {shown(name)} does not exist. {KNOWN}")
        if len(values) > 1:
            message = f"The parameter {name} comes {len(values)} times; send it once."
            raise RequestError(400, "invalid_parameter", message)
        if values[0] not in VALUES[name]:
            choices = " or ".join(VALUES[name])
            message = f"The parameter {name} is {shown(values[0])}; it must be {choices}."
            raise RequestError(400, "invalid_parameter", message)
    return Parameters(**query.to_dict())


def shown(text: str) -> str:
    """What a client sent, as a message repeats it: quoted, in printable characters, not at length."""
    return ascii(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")
