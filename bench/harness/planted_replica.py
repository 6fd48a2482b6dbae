"""A replica with planted decoder outputs. Imports Ray."""

from __future__ import annotations

from bench.harness.planted_server import plant_in_this_process
from sam2_amg.replicas.replica import Replica


class PlantedReplica(Replica):
    """The product's, around another decoder."""

    def _start(self) -> None:
        plant_in_this_process()
        super()._start()
