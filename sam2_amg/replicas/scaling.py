"""How many replicas Ray Serve is to run, where it may choose: as many as have two images each."""

from __future__ import annotations

from typing import Any

LOAD = "load"  # what replicas report to Ray Serve: how many images the front has
_IMAGES = 2  # a replica


def wanted_replicas(context: Any) -> tuple[int, dict[str, Any]]:
    """Ray Serve's policy: from its `AutoscalingContext` to a number of replicas and a state, of which there is none.

    Ray Serve applies the least and the greatest number, and the delays.
    """
    reported = (context.aggregated_metrics or {}).get(LOAD, {})
    return max(1, -(-round(max(reported.values(), default=0)) // _IMAGES)), {}
