"""What hardware is to a key: facts that are equal on all machines of a kind, and nothing that tells two apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["cpu", "cuda"]
Arch: TypeAlias = Literal["x86_64", "aarch64"]
#: The facts of a GPU and its driver, in the order in which people read them.
CUDA_FACTS = ("gpu", "memory_gb", "compute_capability", "sm_count", "mig", "driver", "cuda")
DriverPolicy: TypeAlias = Literal["branch", "exact", "ignore"]


@dataclass(frozen=True)
class Gpu:
    """One SKU of GPU, or one kind of its MIG slices.

    `name` is the driver's, without the maker ("GeForce RTX 4070", "H100 80GB HBM3"); `memory_gb` is the size it is
    sold with; `mig` the profile of the slice ("1g.10gb"), whose SMs `sm_count` then counts, and whose size
    `memory_gb` then is: the one in the profile's name. A class of GPUs, for engines that run on all of it, has the
    compute capability from which on it is ("8.0+"), and neither memory nor SMs (0).
    """

    name: str
    memory_gb: int
    compute_capability: str  # "8.9"
    sm_count: int
    mig: str | None = None


def is_class(compute_capability: str | None) -> bool:
    """Whether it is that of a class of GPUs, such as "8.0+"."""
    return compute_capability is not None and compute_capability.endswith("+")


@dataclass(frozen=True)
class Target:
    """Where an engine runs, without anything that tells one machine of a kind from another.

    A CPU has `level`, the generic microarchitecture that compilers know (archspec's names: x86_64_v3, armv8.2a, …),
    and `microarchitecture`, the specific one (skylake_avx512; equal to `level` where nothing more is known). A GPU
    has `gpu`, how many there are (`gpus`), and the driver's release with the CUDA version that it brings. `origins`
    says, for people, where each fact comes from, and `here` how the target stands to this machine; two targets are
    equal where their facts are, whoever told them.
    """

    name: str
    kind: Kind
    arch: Arch  # of the host's CPU
    level: str | None = None
    microarchitecture: str | None = None
    gpu: Gpu | None = None
    gpus: int = 0
    driver: str | None = None  # "580.159.04"
    cuda: str | None = None  # "13.0"
    origins: Mapping[str, str] | None = field(default=None, compare=False)
    here: str | None = field(default=None, compare=False)


def gpu_facts(target: Target, policy: DriverPolicy) -> dict[str, str | int | None]:
    """The facts of a CUDA target that an engine bound to its SKU and driver reads, by their dotted names.

    `target.gpus` is not among them: an engine for two GPUs is the same on a host of two and of eight, and what it
    reads is `parallel.tp` and `parallel.pp`.
    """
    gpu = target.gpu
    if gpu is None:
        raise ValueError(f"the target {target.name} has no GPU")
    facts: dict[str, str | int | None] = {
        "target.kind": target.kind,
        "target.arch": target.arch,
        "target.gpu": gpu.name,
        "target.memory_gb": gpu.memory_gb,
        "target.compute_capability": gpu.compute_capability,
        "target.sm_count": gpu.sm_count,
        "target.mig": gpu.mig,
    }
    if policy != "ignore":  # CUDA's version is the driver's own
        facts |= {"target.driver": driver_fact(target.driver, policy), "target.cuda": target.cuda}
    return facts


def driver_fact(driver: str | None, policy: DriverPolicy) -> str | None:
    """`driver` as a key holds it: its branch (580 of 580.159.04), the whole release, or nothing."""
    if driver is None or policy == "ignore":
        return None
    return driver.partition(".")[0] if policy == "branch" else driver
