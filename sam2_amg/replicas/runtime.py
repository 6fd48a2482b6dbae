"""Ray: connects this process to a cluster, or starts Ray on this host."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sam2_amg.config import ReplicaConfig
from sam2_amg.errors import StartupError, first_line

logger = logging.getLogger(__name__)
_NAMESPACE = "sam2_amg"
_OBJECT_STORE = 1 << 30  # bytes of shared memory, at most, for what is too large for a message
_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_ON_THIS_HOST = {
    "RAY_AUTH_MODE": "token",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # after which this process ends if Ray was killed
    # Ray's name for "all ports listen on loopback", on every system
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


@contextmanager
def connected(replicas: ReplicaConfig, device: str, log_format: str = "text") -> Iterator[None]:
    """Ray is there until the end of the block. Started here it ends with it, and also if this process is killed.

    `device` is "cpu" or "cuda". What other processes log comes out here, too, with Ray's marks before each line; as
    these are no JSON, it stays in Ray's own folder with that `log_format`. Raises StartupError without Ray, a cluster,
    or GPUs enough on this host.
    """
    set_environment(replicas)
    import ray

    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.WARNING)
    _init(ray, replicas, device, log_format)
    try:
        if replicas.ray_address is None and device == "cuda":
            _require_gpus(int(ray.cluster_resources().get("GPU", 0)), replicas)
        if replicas.ray_address is not None:
            _tell_what_is_free(ray, replicas, device)
        yield
    finally:
        ray.shutdown()


def set_environment(replicas: ReplicaConfig) -> None:
    """Sets what Ray reads when it is imported, which is to come after. Raises StartupError without Ray."""
    if importlib.util.find_spec("ray") is None:
        raise StartupError('--replicas needs Ray; install it: pip install "sam2-amg-server[ray]"')
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)
    if not sys.stderr.isatty():
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # of what replicas log
    if replicas.ray_address is None:
        os.environ.update(_ON_THIS_HOST)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif os.environ.get("RAY_AUTH_MODE") != "token" and not os.path.exists(os.path.expanduser("~/.ray/auth_token")):
        logger.warning("RAY_AUTH_MODE is not token: whoever reaches the cluster's ports may run programs on it")


def _init(ray: Any, replicas: ReplicaConfig, device: str, log_format: str) -> None:
    options: dict[str, Any] = {
        "namespace": _NAMESPACE,
        "logging_level": "WARNING",
        "log_to_driver": log_format == "text",
    }
    if replicas.ray_address is None:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": max(os.cpu_count() or 1, replicas.most),
            "object_store_memory": _OBJECT_STORE,
        }
        if device == "cpu":
            options["num_gpus"] = 0
    else:
        options["address"] = replicas.ray_address
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"--ray_address {replicas.ray_address}" if replicas.ray_address else "Ray on this host"
        raise StartupError(f"{where} cannot be used ({first_line(error)}); see docs/deployment.md") from error


def _require_gpus(there: int, replicas: ReplicaConfig) -> None:
    if there < replicas.most:
        known = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = f" (CUDA_VISIBLE_DEVICES={known})" if known is not None else ""
        raise StartupError(f"--replicas {replicas.most} needs as many GPUs; this host has {there}{seen}; give fewer")


def _tell_what_is_free(ray: Any, replicas: ReplicaConfig, device: str) -> None:
    """Says so where replicas have to wait for others' work to end, or for nodes: Ray starts them later, in silence."""
    there, free = ray.cluster_resources(), ray.available_resources()
    for kind in ("GPU", "CPU") if device == "cuda" else ("CPU",):
        if free.get(kind, 0) < replicas.least:
            message = "the cluster has %d of %d %ss free; each of %d replicas takes one, or waits until it gets one"
            logger.warning(message, free.get(kind, 0), there.get(kind, 0), kind, replicas.least)


def options_for(device: str) -> dict[str, float]:
    """What an actor that makes masks takes of a node: a GPU where that is the device, and a core."""
    return {"num_cpus": 1, "num_gpus": 1 if device == "cuda" else 0}
