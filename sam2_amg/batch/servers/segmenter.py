"""Has running servers segment images, and tries again while they are busy, restart or fail."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import urllib3
from urllib3.exceptions import InvalidHeader

from sam2_amg.batch.servers.client import Answer, Client, RemoteError, Setback
from sam2_amg.batch.servers.pool import NoServerAnswers, RemoteServer, Servers, no_server
from sam2_amg.errors import StartupError

__all__ = ["Answer", "NoServerAnswers", "RemoteError", "RemoteSegmenter"]

logger = logging.getLogger("sam2_amg.batch")
_STRIKES = 4  # times that an image fails in ways that may be its own fault
_JITTER = 0.5  # seconds
_MACHINE = {"points_per_batch", "mask_memory_mib"}  # parameters that do not change the answer


class RemoteSegmenter:
    """Asks servers for the masks of images. Safe to use from many threads; those beyond `per_server` for each server
    wait."""

    def __init__(
        self,
        servers: Sequence[str],
        parameters: Mapping[str, str],
        api_key: str | None = None,
        per_server: int = 8,
        timeout: float = 660.0,
        patience: float = 600.0,
    ) -> None:
        """`parameters` are those of a request, without format and counts. `timeout` is that of an answer in seconds,
        more than the servers' --request_timeout. `patience` is the seconds in which an image is sent again.
        Raises StartupError for a wrong address."""
        self._servers = Servers(servers, per_server)
        self._asked = frozenset(parameters)
        self._patience = patience
        self._facts: dict[str, Any] = {}  # of all servers, once they are described
        self._client = Client(parameters, api_key, len(self._servers.all), per_server, timeout)
        # It says how long to wait; which server is asked next is chosen anew each time.
        self._retry = urllib3.Retry(
            None, backoff_factor=0.5, backoff_max=15, backoff_jitter=_JITTER, retry_after_max=30
        )

    def segment(self, item_name: str, data: bytes) -> Answer:
        """The masks of an image file. `item_name` is for messages.

        Raises RemoteError if the image is refused, or fails several times; NoServerAnswers if no server takes it;
        StartupError for what every image would get, as a wrong key.
        """
        deadline = time.monotonic() + self._patience
        retry, strikes, was_one_ready = self._retry, 0, False
        avoid: set[RemoteServer] = set()
        while True:
            with self._servers.lend(avoid, deadline) as server:
                if retry is self._retry:  # the first time; the wait for a free place does not count
                    deadline = time.monotonic() + self._patience
                outcome = self._ask(server, data)
            if isinstance(outcome, Answer):
                return outcome
            strikes += outcome.fault is not None
            if outcome.fault is not None and strikes >= _STRIKES and (outcome.is_certain or was_one_ready):
                raise outcome.fault
            if time.monotonic() > deadline:
                if outcome.fault is not None and (outcome.is_certain or self._is_one_ready()):
                    raise outcome.fault  # an answer that takes as long as this is the image's own fault
                raise NoServerAnswers(f"{item_name}: {no_server(self._servers.all)}")
            retry = retry.increment("POST", server.url, outcome.response)
            avoid.add(server)
            if not self._servers.has_other(avoid):
                self._servers.pause(_seconds(retry, outcome.response))
                avoid.clear()
            was_one_ready = strikes >= _STRIKES - 1 and not outcome.is_certain and self._is_one_ready()

    def describe(self) -> dict[str, Any]:
        """What all servers do: model, mode, weights_sha256, and the generator's `parameters` that are not asked for.
        Waits for servers that start.

        Raises StartupError if servers differ in these, refuse the parameters or the key, or do not answer.
        """
        deadline = time.monotonic() + self._patience
        first, *others = self._servers.all
        facts = self._facts_of(first, deadline)
        for other in others:
            theirs = self._facts_of(other, deadline)
            if different := _differences(facts, theirs):
                raise StartupError(f"--server {first.url} and {other.url} differ in {different}; start them alike")
        self._facts = facts
        own = {key: value for key, value in facts.items() if key not in ("model", "mode", "weights_sha256")}
        return {key: value for key, value in facts.items() if key not in own} | {"parameters": own}

    def close(self) -> None:
        """Ends the waiting of all threads, by NoServerAnswers. Answers under way are still taken."""
        self._servers.close()
        self._client.close()

    def _ask(self, server: RemoteServer, data: bytes) -> Answer | Setback:
        outcome = self._client.segment(server.url, data)
        if isinstance(outcome, Answer):
            if server.may_be_another and self._facts and (reason := self._change_of(server)):
                return Setback(reason, is_down=True)
            server.may_be_another = False
            self._servers.answered(server)
            return outcome
        server.may_be_another |= outcome.response is None  # the connection is lost, or there is none
        if outcome.is_down:
            self._servers.failed(server, outcome.reason)
        else:
            server.reason = outcome.reason
        return outcome

    def _change_of(self, server: RemoteServer) -> str:
        """Asks again what a server does, which may have been started anew. Why it cannot be asked, or nothing.

        Raises StartupError if that is not what it did when the job began.
        """
        if reason := self._client.is_ready(server.url):
            return reason
        try:
            found = self._current(server)
        except StartupError as error:
            return str(error)
        if different := _differences(self._facts, found):
            way_out = "start it as it was, then the same command again: it goes on where it stopped"
            raise StartupError(f"--server {server.url} has changed in {different}; {way_out}")
        return ""

    def _is_one_ready(self) -> bool:
        """Whether a server works: if it does not answer to an image then, that is the image's fault."""
        return any(not self._client.is_ready(server.url) for server in self._servers.all)

    def _facts_of(self, server: RemoteServer, deadline: float) -> dict[str, Any]:
        """Model, mode, weights and parameters of a server, when it is ready and takes what will be asked."""
        while reason := self._client.is_ready(server.url) or self._refusal(server):
            if not server.reason:
                logger.warning("waiting up to %.0f s for %s (%s)", self._patience, server.url, reason)
            server.reason = reason
            if time.monotonic() >= deadline:
                raise no_server([server])
            self._servers.pause(1.0)
        return self._current(server)

    def _current(self, server: RemoteServer) -> dict[str, Any]:
        info = self._client.info(server.url)
        facts = {"model": info["model"], "mode": info["mode"], "weights_sha256": (info["weights"] or {}).get("sha256")}
        return facts | {
            key: info["parameters"][key] for key in sorted(info["parameters"].keys() - self._asked - _MACHINE)
        }

    def _refusal(self, server: RemoteServer) -> str:
        setback = self._client.require_parameters(server.url)
        return "" if setback is None else setback.reason


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    return ", ".join(f"{key} ({ours.get(key)} and {theirs.get(key)})" for key in keys)


def _seconds(retry: urllib3.Retry, response: urllib3.BaseHTTPResponse | None) -> float:
    """How long to wait: as Retry-After says, else longer each time; not all threads alike."""
    try:
        asked = retry.get_retry_after(response) if response is not None else None
    except InvalidHeader:
        asked = None
    return retry.get_backoff_time() if asked is None else asked + random.uniform(0, _JITTER)
