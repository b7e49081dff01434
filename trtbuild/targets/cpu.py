"""CPUs by the generic levels that compilers know: this machine's, or a named one."""

from __future__ import annotations

from typing import cast, get_args

import archspec.cpu

from trtbuild.errors import InputError
from trtbuild.targets.facts import Arch, Target

DETECTED = "detected on this machine"


def detect() -> Target:
    """The CPU of this machine. Raises InputError for one that no compiler here builds for.

    The level counts what the operating system lets this process use, not what the model's name promises: a
    virtual machine that hides AVX-512 is an x86_64_v3.
    """
    host = archspec.cpu.host()
    return Target(
        name="cpu",
        kind="cpu",
        arch=arch(),
        level=str(host.generic),
        microarchitecture=str(host),
        origins=dict.fromkeys(("arch", "level", "microarchitecture"), DETECTED),
        here="this machine's",
    )


def arch() -> Arch:
    """The family of this machine's CPU. Raises InputError for one that no compiler here builds for."""
    family = str(archspec.cpu.host().family)
    if family not in get_args(Arch):
        raise InputError(
            f"the CPU of this machine is {family}, and engines are built for {' and '.join(get_args(Arch))}",
            option="target.name",
            hint="run this on such a machine",
        )
    return cast("Arch", family)


def named(name: str, level: str, asked: Arch | None) -> Target:
    """The CPU of a generic level, wherever it is. Raises InputError for a level that archspec does not know."""
    option = f"target.level={level}"
    cpu = archspec.cpu.TARGETS.get(level)
    if cpu is None or cpu.vendor != "generic" or str(cpu.family) not in get_args(Arch):
        raise InputError(f"there is no generic CPU level {level!r}", option=option, hint=f"there are: {_levels()}")
    if asked is not None and asked != str(cpu.family):
        raise InputError(f"{level} is a level of {cpu.family}, and not of {asked}", option=option)
    origin = f"target={name}"
    return Target(
        name=name,
        kind="cpu",
        arch=cast("Arch", str(cpu.family)),
        level=level,
        microarchitecture=level,
        origins=dict.fromkeys(("arch", "level", "microarchitecture"), origin),
        here="runs here" if archspec.cpu.host() >= cpu else f"not here: this machine is {archspec.cpu.host()}",
    )


def level_runs(here: str, level: str) -> bool:
    """Whether a CPU of the level `here` runs what is built for `level`; archspec's names."""
    own, wanted = archspec.cpu.TARGETS.get(here), archspec.cpu.TARGETS.get(level)
    return own is not None and wanted is not None and bool(own >= wanted)


def _levels() -> str:
    known = archspec.cpu.TARGETS.items()
    return ", ".join(
        sorted(name for name, each in known if each.vendor == "generic" and str(each.family) in get_args(Arch))
    )
