"""How many replicas Ray Serve is to run, where it may choose: as many as have two images each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LOAD = "load"  # what replicas report to Ray Serve: how many images the front has
_IMAGES = 2  # a replica


def scaling_policy() -> Callable[[Any], tuple[int, dict[str, Any]]]:
    """The policy, from an `AutoscalingContext` of Ray Serve to a number of replicas and a state, which it has none of.

    Ray Serve applies the least and the greatest number, and the delays. The function is one within a function so that
    it is sent whole: Ray Serve's controller may run without this package.
    """
    images = _IMAGES

    def wanted(context: Any) -> tuple[int, dict[str, Any]]:
        reported = (context.aggregated_metrics or {}).get("load", {})
        return max(1, -(-round(max(reported.values(), default=0)) // images)), {}

    return wanted
