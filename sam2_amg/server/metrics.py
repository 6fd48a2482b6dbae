"""What the server counts, in Prometheus' text format: GET /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sam2_amg.compilation.jit import count_compilations
from sam2_amg.server.engine import Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters of one server. Safe to use from many threads."""

    def __init__(self, engine: Engine) -> None:
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
        self.registry.register(_EngineState(engine))

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


class _EngineState(Collector):
    """What the engine and the device know at this moment."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def collect(self) -> Iterator[Metric]:
        """What Prometheus' library calls for each scrape."""
        engine = self.engine
        yield _gauge("in_flight", "Requests that hold a place of the queue", engine.in_flight)
        yield _gauge("queue_size", "Places of the queue (--queue_size)", engine.limits.queue_size)
        yield _gauge("waiting", "Images that wait for a worker", engine.waiting)
        yield _gauge("ready", "1 if images are answered", engine.is_ready)
        yield _gauge("workers", "Worker threads that are alive", engine.live_workers)
        yield CounterMetricFamily("sam2_amg_retries", "Images tried again with less memory", engine.pace.retries)
        yield CounterMetricFamily("sam2_amg_compilations", "Subgraphs and kernels compiled", count_compilations())
        batches = GaugeMetricFamily("sam2_amg_encoded_together", "Images encoded at a time, the latest")
        batches.add_metric([], engine.pace.latest_batch)
        yield batches
        if torch.cuda.is_initialized():
            yield _gauge("device_memory_bytes", "Memory of the GPU that tensors take", torch.cuda.memory_allocated())
            yield _gauge("device_memory_held_bytes", "Memory of the GPU that torch keeps", torch.cuda.memory_reserved())


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"sam2_amg_{name}", text, float(value))
