"""NVIDIA's management library, read once: the driver, and each GPU and MIG slice as the library reports them.

Nothing is decided here; `hosts` makes facts of it. UUIDs are read, because CUDA_VISIBLE_DEVICES names GPUs by them, and
go no further.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias, TypeVar, cast

from trtbuild.errors import InputError
from trtbuild.targets.normal import mig_profile

Handle: TypeAlias = object
T = TypeVar("T")

# NVML's return codes (nvml.h).
_NOT_SUPPORTED, _NO_PERMISSION, _NOT_FOUND = 3, 4, 6
_NOT_LOADED, _NO_LIBRARY, _NO_FUNCTION, _LOST, _RESET, _MISMATCH = 9, 12, 13, 15, 16, 18
_ABSENT = (_NOT_LOADED, _NO_LIBRARY)
_UNKNOWABLE = (_NOT_SUPPORTED, _NOT_FOUND, _NO_FUNCTION, _NO_LIBRARY)

_MENDS = {
    _NO_PERMISSION: "this user may not open /dev/nvidia*: in a container, give it the GPUs (--gpus all); else look "
    "at the permissions of these files",
    _MISMATCH: "the driver was updated and the kernel still runs the one before: restart the machine, or unload and "
    "load the nvidia kernel modules; in a container, start it anew",
    _LOST: "the GPU fell off the bus: restart the machine, and look for Xid in its kernel log",
    _RESET: "the GPU needs a reset: nvidia-smi --gpu-reset, or restart the machine",
}


@dataclass(frozen=True)
class Slice:
    """A MIG slice; `names` are those that CUDA_VISIBLE_DEVICES may call it by."""

    names: tuple[str, ...]
    profile: str  # "1g.10gb"
    memory_mib: int
    sms: int


@dataclass(frozen=True)
class GpuReport:
    """A GPU as NVML reports it; None where the driver does not tell (Jetson, WSL)."""

    index: int  # as nvidia-smi shows it
    uuid: str
    name: str
    memory: int | None  # bytes
    capability: tuple[int, int] | None
    cores: int | None  # CUDA cores
    slices: tuple[Slice, ...] | None  # None: MIG is off

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for two GPUs between which CUDA's order does not matter."""
        profiles = None if self.slices is None else tuple((each.profile, each.sms) for each in self.slices)
        return (self.name, self.memory, self.capability, self.cores, profiles)


@dataclass(frozen=True)
class NvmlReport:
    driver: str | None = None  # "580.95.05"
    cuda: int | None = None  # 13000
    devices: tuple[GpuReport, ...] = ()
    missing: str | None = None  # the reason if there is no device


class NvmlError(Protocol):
    value: int


class Nvml(Protocol):
    """What is used of the module `pynvml` (the distribution nvidia-ml-py)."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlSystemGetDriverVersion(self) -> str: ...
    def nvmlSystemGetCudaDriverVersion(self) -> int: ...
    def nvmlSystemGetCudaDriverVersion_v2(self) -> int: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle: ...
    def nvmlDeviceGetUUID(self, handle: Handle) -> str: ...
    def nvmlDeviceGetName(self, handle: Handle) -> str: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Handle) -> MemoryInfo: ...
    def nvmlDeviceGetCudaComputeCapability(self, handle: Handle) -> tuple[int, int]: ...
    def nvmlDeviceGetNumGpuCores(self, handle: Handle) -> int: ...
    def nvmlDeviceGetMigMode(self, handle: Handle) -> list[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Handle) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Handle, index: int) -> Handle: ...
    def nvmlDeviceGetGpuInstanceId(self, handle: Handle) -> int: ...
    def nvmlDeviceGetComputeInstanceId(self, handle: Handle) -> int: ...
    def nvmlDeviceGetAttributes(self, handle: Handle) -> Attributes: ...


class MemoryInfo(Protocol):
    total: int


class Attributes(Protocol):
    multiprocessorCount: int
    gpuInstanceSliceCount: int
    computeInstanceSliceCount: int
    memorySizeMB: int


def read() -> NvmlReport:
    """What NVML reports of this machine. No library, no loaded driver or no GPU is a report without devices.

    Raises InputError, with NVML's words and the fix, for an installed driver that does not work.
    """
    nvml = cast("Nvml", importlib.import_module("pynvml"))  # slow to import, and few runs ask for a GPU
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        if _code(error) in _ABSENT:
            return NvmlReport(missing=f"NVML says: {error}")
        raise _broken(error, "the NVIDIA driver") from error
    try:
        return _report(nvml)
    except nvml.NVMLError as error:
        raise _broken(error, "the NVIDIA driver") from error
    finally:
        nvml.nvmlShutdown()


def _report(nvml: Nvml) -> NvmlReport:
    reports: list[GpuReport] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            reports.append(_device(nvml, index, nvml.nvmlDeviceGetHandleByIndex(index)))
        except nvml.NVMLError as error:
            if _code(error) != _NO_PERMISSION:  # a GPU that this user or container was not given
                raise _broken(error, f"GPU {index}") from error
    return NvmlReport(
        driver=_told(nvml, nvml.nvmlSystemGetDriverVersion),
        # v2 asks the CUDA library, which a container may lack; the other then tells what the driver supports.
        cuda=_told(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2) or _told(nvml, nvml.nvmlSystemGetCudaDriverVersion),
        devices=tuple(reports),
        missing=None if reports else "NVML lists none that this user may use",
    )


def _device(nvml: Nvml, index: int, handle: Handle) -> GpuReport:
    memory = _told(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
    mode = _told(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle))
    total = int(memory.total) if memory else None
    return GpuReport(
        index=index,
        uuid=uuid,
        name=name,
        memory=total,
        capability=_told(nvml, lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        cores=_told(nvml, lambda: nvml.nvmlDeviceGetNumGpuCores(handle)),
        slices=_slices(nvml, handle, uuid, total or 1) if mode and mode[0] else None,
    )


def _slices(nvml: Nvml, parent: Handle, uuid: str, whole: int) -> tuple[Slice, ...]:
    slices: list[Slice] = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(parent)):
        handle = _told(nvml, partial(nvml.nvmlDeviceGetMigDeviceHandleByIndex, parent, index))
        if handle is None:  # the places of a GPU need not all be taken
            continue
        has = nvml.nvmlDeviceGetAttributes(handle)
        instance = nvml.nvmlDeviceGetGpuInstanceId(handle)
        compute = nvml.nvmlDeviceGetComputeInstanceId(handle)
        slices.append(
            Slice(
                names=(nvml.nvmlDeviceGetUUID(handle), f"MIG-{uuid}/{instance}/{compute}"),
                profile=mig_profile(
                    nvml.nvmlDeviceGetName(handle),
                    (int(has.gpuInstanceSliceCount), int(has.computeInstanceSliceCount)),
                    int(has.memorySizeMB),
                    whole,
                ),
                memory_mib=int(has.memorySizeMB),
                sms=int(has.multiprocessorCount),
            )
        )
    return tuple(slices)


def _told(nvml: Nvml, call: Callable[[], T]) -> T | None:
    """What `call` returns; None for what this driver or GPU does not tell."""
    try:
        return call()
    except nvml.NVMLError as error:
        if _code(error) in _UNKNOWABLE:
            return None
        raise


def _code(error: Exception) -> int:
    return cast("NvmlError", error).value


def _broken(error: Exception, what: str) -> InputError:
    return InputError(
        f"{what} does not work: NVML says: {error}",
        option="target",
        hint=_MENDS.get(_code(error), "does nvidia-smi work? restart the machine after an update of the driver"),
    )
