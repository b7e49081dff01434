"""The CPU at hand, by the generic levels that compilers know."""

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
        origins=dict.fromkeys(("arch", "level", "microarchitecture"), DETECTED),
    )
