"""Gauges in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """A gauge of the server."""
    return GaugeMetricFamily(f"sam2_amg_{name}", text, float(value))


def gauges(name: str, text: str, values: Iterable[tuple[Mapping[str, str], float]]) -> GaugeMetricFamily:
    """A gauge with labels: the labels and the value of each."""
    listed = list(values)
    family = GaugeMetricFamily(f"sam2_amg_{name}", text, labels=list(listed[0][0]) if listed else ())
    for labels, value in listed:
        family.add_metric(list(labels.values()), float(value))
    return family
