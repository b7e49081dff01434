"""Puts everything that a process maps from now on at addresses that are equal in each run.

TensorRT for RTX numbers what it has found, the symbols of dynamic shapes for one, in the order of containers that
are sorted or hashed by pointer, so a plan's bytes depend on where its builder's objects lie. Address randomisation off
(personality(2), which the parent sets) is half of the mend: addresses then still shift with the length of paths, with
the environment and with the Python that runs. So every gap of the address space above `CEILING` is filled with pages
that cannot be touched and cost nothing: libraries, stacks and malloc's arenas all come to lie below it, from the top
down, wherever this process's own start has left its pieces. The build then runs in a thread, whose arena is new.

Linux on x86-64, like the builder. `GLIBC_TUNABLES` keeps small freed pieces with the thread that freed them: TensorRT's
helper threads free what the building thread allocated, at moments that differ from run to run.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path

CEILING = 0x6000_0000_0000  # below all that the kernel maps at the start of a process of 47-bit addresses
TUNABLES = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=65535"}
STACK = 64 << 20  # bytes of the building thread: graphs are walked by recursion

_ADDR_NO_RANDOMIZE = 0x0040000  # <sys/personality.h>
_PROT_NONE = 0
_PRIVATE_ANONYMOUS_NORESERVE_FIXED_NOREPLACE = 0x2 | 0x20 | 0x4000 | 0x100000  # <asm-generic/mman.h>


def stop_randomising() -> bool:
    """Have the programs that this process starts lie at addresses that repeat. False where that is not allowed, as
    under the usual filter of system calls of a container."""
    libc = ctypes.CDLL(None)
    before: int = libc.personality(0xFFFFFFFF)
    return before != -1 and libc.personality(before | _ADDR_NO_RANDOMIZE) != -1


def randomised() -> bool:
    """Whether this process lies at random addresses."""
    persona: int = ctypes.CDLL(None).personality(0xFFFFFFFF)
    return not persona & _ADDR_NO_RANDOMIZE


def fill_above() -> None:
    """Leave no free page above `CEILING`, but for those that the main thread's stack may grow into."""
    at = CEILING
    for start, end, name in _mappings():
        if end <= CEILING:
            continue
        if start > at and name != "[stack]":
            _reserve(at, start - at)
        at = max(at, end)


def run_in_new_arena(work: Callable[[], None]) -> None:
    """Run `work` in a thread, so that malloc gives it an arena that nothing has used; raises what it raised."""
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
    found = []
    for line in Path("/proc/self/maps").read_text(encoding="ascii", errors="replace").splitlines():
        words = line.split(maxsplit=5)
        start, _, end = words[0].partition("-")
        found.append((int(start, 16), int(end, 16), words[5] if len(words) > 5 else ""))
    return found


def _reserve(start: int, size: int) -> None:
    # Where it is refused (a mapping has come up meanwhile), addresses may differ: no more than that.
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
