"""What the server counts, in Prometheus' text format: GET /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from sam2_amg.server.gauges import gauge
from sam2_amg.server.reception import Reception

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters of one server. Safe to use from many threads."""

    def __init__(self, reception: Reception) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "sam2_amg_requests", "Requests that got an answer", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "sam2_amg_request_seconds",
            "From a request's first byte to the last of its answer",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "sam2_amg_stage_seconds", "Stages of a request", ("stage",), buckets=_SECONDS, registry=self.registry
        )
        self._images = Counter("sam2_amg_images", "Images whose masks were found", registry=self.registry)
        self._masks = Counter("sam2_amg_masks", "Masks that were found", registry=self.registry)
        self.registry.register(_ReceptionState(reception))

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Counts an answer that was sent, or given up."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def took(self, stages: Iterable[tuple[str, float]]) -> None:
        """Counts the seconds of stages."""
        for stage, seconds in stages:
            self._stages.labels(stage).observe(seconds)

    def segmented(self, masks: int) -> None:
        """Counts an image and its masks."""
        self._images.inc()
        self._masks.inc(masks)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)


class _ReceptionState(Collector):
    """What is known at this moment of those that wait, and of those that make masks."""

    def __init__(self, reception: Reception) -> None:
        self.reception = reception

    def collect(self) -> Iterator[Metric]:
        """What Prometheus' library calls for each scrape."""
        reception = self.reception
        yield gauge("in_flight", "Requests that hold a place of the queue", reception.in_flight)
        yield gauge("queue_size", "Places of the queue (--queue_size)", reception.limits.queue_size)
        yield gauge("waiting", "Images that wait for a worker", reception.waiting)
        yield gauge("ready", "1 if images are answered", reception.is_ready)
        yield from reception.measures()
