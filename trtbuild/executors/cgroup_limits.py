"""What a machine leaves to this process: the cores and the memory that it may use, by its control groups, too.

A container or a batch job with two cores of 64 may see all 64, and libraries start as many threads, which then wait
for each other busily. Each ancestor of a control group may have a limit of its own: the smallest counts. Of both
versions: https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_MACHINE = Path("/")  # where proc/ and sys/ are


def cores(machine: Path = _MACHINE) -> int:
    """As many as this process may run on, or as its share of time amounts to; at least one."""
    found = float(len(os.sched_getaffinity(0)))
    for group in _groups(machine, "cpu"):
        older = [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us")]
        quota = _words(group / "cpu.max") or older  # microseconds of a period
        if len(quota) == 2 and quota[0] not in ("max", "-1"):
            found = min(found, int(quota[0]) / int(quota[1]))
    return max(1, int(found))


def bound(machine: Path = _MACHINE) -> int | None:
    """`cores` where there are fewer than a library would count."""
    found = cores(machine)
    return found if found < len(os.sched_getaffinity(0)) else None


def free_memory(machine: Path = _MACHINE) -> float:
    """Bytes that can be had without swapping."""
    lines = dict(line.split(":", 1) for line in (machine / "proc/meminfo").read_text().splitlines())
    free = float(lines["MemAvailable"].split()[0]) * 1024
    for group in _groups(machine, "memory"):
        limit = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        if limit and used and limit != ["max"]:
            free = min(free, int(limit[0]) - int(used[0]) + _cached(group))
    return max(0.0, free)


def _cached(group: Path) -> int:
    """Bytes of files that were read and may be dropped: they count as used."""
    words = _words(group / "memory.stat")
    found = dict(zip(words[::2], words[1::2], strict=False))
    return int(found.get("total_inactive_file", found.get("inactive_file", 0)))


def _groups(machine: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups that bound this process, the innermost first.

    In a container they may be said by names that are not visible there: its own is then the root.
    """
    for line in _text(machine / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mount in (controllers,) if controllers else ("", "unified"):
            top = machine / "sys/fs/cgroup" / mount
            inner = top if ".." in path else top / path.lstrip("/")
            yield from (
                each for each in (inner, *inner.parents) if each.is_relative_to(top) and each.is_dir()
            )


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
