"""The front's side of the connections to replicas."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection

from sam2_amg.replicas.channel import Channel, connect
from sam2_amg.replicas.messages import Call, ReplicaState, Reply
from sam2_amg.server.ticket import Ticket


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
        channel = self._take(replica)
        is_whole = False
        try:
            with ticket.calling_on_cancel(channel.end):
                channel.limit(max(1e-3, ticket.remaining))
                channel.send(call)
                reply: Reply = channel.receive()
            is_whole = True
            return reply
        finally:
            self._give_back(replica, channel, is_whole)

    def _take(self, replica: ReplicaState) -> Channel:
        with self._lock:
            idle = self._idle[replica.started]
            channel = idle.pop() if idle else None
        if channel is None:
            assert replica.address is not None
            channel = connect(replica.address, self._key)
        with self._lock:
            self._busy.add(channel)
            if self._has_ended:
                channel.end()
        return channel

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
        self.keep(())
        with self._lock:
            self._has_ended = True
            for channel in self._busy:
                channel.end()
