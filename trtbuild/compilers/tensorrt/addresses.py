"""Makes the addresses of everything that a process maps the same in each run.

TensorRT for RTX numbers things, such as the symbols of dynamic shapes, in the order of containers that are sorted or
hashed by pointer: the bytes of a plan depend on the addresses of its builder's objects. Switching address randomization
off (personality(2), in the parent) is not enough: addresses still shift with the length of paths, with the environment
and with the Python. So every gap of the address space above `CEILING` is filled with inaccessible pages, which cost
nothing. Libraries, stacks and malloc's arenas are then mapped below it, from the top down, whatever this process mapped
when it started. The build runs in a new thread, which has a new arena.

For Linux on x86-64, like the builder. `GLIBC_TUNABLES` keeps small freed blocks with the thread that freed them:
TensorRT's helper threads free what the building thread allocated, at different times in each run.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path

CEILING = 0x6000_0000_0000  # below everything that the kernel maps when a process with 47-bit addresses starts
TUNABLES = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=65535"}
STACK = 64 << 20  # bytes of stack of the building thread, which walks graphs recursively

_ADDR_NO_RANDOMIZE = 0x0040000  # <sys/personality.h>
_PROT_NONE = 0
_PRIVATE_ANONYMOUS_NORESERVE_FIXED_NOREPLACE = 0x2 | 0x20 | 0x4000 | 0x100000  # <asm-generic/mman.h>


def stop_randomising() -> bool:
    """Switch address randomization off for programs that this process starts.

    Returns False if that is not allowed, as under the usual system call filter of a container.
    """
    libc = ctypes.CDLL(None)
    before: int = libc.personality(0xFFFFFFFF)
    return before != -1 and libc.personality(before | _ADDR_NO_RANDOMIZE) != -1


def randomised() -> bool:
    """Whether this process has randomized addresses."""
    persona: int = ctypes.CDLL(None).personality(0xFFFFFFFF)
    return not persona & _ADDR_NO_RANDOMIZE


def fill_above() -> None:
    """Leave no free page above `CEILING`, except those that the main thread's stack may grow into."""
    at = CEILING
    for start, end, name in _mappings():
        if end <= CEILING:
            continue
        if start > at and name != "[stack]":
            _reserve(at, start - at)
        at = max(at, end)


def run_in_new_arena(work: Callable[[], None]) -> None:
    """Run `work` in a new thread, to which malloc gives an unused arena; raises what it raises."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001  # carried to the caller's thread
            failures.append(failure)

    threading.stack_size(STACK)
    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _mappings() -> list[tuple[int, int, str]]:
    """(start, end, name) of each mapping of this process, in order of addresses."""
    mappings = []
    for line in Path("/proc/self/maps").read_text(encoding="ascii", errors="replace").splitlines():
        words = line.split(maxsplit=5)
        start, _, end = words[0].partition("-")
        mappings.append((int(start, 16), int(end, 16), words[5] if len(words) > 5 else ""))
    return mappings


def _reserve(start: int, size: int) -> None:
    # A failure (a mapping has appeared meanwhile) is harmless: addresses may then differ.
    mmap = ctypes.CDLL(None).mmap
    mmap.restype, mmap.argtypes = (
        ctypes.c_void_p,
        [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_long,
        ],
    )
    mmap(start, size, _PROT_NONE, _PRIVATE_ANONYMOUS_NORESERVE_FIXED_NOREPLACE, -1, 0)
