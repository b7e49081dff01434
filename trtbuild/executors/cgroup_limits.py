"""Cores and memory that this process may use, by its CPU affinity and its control groups.

A container or batch job with two cores of 64 may see all 64. Libraries then start 64 threads, which spin on locks.
Each ancestor of a control group may have its own limit: the smallest applies. Both versions are read:
https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_MACHINE = Path("/")  # where proc/ and sys/ are


def cores(machine: Path = _MACHINE) -> int:
    """Cores that this process may run on, or that its CPU quota amounts to; at least one."""
    count = float(len(os.sched_getaffinity(0)))
    for group in _groups(machine, "cpu"):
        older = [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us")]
        quota = _words(group / "cpu.max") or older  # microseconds of a period
        if len(quota) == 2 and quota[0] not in ("max", "-1"):
            count = min(count, int(quota[0]) / int(quota[1]))
    return max(1, int(count))


def thread_limit(machine: Path = _MACHINE) -> int | None:
    """`cores`, if a library would count more and start too many threads; else None."""
    count = cores(machine)
    return count if count < len(os.sched_getaffinity(0)) else None


def free_memory(machine: Path = _MACHINE) -> float:
    """Bytes that this process can still allocate without swapping."""
    lines = dict(line.split(":", 1) for line in (machine / "proc/meminfo").read_text().splitlines())
    free = float(lines["MemAvailable"].split()[0]) * 1024
    for group in _groups(machine, "memory"):
        limit = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        if limit and used and limit != ["max"]:
            free = min(free, int(limit[0]) - int(used[0]) + _cached(group))
    return max(0.0, free)


def _cached(group: Path) -> int:
    """Bytes of cached files, which count as used and can be dropped."""
    words = _words(group / "memory.stat")
    counters = dict(zip(words[::2], words[1::2], strict=False))
    return int(counters.get("total_inactive_file", counters.get("inactive_file", 0)))


def _groups(machine: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups that limit this process, the innermost first.

    A container may see names of groups outside it, which it cannot open: its own group is then the root.
    """
    for line in _text(machine / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mount in (controllers,) if controllers else ("", "unified"):
            top = machine / "sys/fs/cgroup" / mount
            inner = top if ".." in path else top / path.lstrip("/")
            folders = (inner, *inner.parents)
            yield from (folder for folder in folders if folder.is_relative_to(top) and folder.is_dir())


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
