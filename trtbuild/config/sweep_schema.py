"""What a config may say of sweeps: the group `sweep`, and what each target needs of a cluster (`target.job`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class On(Enum):
    local = "local"
    slurm = "slurm"
    ray = "ray"


class Objective(Enum):
    bytes = "bytes"
    seconds = "seconds"
    tokens_per_second = "tokens_per_second"
    load_seconds = "load_seconds"


@dataclass
class JobConf:
    partition: str | None = None
    gres: str | None = None
    constraint: str | None = None
    container: str | None = None
    accelerator: str | None = None


@dataclass
class SlurmConf:
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    cpus: int = 4
    memory_gb: float | None = None
    minutes: int | None = None
    folder: str | None = None
    setup: list[str] = field(default_factory=list)


@dataclass
class RayConf:
    address: str = "auto"
    cpus: int = 4
    memory_gb: float | None = None


@dataclass
class SweepConf:
    on: On = On.local
    jobs: int | None = None
    dry_run: bool = False
    max_minutes: float | None = None
    max_gb: float | None = None
    objective: Objective | None = None
    key: str | None = None
    slurm: SlurmConf = field(default_factory=SlurmConf)
    ray: RayConf = field(default_factory=RayConf)
