"""Images that running servers segment."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from sam2_amg.batch.items import Item, Problem, Result
from sam2_amg.batch.servers.segmenter import RemoteError, RemoteSegmenter
from sam2_amg.batch.work import Finish, Finished
from sam2_amg.config import Limits
from sam2_amg.decoding.decode import decode_image
from sam2_amg.errors import RequestError


class RemoteWork:
    """Sends images to servers, as many at a time as these take, and makes rows of their answers.

    If the output draws on images, they are decoded here, too.
    """

    group_size = 1

    def __init__(
        self,
        servers: RemoteSegmenter,
        at_once: int,
        limits: Limits,
        stretch: str | None,
        finish: Finish,
        keep_image: bool,
    ) -> None:
        """`at_once` is how many images are sent at a time."""
        self.servers, self.limits, self.stretch, self.finish = servers, limits, stretch, finish
        self.keep_image = keep_image
        self.most_under_way = 2 * at_once
        self._asking = ThreadPoolExecutor(at_once, "ask")

    def start(self, group: Sequence[Item]) -> list[Future[Finished]]:
        """Sends images; what they become, in their order."""
        return [self._asking.submit(self._segment, item) for item in group]

    def close(self) -> None:
        """Drops what is not begun."""
        self._asking.shutdown(wait=False, cancel_futures=True)

    def _segment(self, item: Item) -> Finished:
        if isinstance(item.data, Problem):
            return self.finish(Result(item.name, "", None, item.data))
        sha256 = hashlib.sha256(item.data).hexdigest()
        begun = time.perf_counter()
        try:
            answer = self.servers.segment(item.name, item.data)
        except RemoteError as error:
            return self.finish(Result(item.name, sha256, None, Problem(error.code, error.message)))
        milliseconds = {**answer.milliseconds, "request": round((time.perf_counter() - begun) * 1e3, 3)}
        try:
            image = decode_image(item.data, self.limits, self.stretch) if self.keep_image else None
        except RequestError as error:  # the server reads more than this process does
            return self.finish(Result(item.name, sha256, answer.size, Problem(error.code, error.message), milliseconds))
        return self.finish(Result(item.name, sha256, answer.size, answer.records, milliseconds, image))
