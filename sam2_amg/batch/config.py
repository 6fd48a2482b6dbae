"""Configuration of the batch job."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sam2_amg.answers.filters import Filters
from sam2_amg.config import GeneratorConfig, Limits, ModelConfig, ReplicaConfig
from sam2_amg.errors import ParameterError, StartupError
from sam2_amg.parameters import Parameters


@dataclass(frozen=True)
class BatchConfig:
    """All settings of `batch`'s command line.

    `model` is None if `servers` make the masks. `generator` has what `parameters` do not say. `share` is (i, n): this
    run makes the shards whose number leaves i when it is divided by n. `replicas` are the processes that make shards,
    of one number; None if this process does.
    """

    inputs: tuple[str, ...]
    output: str
    model: ModelConfig | None
    parameters: Parameters
    generator: GeneratorConfig
    limits: Limits = field(default_factory=Limits)
    format: str = "jsonl"
    unpack: bool = False
    shard_size: int = 1000
    share: tuple[int, int] = (0, 1)
    servers: tuple[str, ...] = ()
    api_key_file: Path | None = None
    rescan: bool = False
    strict: bool = False
    dry_run: bool = False
    compile_cache: Path | None = None
    log_format: str = "text"
    replicas: ReplicaConfig | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.shard_size <= 1_000_000:
            raise ParameterError("shard_size", f"must be from 1 to 1000000, not {self.shard_size}")
        i, n = self.share
        if not (n >= 1 and 0 <= i < n):
            raise ParameterError("shard", f"must be i/N with i from 0 to N - 1, not {i}/{n}")
        if self.unpack and self.format not in ("sa1b", "labelmap", "overlay"):
            raise StartupError(
                f"--unpack is for sa1b, labelmap and overlay; --format {self.format} is one file a shard"
            )
        if (self.model is None) != bool(self.servers):
            raise StartupError("--model contradicts --server, whose model makes the masks; leave one of them out")
        if self.replicas is not None:
            self._check_replicas(self.replicas)

    def _check_replicas(self, replicas: ReplicaConfig) -> None:
        if self.servers:
            raise StartupError("--replicas contradicts --server, which makes the masks; leave one of them out")
        if replicas.least != replicas.most:
            raise StartupError(f"--replicas of a batch job is N, not {replicas.least}:{replicas.most}")

    @property
    def own(self) -> GeneratorConfig:
        """The generator's parameters."""
        return self.parameters.config(self.generator, (0, 0)) or self.generator

    @property
    def filters(self) -> Filters:
        """Which masks are written."""
        return self.parameters.filters()
