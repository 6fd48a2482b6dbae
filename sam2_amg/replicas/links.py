"""The front's side of the connections to replicas."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection

from sam2_amg.replicas.channel import INTRODUCTION, Channel, ChannelLost, connect
from sam2_amg.replicas.messages import Call, ReplicaState, Reply
from sam2_amg.server.ticket import Ticket

_AT_ONCE = 0.5  # seconds
_LEAST = 1e-3  # seconds; 0 would be no limit


class Links:
    """Connections to replicas, kept to be used again. Safe to use from many threads."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._idle: defaultdict[str, list[Channel]] = defaultdict(list)  # by ReplicaState.started
        self._busy: set[Channel] = set()
        self._has_ended = False
        self._lock = threading.Lock()

    def ask(self, replica: ReplicaState, call: Call, ticket: Ticket) -> Reply:
        """A replica's reply to a call. Raises ChannelLost, also when the ticket is cancelled or its time is over."""
        channel = self._take(replica, ticket)
        is_whole = False
        try:
            with ticket.calling_on_cancel(channel.end):
                channel.limit(max(_LEAST, ticket.remaining))
                channel.send(call)
                channel.limit(max(_LEAST, ticket.remaining))
                reply: Reply = channel.receive()
            is_whole = not ticket.cancelled.is_set()  # else it may be ended at any time
            return reply
        finally:
            self._give_back(replica, channel, is_whole)

    def reaches(self, replica: ReplicaState) -> bool:
        """Whether a replica takes a new connection at once, so that no more than an old one was lost."""
        try:
            channel = self._connect(replica, _AT_ONCE)
        except ChannelLost:
            return False
        self._give_back(replica, channel, True)
        return True

    def _take(self, replica: ReplicaState, ticket: Ticket) -> Channel:
        with self._lock:
            idle = self._idle[replica.started]
            channel = idle.pop() if idle else None
        if channel is None:
            channel = self._connect(replica, max(_LEAST, min(INTRODUCTION, ticket.remaining)))
        with self._lock:
            self._busy.add(channel)
            if self._has_ended:
                channel.end()
        return channel

    def _connect(self, replica: ReplicaState, seconds: float) -> Channel:
        assert replica.address is not None
        return connect(replica.address, self._key, seconds)

    def _give_back(self, replica: ReplicaState, channel: Channel, is_whole: bool) -> None:
        with self._lock:
            self._busy.discard(channel)
            if is_whole and not self._has_ended:
                self._idle[replica.started].append(channel)
                return
        channel.close()

    def keep(self, started: Collection[str]) -> None:
        """Closes the connections that wait to be used again, of all replicas but these."""
        with self._lock:
            gone = [self._idle.pop(name) for name in list(self._idle) if name not in started]
        for channel in (each for idle in gone for each in idle):
            channel.close()

    def end(self) -> None:
        """Has whoever waits for a reply find it lost."""
        with self._lock:
            self._has_ended = True
            for channel in self._busy:
                channel.end()
        self.keep(())
