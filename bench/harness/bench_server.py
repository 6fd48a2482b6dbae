"""The product's server around what benchmarks put in it: `python -m bench.harness.bench_server KIND [flags of serve]`.

KIND is `instant` (it answers at once) or `planted` (decoder outputs are planted), in this process or in replicas.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from importlib import import_module

from sam2_amg.cli.serve import parse
from sam2_amg.config import ReplicaConfig, ServerConfig
from sam2_amg.pipeline.host_memory import use_huge_pages, use_one_heap
from sam2_amg.replicas.fleet import Fleet, wait_until_ready
from sam2_amg.replicas.runtime import connected
from sam2_amg.server.desk import Desk
from sam2_amg.server.failure import end_process
from sam2_amg.server.startup import Backend, LocalBackend, serve
from sam2_amg.signals import exit_on_signals

_CLASSES = {"instant": "InstantReplica", "planted": "PlantedReplica"}


class BenchBackend:
    """Has Ray run replicas of a class of ours, as `ReplicaBackend` runs the product's."""

    def __init__(self, config: ServerConfig, replicas: ReplicaConfig, kind: str) -> None:
        self._config, self._replicas, self._kind = config, replicas, kind
        self._fleet = Fleet(config.limits, end_process)
        self._stack = ExitStack()
        self.desk = Desk(self._fleet, self._fleet)

    def start(self) -> None:
        """Returns with the first replica. Raises StartupError."""
        self._stack.enter_context(connected(self._replicas, self._config.model.device))
        exit_on_signals()
        from sam2_amg.replicas.deployment import deployed  # imports Ray

        replica = getattr(import_module(f"bench.harness.{self._kind}_replica"), _CLASSES[self._kind])
        at_work = self._stack.enter_context(deployed(self._config, self._replicas, replica))
        self._fleet.start(at_work.handle, at_work.look)
        wait_until_ready(self._fleet, at_work.problem)

    def end(self) -> bool:
        """Ends the replicas."""
        self._stack.close()
        return True


def backend_of(kind: str, config: ServerConfig) -> Backend:
    """What makes the answers."""
    if config.replicas is not None:
        return BenchBackend(config, config.replicas, kind)
    if kind == "instant":
        from bench.harness.instant import InstantBackend

        return InstantBackend(config)
    from bench.harness.planted_server import plant_in_this_process

    plant_in_this_process()
    return LocalBackend(config)


def main() -> None:
    """The command line."""
    use_one_heap()
    use_huge_pages()
    kind, *flags = sys.argv[1:]
    config = parse(flags)
    serve(config, backend_of(kind, config))


if __name__ == "__main__":
    main()
