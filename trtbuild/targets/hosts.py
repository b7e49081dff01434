"""The NVIDIA GPUs of this machine that a process may use, as facts; equal ones together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trtbuild.targets import nvml
from trtbuild.targets.normal import cuda_release, memory_gb, mig_memory_gb, sku_name, sm_count
from trtbuild.targets.visible import VARIABLE, visible


@dataclass(frozen=True)
class GpuKind:
    """A GPU or a MIG slice, with what NVML says of it; the names are those of `Gpu` and of the options."""

    gpu: str
    memory_gb: int | None
    compute_capability: str | None
    sm_count: int | None
    mig: str | None = None

    def words(self) -> str:
        size = "" if self.memory_gb is None else f" ({self.memory_gb} GB)"
        return f"{self.gpu}{'' if self.mig is None else ' MIG ' + self.mig}{size}"


@dataclass(frozen=True)
class Host:
    """What a process sees here. `found` holds NVML's index of the GPU with each GPU or slice."""

    gpus: tuple[tuple[int, GpuKind], ...] = ()
    driver: str | None = None
    cuda: str | None = None
    missing: str | None = None  # why nothing is found

    def kinds(self) -> dict[GpuKind, list[int]]:
        """Each kind, with the indices of the GPUs that are of this kind or hold slices of it."""
        grouped: dict[GpuKind, list[int]] = {}
        for index, seen in self.gpus:
            grouped.setdefault(seen, []).append(index)
        return grouped

    def words(self) -> str:
        """What is here, for people: "2 x GeForce RTX 4070 (12 GB)"."""
        if not self.gpus:
            return f"no NVIDIA GPU ({self.missing})"
        return ", ".join(
            seen.words() if len(at) == 1 else f"{len(at)} x {seen.words()}" for seen, at in self.kinds().items()
        )


def look(env: Mapping[str, str] | None = None) -> Host:
    """What NVML shows of this machine to a process with the environment `env` (this one's, if it is None).

    Raises InputError for a driver that does not work, and for a CUDA_VISIBLE_DEVICES whose meaning is not known.
    """
    return host(nvml.read(), os.environ if env is None else env)


def host(report: nvml.NvmlReport, env: Mapping[str, str]) -> Host:
    """`report` as facts. Raises InputError for a CUDA_VISIBLE_DEVICES whose meaning is not known."""
    gpus = tuple(_found(report.devices, env))
    missing = report.missing
    if report.devices and not gpus:
        missing = f"{VARIABLE}={env[VARIABLE]}" if VARIABLE in env else "MIG is on, and there is no slice"
    return Host(
        gpus=gpus,
        driver=report.driver,
        cuda=None if report.cuda is None else cuda_release(report.cuda),
        missing=None if gpus else missing,
    )


def slots(env: Mapping[str, str] | None = None) -> tuple[tuple[GpuKind, str], ...]:
    """Each GPU or slice that a process with the environment `env` may use, with the name that CUDA knows it by.

    Raises as `look`.
    """
    devices = nvml.read().devices
    slots = []
    for at, nth in visible(devices, os.environ if env is None else env):
        device = devices[at]
        names = [device.uuid] if device.slices is None else [each.names[0] for each in device.slices]
        seen = zip(facts(device), names, strict=True)
        slots += [pair for number, pair in enumerate(seen) if nth is None or number == nth]
    return tuple(slots)


def _found(devices: Sequence[nvml.GpuReport], env: Mapping[str, str]) -> Iterator[tuple[int, GpuKind]]:
    for at, nth in visible(devices, env):
        device = devices[at]
        seen = facts(device)
        for number, each in enumerate(seen):
            if nth is None or number == nth:
                yield device.index, each


def facts(device: nvml.GpuReport) -> tuple[GpuKind, ...]:
    """A GPU as one, or its slices where MIG is on."""
    capability = None if device.capability is None else "{}.{}".format(*device.capability)
    name = sku_name(device.name)
    if device.slices is not None:
        return tuple(
            GpuKind(name, mig_memory_gb(each.profile), capability, each.sms, each.profile) for each in device.slices
        )
    known = device.cores is not None and device.capability is not None
    return (
        GpuKind(
            gpu=name,
            memory_gb=None if device.memory is None else memory_gb(device.memory),
            compute_capability=capability,
            sm_count=sm_count(device.cores or 0, device.capability or (0, 0)) if known else None,
        ),
    )
