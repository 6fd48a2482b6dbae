"""The server's answers from replicas."""

from __future__ import annotations

import secrets
from contextlib import ExitStack

from sam2_amg.config import ReplicaConfig, ServerConfig
from sam2_amg.process.signals import exit_on_signals
from sam2_amg.replicas.files import files_of
from sam2_amg.replicas.fleet import Fleet, wait_until_ready
from sam2_amg.replicas.runtime import connected
from sam2_amg.server.desk import Desk
from sam2_amg.server.failure import end_process


class ReplicaBackend:
    """Has Ray run replicas, and hands images to them."""

    def __init__(self, config: ServerConfig, replicas: ReplicaConfig, kind: type | None = None) -> None:
        """`kind` is the class of replicas, `replicas.replica.Replica` or one derived of it."""
        self._config, self._replicas, self._kind = config, replicas, kind
        self._key = secrets.token_bytes(32)
        self._fleet = Fleet(config.limits, self._key, end_process)
        self._stack = ExitStack()
        self.desk = Desk(self._fleet, self._fleet)

    def start(self) -> None:
        """Returns with the first replica. Raises StartupError."""
        fleet, config = self._fleet, self._config
        fleet.report("checking the model's files")
        files = files_of(config.model)
        fleet.report("starting Ray")
        self._stack.enter_context(connected(self._replicas, config.model.device, config.log_format))
        exit_on_signals()  # Ray has put handlers of its own
        from sam2_amg.replicas.deployment import deployed  # imports Ray, which is an extra
        from sam2_amg.replicas.replica import Replica

        fleet.report("starting replicas")
        kind = self._kind or Replica
        running = self._stack.enter_context(deployed(config, self._replicas, files, self._key, kind))
        fleet.start(running.look)
        wait_until_ready(fleet, running.problem)

    def end(self) -> bool:
        """Ends the replicas; True: nothing is left to wait for."""
        self._stack.close()
        return True
