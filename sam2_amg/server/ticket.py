"""A request on its way."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass
class Ticket:
    """Placeholder."""

    request_id: str
    deadline: float
    cancelled: threading.Event
