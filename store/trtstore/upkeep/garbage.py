"""Decides upon what is unreachable, whatever the limit: unnamed blobs, dead roots, damaged things, old hints."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from trtstore.content import hints, trees
from trtstore.disk import locks
from trtstore.disk.layout import Layout, entries
from trtstore.environments.environment import Environment
from trtstore.environments.environment import read as read_environment
from trtstore.index.index import Index
from trtstore.upkeep.decisions import Decision
from trtstore.upkeep.live import Protected

QUARANTINE_AGE = 7 * 86_400.0  # seconds that damaged things are kept to be looked at
HINT_AGE = 90 * 86_400.0  # seconds that a hint stays which no builder takes


class Sorted(NamedTuple):
    """The decisions on one folder of the store, and the bytes of all that lies there."""

    decisions: list[Decision]
    bytes: int


class Trees(NamedTuple):
    """The same of trees/. `names` are those that are there, `copies` the copied bytes of each that may go."""

    decisions: list[Decision]
    bytes: int
    names: set[str]
    copies: dict[str, int]


class Toolchains(NamedTuple):
    """The same of toolchains/. `idle` are the environments that may go."""

    decisions: list[Decision]
    bytes: int
    idle: list[Environment]


def unnamed_blobs(unnamed: Iterable[tuple[Path, os.stat_result]], keep: Protected) -> Iterator[Decision]:
    for path, status in unnamed:
        remove = status.st_ctime < keep.horizon
        reason = "no record names it" if remove else f"no record names it, and it was {keep.since}"
        yield Decision("blob", path.name, remove, reason, status.st_size, path)


def dead_roots(layout: Layout, keep: Protected) -> Iterator[Decision]:
    for root in keep.dead_roots:
        reason = f"{root.link} leads to nothing here any more"
        yield Decision("root", root.name, True, reason, 0, layout.roots / root.name)


def quarantined(layout: Layout, now: float) -> Sorted:
    """Raises OSError, as all functions here."""
    decisions = []
    for path in entries(layout.quarantine):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # another collector took it
        size = _size(path, copies=stat.S_ISDIR(status.st_mode))  # a tree's files are blobs' other names
        remove = now - status.st_ctime > QUARANTINE_AGE
        reason = "it was damaged, more than a week ago" if remove else "it was damaged; kept for a week to be looked at"
        decisions.append(Decision("quarantine", path.name, remove, reason, size, path))
    return Sorted(decisions, sum(decision.bytes for decision in decisions))


def unrecorded_trees(layout: Layout, index: Index, keep: Protected, recorded: Container[str]) -> Trees:
    """Trees whose digits are not `recorded`, by any usable record, go unless they are in use."""
    copied = index.items("copied")
    made = Trees([], 0, set(), {})
    total = 0
    for path in entries(layout.trees):
        made.names.add(path.name)
        known = copied.get(path.name)
        size = known if type(known) is int and known >= 0 else _size(path, copies=True)
        total += size
        reason = tree_in_use(path, keep)
        if path.name not in recorded and reason is None:
            made.decisions.append(Decision("tree", path.name, True, "no record leads to it", size))
        elif reason is None and size:
            made.copies[path.name] = size
    return made._replace(bytes=total)


def tree_in_use(path: Path, keep: Protected) -> str | None:
    """Why the tree at `path` must stay; None if it may go."""
    if path.name in keep.trees:
        return keep.trees[path.name]
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(status.st_mode):
        return None
    if status.st_mtime >= keep.horizon:
        return keep.since
    fd = trees.take(path, alone=True)
    if fd is None:
        return "it is being read"
    os.close(fd)
    return None


def unused_toolchains(layout: Layout, keep: Protected) -> Toolchains:
    """Those that are no whole environment go, those in use stay; the others may go."""
    decisions: list[Decision] = []
    idle: list[Environment] = []
    total = 0
    for path in entries(layout.toolchains):
        environment = read_environment(path)
        size = _size(path) if environment is None else environment.bytes
        total += size
        with suppress(FileNotFoundError):
            if environment is not None and environment.used >= keep.horizon:
                decisions.append(Decision("toolchain", path.name, False, keep.since, size, path))
            elif not path.is_symlink() and path.is_dir() and _held(path):
                decisions.append(Decision("toolchain", path.name, False, "it is in use", size, path))
            elif environment is None:
                reason = "it is not whole: nobody uses it"
                decisions.append(Decision("toolchain", path.name, True, reason, size, path))
            else:
                idle.append(environment)
    return Toolchains(decisions, total, idle)


def old_hints(layout: Layout, now: float) -> Sorted:
    decisions = []
    for path in entries(layout.hints):
        with suppress(OSError):
            size, last = hints.used(path)
            remove = now - last > HINT_AGE
            reason = "no build took it for three months" if remove else "it makes builds quicker"
            decisions.append(Decision("hint", path.name, remove, reason, size, path))
    return Sorted(decisions, sum(decision.bytes for decision in decisions))


def _held(path: Path) -> bool:
    """Whether a process uses the folder `path`. Raises OSError."""
    fd = locks.folder(path, alone=True)
    if fd is not None:
        os.close(fd)
    return fd is None


def _size(path: Path, *, copies: bool = False) -> int:
    """Bytes of the files at or below `path`; with `copies`, of those that are no other file's second name."""
    with suppress(OSError):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            return sum(_size(inner, copies=copies) for inner in entries(path))
        return 0 if copies and status.st_nlink > 1 else status.st_size
    return 0
