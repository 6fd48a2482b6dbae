"""Images of many requests -> the workers that share the model -> an answer for each request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, Metric

from sam2_amg.compilation.jit import count_compilations
from sam2_amg.config import GeneratorConfig, Limits
from sam2_amg.pipeline.base import Generator, MaskRecord
from sam2_amg.server.failure import Failure
from sam2_amg.server.gauges import gauge
from sam2_amg.server.jobs import Job, JobQueue
from sam2_amg.server.reception import Reception
from sam2_amg.server.ticket import Ticket
from sam2_amg.server.watchdog import Watchdog
from sam2_amg.server.worker import Pace, Worker, for_caller, out_of_memory


class Engine(Reception):
    """Runs a generator for many callers at once, in the order in which they asked, in as many worker threads as the
    generator allows. Images that wait at the same time are encoded together, as many as the generator takes.

        with engine.slot(), decoders.decoded(data) as image:    # RequestError 503 if the queue is full
            records = engine.generate(image)   # waits; whatever the generator raises comes out here

    So `queue_size` bounds the images in memory (and as many more as are encoded together, where requests ran out of
    time meanwhile). Without a generator it refuses, until `set_generator` brings one. A failure of the device, a job
    that does not end and the death of a worker end it.
    """

    def __init__(
        self, generator: Generator | None, limits: Limits, on_failure: Callable[[Failure], None] | None = None
    ) -> None:
        self._queue = JobQueue(limits.queue_size)
        super().__init__(self._queue, limits, on_failure)
        self._generator: Generator | None = None
        self._pace = Pace()
        self._workers: list[Worker] = []
        self._watchdog = Watchdog(self._workers, self._pace, limits.stuck_timeout, self.fail)
        if generator is not None:
            self.set_generator(generator)

    def start_worker(self, first: Callable[[], None]) -> None:
        """Starts a worker with this call, and waits for it. Raises what it raises; the worker is gone then.

        A first image belongs here: CUDA's libraries have handles of their own for every thread.
        """
        worker = Worker(first, self._queue, lambda: self._generator, self._pace, self.fail)
        worker.start()
        worker.started.result()
        self._workers.append(worker)

    def set_generator(self, generator: Generator) -> None:
        """Starts to answer, with as many worker threads as the generator allows. To be called once."""
        while len(self._workers) < generator.workers:
            self.start_worker(lambda: None)
        self._generator = generator
        self._watchdog.start()

    @property
    def own(self) -> GeneratorConfig | None:
        """The generator's parameters; None without one."""
        return self._generator.config if self._generator else None

    @property
    def at_once(self) -> int:
        """Those that are encoded together, and those that workers have."""
        return self._generator.batch_size + self._generator.workers if self._generator else 1

    @property
    def per_image(self) -> float:
        """A moving average."""
        return self._pace.per_image / max(1, len(self._workers))

    @property
    def is_alive(self) -> bool:
        """Whether all workers run, once there is a generator."""
        if self.is_closing or self.failure is not None:
            return False
        return self._generator is None or self.live_workers == len(self._workers) > 0

    @property
    def live_workers(self) -> int:
        """How many worker threads run."""
        return sum(worker.is_alive() for worker in self._workers)

    def generate(
        self, image: NDArray[np.uint8], ticket: Ticket | None = None, config: GeneratorConfig | None = None
    ) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3]. A worker goes on to the next image while this thread makes records.

        `config` has all of the generator's parameters for this image; None for those of the server.
        The ticket says until when the answer is of use, `request_timeout` from now without one. Raises what the
        generator raised, and RequestError: timeout (504), out_of_memory, cancelled, shutting_down or failed (503).
        """
        ticket = ticket or Ticket(time.monotonic() + self.limits.request_timeout)
        job = Job(image, ticket, config)
        ticket.enter("queued")
        if not self._queue.put(job):
            raise self.ended()
        try:
            pending = job.wait(self.limits.request_timeout)
        finally:
            self._queue.forget(job)
        ticket.enter("rendering")
        try:
            return pending()
        except MemoryError as error:
            raise out_of_memory() from error
        except Exception:
            raise
        except BaseException as error:
            raise for_caller(error) from error

    def close(self, timeout: float | None = None) -> bool:
        """Ends the workers, too."""
        end = time.monotonic() + (self.limits.drain_timeout if timeout is None else timeout)
        answered = super().close(timeout)
        for worker in self._workers:
            worker.join(max(0.0, end - time.monotonic()))
        return answered

    def measures(self) -> Iterator[Metric]:
        """Workers, compilations, and the memory of the device."""
        yield gauge("workers", "Worker threads that are alive", self.live_workers)
        yield CounterMetricFamily("sam2_amg_retries", "Images tried again with less memory", self._pace.retries)
        yield CounterMetricFamily("sam2_amg_compilations", "Subgraphs and kernels compiled", count_compilations())
        yield gauge("encoded_together", "Images encoded at a time, the latest", self._pace.latest_batch)
        if torch.cuda.is_initialized():
            yield gauge("device_memory_bytes", "Memory of the GPU that tensors take", torch.cuda.memory_allocated())
            yield gauge("device_memory_held_bytes", "Memory of the GPU that torch keeps", torch.cuda.memory_reserved())

    def _stop_watching(self) -> None:
        self._watchdog.end()
