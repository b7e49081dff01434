"""The GPU of this process, through the driver's library libcuda.so.1: no CUDA toolkit is needed.

Names and numbers are those of cuda.h (CUDA driver API). The driver obeys CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from trtbuild.errors import BuildError
from trtbuild.networks.weights.arrays import Array

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_DEVICE_MEMORY = 2  # CU_MEMORYTYPE_DEVICE


@dataclass(frozen=True)
class CudaFacts:
    """The first GPU that this process sees."""

    name: str
    capability: str  # "8.9"


class _Copy2D(ctypes.Structure):
    """CUDA_MEMCPY2D."""

    _fields_ = [
        *((f"{name}", ctypes.c_size_t) for name in ("srcXInBytes", "srcY")),
        ("srcMemoryType", ctypes.c_uint),
        ("srcHost", ctypes.c_void_p),
        ("srcDevice", ctypes.c_uint64),
        ("srcArray", ctypes.c_void_p),
        ("srcPitch", ctypes.c_size_t),
        *((f"{name}", ctypes.c_size_t) for name in ("dstXInBytes", "dstY")),
        ("dstMemoryType", ctypes.c_uint),
        ("dstHost", ctypes.c_void_p),
        ("dstDevice", ctypes.c_uint64),
        ("dstArray", ctypes.c_void_p),
        ("dstPitch", ctypes.c_size_t),
        ("WidthInBytes", ctypes.c_size_t),
        ("Height", ctypes.c_size_t),
    ]


def find() -> tuple[CudaFacts | None, str]:
    """(the GPU, ""), or (None, why there is none)."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, "this machine has no NVIDIA driver"
    if (status := driver.cuInit(0)) != 0:
        return None, f"the NVIDIA driver does not start (CUDA error {status})"
    handle, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    if driver.cuDeviceGet(ctypes.byref(handle), 0) != 0:
        return None, "this process sees no NVIDIA GPU"
    driver.cuDeviceGetName(name, len(name), handle)
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        numbers.append(str(value.value))
    return CudaFacts(name.value.decode(errors="replace"), ".".join(numbers)), ""


class CudaDevice:
    """Memory and one stream of the first GPU. Each method raises BuildError if a call fails."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._call("cuInit", 0)
        handle, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(handle), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)  # the one that TensorRT uses
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(stream), 0)
        self.stream = int(stream.value or 0)

    def zeros(self, size: int) -> int:
        """The address of `size` bytes of zeros, which are never freed while the process lives."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        self._call("cuMemsetD8_v2", address, ctypes.c_ubyte(0), ctypes.c_size_t(max(size, 1)))
        return address.value

    def write(self, address: int, values: Array) -> None:
        size = ctypes.c_size_t(values.nbytes)
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), ctypes.c_void_p(values.ctypes.data), size)

    def read(self, values: Array, address: int) -> None:
        """Wait for the stream, then copy from `address` to fill `values`."""
        self.wait()
        size = ctypes.c_size_t(values.nbytes)
        self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(values.ctypes.data), ctypes.c_uint64(address), size)

    def copy_rows(self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int) -> None:
        """Copy `rows` rows of `width` bytes, a pitch apart, in stream order. Sizes are in bytes."""
        copy = _Copy2D(
            srcMemoryType=_DEVICE_MEMORY,
            srcDevice=source,
            srcPitch=source_pitch,
            dstMemoryType=_DEVICE_MEMORY,
            dstDevice=target,
            dstPitch=target_pitch,
            WidthInBytes=width,
            Height=rows,
        )
        self._call("cuMemcpy2DAsync_v2", ctypes.byref(copy), ctypes.c_void_p(self.stream))

    def wait(self) -> None:
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status != 0:
            raise BuildError(f"{name} failed on the GPU with CUDA error {status}")
