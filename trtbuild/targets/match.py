"""What `target` asks for, against the hardware at hand and the catalogue."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from trtbuild.errors import InputError
from trtbuild.targets import cpu
from trtbuild.targets.facts import Arch, Kind, Target


@dataclass(frozen=True)
class Asked:
    """The group `target` of a config, as the options say it; a file of the catalogue sets what is known of a SKU."""

    name: str
    kind: Kind | None = None
    arch: Arch | None = None
    level: str | None = None
    gpu: str | None = None
    memory_gb: int | None = None
    compute_capability: str | None = None
    sm_count: int | None = None
    mig: str | None = None
    gpus: int | None = None
    driver: str | None = None
    cuda: str | None = None
    device: int | None = None


def resolve(asked: Asked, kinds: Collection[Kind]) -> Target:
    """The target that `asked` means for a compiler that builds for `kinds`. Raises InputError."""
    if asked.name not in ("auto", "cpu"):
        raise InputError(f"there is no target {asked.name!r}", option=f"target.name={asked.name}")
    return cpu.detect()


def at_hand(kind: Kind, device: int | None = None) -> Target | None:
    """The hardware of `kind` in this machine; None where there is none. Raises InputError where GPUs are mixed."""
    return cpu.detect() if kind == "cpu" else None
