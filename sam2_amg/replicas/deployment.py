"""The Ray Serve application: a deployment of replicas, and the registry that they report to."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sam2_amg.config import ReplicaConfig, ServerConfig
from sam2_amg.errors import StartupError
from sam2_amg.replicas.files import ModelFiles
from sam2_amg.replicas.messages import Seen
from sam2_amg.replicas.ports import VARIABLE
from sam2_amg.replicas.registry import Registry
from sam2_amg.replicas.replica import Replica, ReplicaPlan, take_down
from sam2_amg.replicas.runtime import options_for

_DEPLOYMENT = "replica"
_CHECK_EVERY, _CHECK_WITHIN = 5.0, 10.0  # seconds; three checks in vain replace a replica
_APPEARS = 60.0  # seconds for Ray Serve to know of the deployment
_PATIENCE = 5.0  # seconds for the registry to answer
# A replica that is full makes Ray Serve's router wait, longer each time: the front bounds what is sent instead.
_NEVER_FULL = 100_000
_AT_ONCE = 16  # calls of the registry: one that reads a file keeps no other waiting


@dataclass(frozen=True)
class Deployed:
    """The application while it runs. `problems` says why Ray could not start it."""

    handle: Any
    registry: Any
    problems: list[str]

    def look(self) -> list[Seen]:
        """All replicas. Raises what Ray raises."""
        return ray.get(self.registry.look.remote(), timeout=_PATIENCE)

    def problem(self) -> str | None:
        """Why it cannot start; None if it can."""
        return self.problems[0] if self.problems else None


@contextmanager
def deployed(
    config: ServerConfig, replicas: ReplicaConfig, files: ModelFiles, kind: type = Replica
) -> Iterator[Deployed]:
    """Replicas of this `kind`, on the cluster that this process is connected to, until the end of the block.

    Returns at once; `Deployed.look` says which are ready. `files` are those of the model.
    """
    app = f"sam2_amg_{uuid.uuid4().hex[:8]}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    registry = (
        ray.remote(Registry).options(num_cpus=0, max_concurrency=_AT_ONCE, scheduling_strategy=here).remote(files.paths)
    )
    is_ours = not _is_running()
    serve.start(proxy_location="Disabled", logging_config=_logging())
    cache = config.compile_cache and config.compile_cache.absolute()  # replicas may be in another folder
    plan = ReplicaPlan(replace(config, compile_cache=cache), files, app, is_ours)
    bound = _deployment(kind, config, replicas).bind(plan, registry)
    problems: list[str] = []
    threading.Thread(target=_run, args=(bound, app, problems), name="deploy", daemon=True).start()
    try:
        yield Deployed(_handle(app, problems), registry, problems)
    finally:
        if replicas.ray_address is not None:  # else it ends with Ray
            with suppress(Exception):
                take_down(app, is_ours)


def _handle(app: str, problems: list[str]) -> Any:
    """What replicas are asked by. Waits until Ray Serve knows of them. Raises StartupError if it does not."""
    end = time.monotonic() + _APPEARS
    while not problems and time.monotonic() < end:
        with suppress(KeyError):
            return serve.get_deployment_handle(_DEPLOYMENT, app)
        time.sleep(0.05)
    raise StartupError(problems[0] if problems else f"Ray Serve has not begun to start replicas within {_APPEARS:g} s")


def _is_running() -> bool:
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def _run(bound: Any, app: str, problems: list[str]) -> None:
    try:
        serve.run(bound, name=app, route_prefix=None)
    except Exception as error:  # of Ray there are many kinds
        lines = [line for line in str(error).splitlines() if line.strip()]
        problems.append(f"Ray cannot start the replicas: {lines[-1] if lines else type(error).__name__}")


def _deployment(kind: type, config: ServerConfig, replicas: ReplicaConfig) -> Any:
    counts: dict[str, Any] = {"num_replicas": replicas.most}
    if replicas.least < replicas.most:
        counts = {
            "autoscaling_config": {
                "min_replicas": replicas.least,
                "max_replicas": replicas.most,
                "target_ongoing_requests": 2,
                "upscale_delay_s": 10,
                "downscale_delay_s": 300,
            }
        }
    return serve.deployment(kind).options(  # type: ignore[attr-defined]
        name=_DEPLOYMENT,
        max_ongoing_requests=_NEVER_FULL,
        health_check_period_s=_CHECK_EVERY,
        health_check_timeout_s=_CHECK_WITHIN,
        graceful_shutdown_timeout_s=config.limits.drain_timeout,
        logging_config=_logging(),
        ray_actor_options={**options_for(config.model.device), "runtime_env": {"env_vars": _variables(replicas)}},
        **counts,
    )


def _logging() -> LoggingConfig:
    return LoggingConfig(log_level="WARNING", enable_access_log=False)


def _variables(replicas: ReplicaConfig) -> dict[str, str]:
    """The environment of replicas. Ray gives each one thread otherwise."""
    variables = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
    if replicas.ray_address is None:
        cores = len(os.sched_getaffinity(0))
        variables = {"OMP_NUM_THREADS": str(max(1, cores // replicas.most)), VARIABLE: "1"} | variables
    return variables
