"""The Ray Serve application: a deployment of replicas, and the registry that they report to."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import cloudpickle, serve
from ray.serve.config import AutoscalingPolicy
from ray.serve.schema import LoggingConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sam2_amg.config import ReplicaConfig, ServerConfig
from sam2_amg.replicas import scaling
from sam2_amg.replicas.files import ModelFiles
from sam2_amg.replicas.messages import Seen
from sam2_amg.replicas.ports import VARIABLE
from sam2_amg.replicas.registry import Registry
from sam2_amg.replicas.replica import Replica, ReplicaPlan, take_down
from sam2_amg.replicas.runtime import options_for

_DEPLOYMENT = "replica"
_CHECK_EVERY, _CHECK_WITHIN = 5.0, 10.0  # seconds; three checks in vain replace a replica
_LEAVING = 5.0  # seconds that a replica takes to leave beside those in which it answers what it has
_PATIENCE = 5.0  # seconds for the registry to answer
_LOOPBACK = "127.0.0.1"
_AT_ONCE = 16  # calls of the registry: one that reads a file keeps no other waiting


@dataclass(frozen=True)
class Deployed:
    """The application while it runs. `problems` says why Ray could not start it."""

    registry: Any
    problems: list[str]

    def look(self, load: int) -> list[Seen]:
        """All replicas; they hear of the front, and that it has `load` images. Raises what Ray raises."""
        return ray.get(self.registry.look.remote(load), timeout=_PATIENCE)

    def problem(self) -> str | None:
        """Why it cannot start; None if it can."""
        return self.problems[0] if self.problems else None


@contextmanager
def deployed(
    config: ServerConfig, replicas: ReplicaConfig, files: ModelFiles, key: bytes, kind: type = Replica
) -> Iterator[Deployed]:
    """Replicas of this `kind`, on the cluster that this process is connected to, until the end of the block.

    Returns at once; `Deployed.look` says which are ready. `files` are those of the model. Replicas take calls from
    whoever knows the `key`.
    """
    app = f"sam2_amg_{uuid.uuid4().hex[:8]}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    registry = (
        ray.remote(Registry).options(num_cpus=0, max_concurrency=_AT_ONCE, scheduling_strategy=here).remote(files.paths)
    )
    is_ours = not _is_running()
    serve.start(proxy_location="Disabled", logging_config=_logging())
    cache = config.compile_cache and config.compile_cache.absolute()  # replicas may be in another folder
    host = _LOOPBACK if replicas.ray_address is None else None
    plan = ReplicaPlan(replace(config, compile_cache=cache), files, app, is_ours, host, key)
    bound = _deployment(kind, config, replicas).bind(plan, registry)
    problems: list[str] = []
    threading.Thread(target=_run, args=(bound, app, problems), name="deploy", daemon=True).start()
    try:
        yield Deployed(registry, problems)
    finally:
        if replicas.ray_address is not None:  # else it ends with Ray
            with suppress(Exception):
                take_down(app, is_ours)


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
        cloudpickle.register_pickle_by_value(scaling)  # Ray Serve's controller may run without this package
        counts = {
            "autoscaling_config": {
                "min_replicas": replicas.least,
                "max_replicas": replicas.most,
                "policy": AutoscalingPolicy(policy_function=scaling.wanted_replicas),
                "metrics_interval_s": 2,
                "look_back_period_s": 10,
                "upscale_delay_s": 10,
                "downscale_delay_s": 300,
            }
        }
    return serve.deployment(kind).options(  # type: ignore[attr-defined]
        name=_DEPLOYMENT,
        health_check_period_s=_CHECK_EVERY,
        health_check_timeout_s=_CHECK_WITHIN,
        graceful_shutdown_timeout_s=config.limits.drain_timeout + _LEAVING,
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
