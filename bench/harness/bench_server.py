"""The product's server around what benchmarks put in it: `python -m bench.harness.bench_server KIND [flags of serve]`.

KIND is `instant` (it answers at once) or `planted` (decoder outputs are planted), in this process or in replicas.
"""

from __future__ import annotations

import sys
from importlib import import_module

from sam2_amg.cli.serve import parse
from sam2_amg.config import ServerConfig
from sam2_amg.pipeline.host_memory import use_huge_pages, use_one_heap
from sam2_amg.replicas.backend import ReplicaBackend
from sam2_amg.replicas.runtime import set_environment
from sam2_amg.server.startup import Backend, LocalBackend, serve

_CLASSES = {"instant": "InstantReplica", "planted": "PlantedReplica"}


def backend_of(kind: str, config: ServerConfig) -> Backend:
    """What makes the answers."""
    if config.replicas is not None:
        set_environment(config.replicas)  # before Ray is imported
        replica = getattr(import_module(f"bench.harness.{kind}_replica"), _CLASSES[kind])
        return ReplicaBackend(config, config.replicas, replica)
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
