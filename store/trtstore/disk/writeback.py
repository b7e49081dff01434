"""A file's bytes sent to the disk while the next ones are still being made, so that the fsync at the end finds few.

It is only a hint: what it does not or cannot write, the fsync does. So a failure is ignored here and comes back
there, which fdatasync in a second thread would not do: the kernel reports a lost write to one caller only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from trtstore.disk.hashing import OnBytes

STRIDE = 8 << 20  # bytes between two hints: large enough for the disk to write them in one go
_WRITE = 2  # SYNC_FILE_RANGE_WRITE: start writing what is dirty, and wait for nothing


def early(fd: int, on_bytes: OnBytes) -> OnBytes:
    """`on_bytes`, which also has the kernel start to write the bytes of `fd` that were told of, from 0 on."""
    told = started = 0

    def tell(count: int) -> None:
        nonlocal told, started
        told += count
        if told - started >= STRIDE:
            start(fd, started, told - started)
            started = told
        on_bytes(count)

    return tell


def start(fd: int, offset: int, count: int) -> bool:
    """Have the kernel start to write `count` bytes of the file `fd` from `offset` on; whether it will."""
    return _sync_file_range(fd, offset, count, _WRITE) == 0


def _function() -> Callable[[int, int, int, int], int]:
    """sync_file_range(2), which the os module lacks; calls of it release the GIL."""
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):  # a libc without it, or none to be had
        return lambda _fd, _start, _count, _flags: -1
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    function.restype = ctypes.c_int
    return function


_sync_file_range = _function()
