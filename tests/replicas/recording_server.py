"""server.py with replicas that write down what they are asked, when, and by which process.

python tests/replicas/recording_server.py CALLS [flags of server.py]
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from sam2_amg.cli.serve import parse
from sam2_amg.process.logs import start_log
from sam2_amg.replicas.backend import ReplicaBackend
from sam2_amg.replicas.runtime import set_environment
from sam2_amg.server.startup import serve


def main(calls: str, arguments: list[str]) -> None:
    """Serves until a signal drains it."""
    start_log()
    config = parse(arguments)
    assert config.replicas is not None
    set_environment(config.replicas)
    from sam2_amg.replicas.replica import Replica

    class RecordingReplica(Replica):
        def answer(self, call: Any, ticket: Any) -> Any:
            with open(calls, "a") as file:
                file.write(f"{time.time()} {os.getpid()} {call.request_id}\n")
            return super().answer(call, ticket)

    serve(config, ReplicaBackend(config, config.replicas, RecordingReplica))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
