"""Images that are decoded and segmented in this process, a few stages at once."""

from __future__ import annotations

import hashlib
import itertools
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_amg.answers.filters import Filters, filtered
from sam2_amg.answers.options import Options, Segmented
from sam2_amg.answers.runs import with_counts
from sam2_amg.batch.ahead import Ahead, Held
from sam2_amg.batch.items import Item, Problem, Result
from sam2_amg.batch.work import Finish, Finished
from sam2_amg.config import Limits
from sam2_amg.decoding.decode import decode_image
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.demo import EXAMPLE
from sam2_amg.errors import RequestError, StartupError, first_line
from sam2_amg.modes.warmup import warm_up
from sam2_amg.pipeline.base import Generator, PendingResult
from sam2_amg.pipeline.device_errors import is_out_of_memory

logger = logging.getLogger(__name__)
Image = NDArray[np.uint8]
# Times that an image is decoded until it gets the error of a code, which may come of what else the machine does: no
# decoder is free, or one was killed or stopped.
_TRIES = {"decoders_busy": 30, "internal_error": 4, "timeout": 3}
_FINISHERS = 2  # threads that make rows: more would wait for each other
_AHEAD = 2  # groups of images that are decoded ahead of each thread that segments
_COMPRESSED = Options(counts="compressed")


@dataclass
class _Path:
    """One image on its way."""

    item: Item
    held: Held
    sha256: str = ""
    image: Image | Problem = field(default_factory=lambda: Problem("none", "nothing was decoded"))
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int] | None:
        return None if isinstance(self.image, Problem) else (self.image.shape[0], self.image.shape[1])

    @property
    def bytes(self) -> int:
        """Of the decoded pixels."""
        return 0 if isinstance(self.image, Problem) else self.image.nbytes


class LocalWork:
    """Decodes in processes, segments in the threads that the generator allows, and makes rows in threads of their own.

    The images of a group are encoded together. Raises StartupError from `finished.result()` if the device has failed.
    """

    def __init__(
        self,
        generator: Generator,
        decoders: DecoderPool,
        device: torch.device,
        filters: Filters,
        stretch: str | None,
        finish: Finish,
        keep_image: bool,
    ) -> None:
        self.generator, self.decoders, self.device = generator, decoders, device
        self.filters, self.stretch, self.finish, self.keep_image = filters, stretch, finish, keep_image
        self.group_size = generator.batch_size
        self.most_under_way = (
            max(2 * decoders.size, (1 + _AHEAD) * generator.workers * generator.batch_size) + _FINISHERS
        )
        self._ahead = Ahead(decoders.size, decoders.budget.total)
        self._decoding = ThreadPoolExecutor(decoders.size, "decode")
        self._segmenting = ThreadPoolExecutor(generator.workers, "segment")
        self._finishing = ThreadPoolExecutor(_FINISHERS, "finish")

    def warm_up(self) -> None:
        """Runs a first image in every thread that segments, and in every decoder."""
        data = EXAMPLE.read_bytes()
        all_there = threading.Barrier(self.generator.workers)

        def first() -> None:
            try:
                warm_up(self.generator, decode_image(data, Limits()), self.device)
            except BaseException:
                all_there.abort()
                raise
            all_there.wait()

        started = [self._segmenting.submit(first) for _ in range(self.generator.workers)]
        errors = [error for each in started if (error := each.exception()) is not None]
        for error in sorted(errors, key=lambda each: isinstance(each, threading.BrokenBarrierError)):
            raise error
        self.decoders.warm_up(data)

    def start(self, group: Sequence[Item]) -> list[Future[Finished]]:
        """Begins with a group of at most `group_size` images; what they become, in their order.

        Waits while earlier ones have too many pixels in memory.
        """
        paths = [_Path(item, held) for item, held in zip(group, self._ahead.begin(len(group)), strict=True)]
        finished: list[Future[Finished]] = [Future() for _ in paths]
        for path, future in zip(paths, finished, strict=True):
            future.add_done_callback(partial(self._let_go, path.held))
        decoded = [self._decoding.submit(self._decode, path) for path in paths]
        self._segmenting.submit(self._segment_group, paths, decoded, finished)
        return finished

    def _let_go(self, held: Held, _finished: Future[Finished]) -> None:
        self._ahead.finished(held)

    def close(self) -> None:
        """Drops what is not begun."""
        for pool in (self._decoding, self._segmenting, self._finishing):
            pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, path: _Path) -> None:
        try:
            self._read_pixels(path)
        finally:
            self._ahead.decoded(path.held, path.bytes)

    def _read_pixels(self, path: _Path) -> None:
        if isinstance(path.item.data, Problem):
            path.image = path.item.data
            return
        begun = time.perf_counter()
        path.sha256 = hashlib.sha256(path.item.data).hexdigest()
        for tried in itertools.count(1):
            try:
                with self.decoders.decoded(path.item.data, stretch=self.stretch) as image:
                    path.image = image
                break
            except RequestError as error:
                if tried >= _TRIES.get(error.code, 1):
                    path.image = Problem(error.code, error.message)
                    break
                time.sleep(error.retry_after or 1)
        path.item = Item(path.item.name, b"")
        path.milliseconds["decode"] = _since(begun)

    def _segment_group(self, paths: list[_Path], decoded: list[Future[None]], finished: list[Future[Finished]]) -> None:
        try:
            for each in decoded:
                each.result()
            self._segment_images(paths, finished)
        except BaseException as error:
            for future in finished:
                if not future.done():
                    future.set_exception(error)

    def _segment_images(self, paths: list[_Path], finished: list[Future[Finished]]) -> None:
        begun = time.perf_counter()
        images = [path.image for path in paths if not isinstance(path.image, Problem)]
        features = iter(self._encode(images))
        encoding = _since(begun) / max(1, len(images))
        for path, future in zip(paths, finished, strict=True):
            pending: PendingResult | Problem
            if isinstance(path.image, Problem):
                pending = path.image
            else:
                begun = time.perf_counter()
                pending = self._segment(path.image, next(features))
                path.milliseconds["segment"] = round(encoding + _since(begun), 3)
            self._finishing.submit(self._resolve, path, pending, future)

    def _encode(self, images: list[Image]) -> Sequence[Any]:
        if len(images) <= 1:
            return [None] * len(images)
        try:
            return self.generator.encode(images)
        except Exception as error:  # of one of them, perhaps: each is encoded by itself
            logger.exception("encoding %d images together failed", len(images))
            self._require_device(error)
            return [None] * len(images)

    def _segment(self, image: Image, features: Any) -> PendingResult | Problem:
        """What makes the records. After a lack of memory it tries once more, with less."""
        for attempt in (partial(self.generator.segment, image, features), partial(self._with_less_memory, image)):
            try:
                return attempt()
            except Exception as error:
                if not is_out_of_memory(error):
                    logger.exception("generating masks failed")
                    self._require_device(error)
                    return Problem("internal_error", f"The generator raised {type(error).__name__}; the log says more.")
        return Problem("out_of_memory", "The device has too little memory for this image; send a smaller one.")

    def _with_less_memory(self, image: Image) -> PendingResult:
        return self.generator.segment_with_less_memory(image)

    def _require_device(self, error: Exception) -> None:
        """Raises StartupError if an error has made the device useless."""
        if is_out_of_memory(error):
            return
        try:
            self.generator.require_device()
        except Exception as found:
            message = f"the device does not work any more ({first_line(found)}); start the job again, and it goes on"
            raise StartupError(message) from found

    def _resolve(self, path: _Path, pending: PendingResult | Problem, future: Future[Finished]) -> None:
        try:
            future.set_result(self._finished(path, pending))
        except BaseException as error:
            future.set_exception(error)

    def _finished(self, path: _Path, pending: PendingResult | Problem) -> Finished:
        try:
            return self.finish(self._result(path, pending))
        except StartupError:
            raise
        except Exception as error:
            logger.exception("making the row of an image failed")
            problem = Problem("internal_error", f"Making the row raised {type(error).__name__}; the log says more.")
            return self.finish(Result(path.item.name, path.sha256, path.size, problem, path.milliseconds))

    def _result(self, path: _Path, pending: PendingResult | Problem) -> Result:
        begun = time.perf_counter()
        size = path.size
        if isinstance(pending, Problem) or size is None:
            found: Any = pending
        else:
            records = filtered(pending(), size, self.filters)
            found = with_counts(Segmented(records, size, options=_COMPRESSED), "compressed")
            path.milliseconds["answer"] = _since(begun)
        image = path.image if self.keep_image and not isinstance(path.image, Problem) else None
        return Result(path.item.name, path.sha256, size, found, path.milliseconds, image)


def _since(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1e3, 3)
