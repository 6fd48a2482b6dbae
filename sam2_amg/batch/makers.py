"""What makes the masks of a batch job, this process or servers, and the manifest that says so."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sam2_amg.batch.config import BatchConfig
from sam2_amg.batch.items import Problem, Result
from sam2_amg.batch.manifest import Manifest
from sam2_amg.batch.outputs.base import Output
from sam2_amg.batch.work import Finish, Finished, Work
from sam2_amg.config import ModelConfig
from sam2_amg.process.version import find_version

if TYPE_CHECKING:
    from sam2_amg.batch.servers.segmenter import RemoteSegmenter

logger = logging.getLogger("sam2_amg.batch")
_AT_ONCE = 8  # images that a server is sent at a time: half of its queue
_PACKAGES = ("torch", "sam2", "pillow", "simplejpeg", "numpy")


def servers_of(config: BatchConfig) -> RemoteSegmenter | None:
    """The servers that are asked; None if this process makes the masks."""
    if not config.servers:
        return None
    from sam2_amg.batch.servers.segmenter import RemoteSegmenter
    from sam2_amg.server.access import read_key

    key = read_key(config.api_key_file) if config.api_key_file else None
    return RemoteSegmenter(config.servers, _asked(config), key, _AT_ONCE)


def _asked(config: BatchConfig) -> dict[str, str]:
    """The parameters of the command line, as a request has them."""
    return {name: _text(value) for name, value in config.parameters.given.items()}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def manifest_of(config: BatchConfig, servers: RemoteSegmenter | None) -> Manifest:
    """The settings that masks and files depend on. Raises StartupError for a checkpoint that cannot be used."""
    settings: dict[str, Any] = {
        "format": config.format,
        "unpack": config.unpack,
        "shard_size": config.shard_size,
        "filters": asdict(config.filters),
        "stretch": config.parameters.stretch,
        "max_pixels": config.limits.max_pixels,
    }
    versions = {"sam2-amg": find_version(), "python": platform.python_version()}
    if servers is not None:
        settings |= {"server": servers.describe(), "asked": _asked(config)}
        return Manifest(settings, versions)
    assert config.model is not None
    settings["model"] = _describe(config.model)
    settings["encoded_together"] = config.model.batch_size  # images of a shard, from its first on, so many at a time
    settings["parameters"] = asdict(replace(config.own, mask_memory_mib=None, points_per_batch=None))
    return Manifest(settings, versions | {name: version(name) for name in _PACKAGES})


def _describe(model: ModelConfig) -> dict[str, str]:
    from sam2_amg.network.checkpoints import find_checkpoint
    from sam2_amg.network.model_types import find_model_type
    from sam2_amg.network.weights import check_weights

    kind = find_model_type(model.model_type)
    weights = check_weights(find_checkpoint(model.checkpoint_dir, kind), kind)
    return {"type": kind.name, "sha256": weights.sha256, "mode": model.mode.value, "device": model.device}


def work_of(config: BatchConfig, output: Output, servers: RemoteSegmenter | None) -> AbstractContextManager[Work]:
    """What makes masks, ready for images, until the end of the block. Raises StartupError."""
    if servers is not None:
        return _remote(config, output, servers)
    assert config.model is not None
    return _local(config, config.model, output)


@contextmanager
def _local(config: BatchConfig, model: ModelConfig, output: Output) -> Iterator[Work]:
    import torch

    from sam2_amg.batch.local import LocalWork
    from sam2_amg.decoding.pool import DecoderPool
    from sam2_amg.modes.load import keep_compiled, load_generator
    from sam2_amg.modes.warmup import keep_from_garbage_collection, memory_errors
    from sam2_amg.pipeline.host_memory import give_back_memory
    from sam2_amg.pipeline.pinned_memory import empty_pinned

    if config.compile_cache is not None:
        keep_compiled(config.compile_cache)
    device = torch.device(model.device)
    with DecoderPool(config.limits, empty_pinned) as decoders, memory_errors("--points_per_batch or --batch_size"):
        generator = load_generator(model, config.own, _say)
        work = LocalWork(
            generator,
            decoders,
            device,
            config.filters,
            config.parameters.stretch,
            finisher(output),
            output.needs_image,
        )
        try:
            _say("running a first image")
            work.warm_up()
            keep_from_garbage_collection()
            give_back_memory()
            yield work
        finally:
            work.close()


@contextmanager
def _remote(config: BatchConfig, output: Output, servers: RemoteSegmenter) -> Iterator[Work]:
    from sam2_amg.batch.servers.work import RemoteWork

    at_once = _AT_ONCE * len(config.servers)
    work = RemoteWork(servers, at_once, config.limits, config.parameters.stretch, finisher(output), output.needs_image)
    try:
        yield work
    finally:
        work.close()
        servers.close()


def finisher(output: Output) -> Finish:
    """Makes of a result what the output's writer takes."""

    def finish(result: Result) -> Finished:
        result = output.check(result)
        encoded = output.encode(result)
        if isinstance(result.found, Problem):
            return Finished(encoded, 0, result.found, result.milliseconds)
        return Finished(encoded, len(result.found), None, result.milliseconds)

    return finish


def _say(doing: str) -> None:
    logger.info("%s ...", doing)
