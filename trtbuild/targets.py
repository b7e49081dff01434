"""The hardware that an engine is built for: the CPU at hand, by the generic levels that compilers know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

import archspec.cpu

from trtbuild.errors import InputError

Kind: TypeAlias = Literal["cpu", "cuda"]
Arch: TypeAlias = Literal["x86_64", "aarch64"]

#: what `target.name` may say today
NAMES = ("auto", "cpu")


@dataclass(frozen=True)
class Target:
    """Where an engine runs, without anything that tells one machine of a kind from another.

    `level` is the generic microarchitecture that this CPU has all instructions of (archspec's names:
    x86_64_v3, x86_64_v4, armv8.2a, …), `microarchitecture` the specific one (skylake_avx512, neoverse_n1);
    the two are equal where the CPU is of no kind that archspec knows. `origin` says, for people, where the
    facts come from.
    """

    name: str
    kind: Kind
    arch: Arch
    level: str
    microarchitecture: str
    origin: str


def detect_cpu() -> Target:
    """The CPU of this machine. Raises InputError for one that no compiler here builds for.

    The level counts what the operating system lets this process use, not what the model's name promises: a
    virtual machine that hides AVX-512 is an x86_64_v3.
    """
    host = archspec.cpu.host()
    arch = str(host.family)
    if arch not in get_args(Arch):
        raise InputError(
            f"the CPU of this machine is {arch}, and engines are built for {' and '.join(get_args(Arch))}",
            option="target.name",
            hint="run this on such a machine",
        )
    return Target(
        name="cpu",
        kind="cpu",
        arch=cast("Arch", arch),
        level=str(host.generic),
        microarchitecture=str(host),
        origin="detected on this machine",
    )


def resolve(name: str) -> Target:
    """The target that `target.name` names. Raises InputError for an unknown name.

    `auto` and `cpu` are the same target: a name that was asked for differently must not be another engine.
    """
    if name not in NAMES:
        raise InputError(
            f"there is no target {name!r}",
            option=f"target.name={name}",
            hint=f"there are: {', '.join(NAMES)}",
        )
    return detect_cpu()
