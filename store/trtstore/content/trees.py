"""An artifact as a folder, made of its blobs: by reflink where the file system can, else hard link, else copy."""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trtstore.content import blobs
from trtstore.disk import free_space, locks
from trtstore.disk.layout import STAMP, Layout, walk
from trtstore.errors import Busy, Corrupt, Invalid
from trtstore.format.manifest import EXECUTABLE, Entry, Manifest, mode_of
from trtstore.index.seals import Seals, is_foreign

_AGAIN = "build it again: what is broken counts as absent, and is replaced"
_LOOK = 0.001  # seconds until a collector's look at a tree is over, or its successor has the name

Method = Literal["present", "reflink", "hardlink", "copy"]


@dataclass(frozen=True)
class Materialised:
    """A folder that holds an artifact: where, how most of its bytes came to be there, in how many seconds."""

    path: Path
    method: Method
    seconds: float


def own_files(layout: Layout, tree: Path, manifest: Manifest) -> dict[str, os.stat_result] | None:
    """The files of `tree` that are no links of their blobs, by path; None unless it holds the manifest's files alone.

    Looks at names, sizes, modes and times, and reads no bytes. Raises OSError.
    """
    try:
        if not stat.S_ISDIR(tree.lstat().st_mode):
            return None
        statuses = {path: status for path, _, status in walk(tree)}
        wanted = {entry.path: entry for entry in manifest.entries}
        if statuses.keys() != wanted.keys():
            return None
        own = {path: status for path, status in statuses.items() if not _is_link(layout, wanted[path], status)}
    except (FileNotFoundError, Invalid):
        return None
    fits = all(_fits(wanted[path], status) for path, status in statuses.items())
    return own if fits and all(_is_copy(status) for status in own.values()) else None


def _fits(entry: Entry, status: os.stat_result) -> bool:
    return status.st_size == entry.size and mode_of(status.st_mode) == entry.mode


def _is_copy(status: os.stat_result) -> bool:
    return status.st_nlink == 1 and status.st_mtime_ns == STAMP * 10**9


def _is_link(layout: Layout, entry: Entry, status: os.stat_result) -> bool:
    if status.st_nlink == 1:
        return False
    blob = layout.blob(entry.sha256).lstat()
    return (status.st_dev, status.st_ino) == (blob.st_dev, blob.st_ino)


def take(tree: Path, *, alone: bool) -> int | None:
    """A descriptor that holds the folder `tree` until it is closed; None when it is absent, or, `alone`, being read.

    Readers share a tree. A collection holds it exclusively only until it sees that there is no reader; a reader waits
    for that: otherwise it would take the tree for absent, and make it anew below the next reader. Raises Busy, OSError.
    """
    until = time.monotonic() + locks.PATIENCE
    while True:
        try:
            fd = locks.folder(tree, alone=alone)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        if fd is not None or alone:
            return fd
        if time.monotonic() > until:
            raise Busy(f"{tree} is held alone by another process", "is a collection stopped? end it")
        time.sleep(_LOOK)


def hold(layout: Layout, tree: Path) -> int | None:
    """As `take`, not alone, and the tree counts as used from now on. Raises Invalid where trees/ is a link, OSError."""
    layout.own(tree.parent)
    fd = take(tree, alone=False)  # no remover between the look and the mark
    if fd is not None:
        with suppress(OSError):  # somebody else's folder, or a read-only one
            os.utime(fd)  # a tree's own time says when it was last used
    return fd


@dataclass(frozen=True)
class Built:
    """How a tree came to be: the way that most of its bytes took, how many of them are a copy, its files of its own."""

    method: Method
    copied: int
    own: dict[str, os.stat_result]


def build(layout: Layout, tree: Path, manifest: Manifest, seals: Seals) -> Built:
    """Make the absent folder `tree`. Raises Corrupt, OSError."""
    layout.folder(tree)
    sizes: dict[Method, int] = {}
    own: dict[str, os.stat_result] = {}
    for entry in manifest.entries:
        trouble = blobs.problem(layout, entry.sha256, entry.size, seals=seals)
        if trouble is not None:
            raise Corrupt(trouble, _AGAIN)
        target = tree / entry.path
        layout.folders(target.parent)
        method = _place(layout, target, entry, seals)
        sizes[method] = sizes.get(method, 0) + entry.size
        if method != "hardlink":
            own[entry.path] = target.lstat()
    os.utime(tree)  # used from now on, however long the copies took
    return Built(max(sizes, key=lambda method: sizes[method]), sizes.get("copy", 0), own)


def _place(layout: Layout, target: Path, entry: Entry, seals: Seals) -> Method:
    place = layout.blob(entry.sha256)
    source = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not is_foreign(os.fstat(source)):
            with target.open("xb") as copy:
                if blobs.clone(source, copy.fileno()):
                    return _finish(layout, target, entry, "reflink")
            target.unlink()
            # An executable file cannot be its blob's other name: names of one file share the mode.
            if entry.mode != EXECUTABLE:
                with seals.linking(entry.sha256, place):
                    if blobs.link(place, target):
                        return "hardlink"
        free_space.check(target.parent, entry.size)
        # What is copied is hashed once more: a disk may give other bytes than a moment ago, and another owner may
        # write to the file at any time, by any of its names.
        if blobs.copy_and_hash(layout, source, entry.size, target) != (entry.sha256, entry.size):
            raise Corrupt(f"the blob {place} gave other bytes as it was copied", _AGAIN)
    finally:
        os.close(source)
    return _finish(layout, target, entry, "copy")


def _finish(layout: Layout, target: Path, entry: Entry, method: Method) -> Method:
    target.chmod(_mode(entry))
    os.utime(target, (STAMP, STAMP))
    layout.sync(target)
    return method


def _mode(entry: Entry) -> int:
    return 0o555 if entry.mode == EXECUTABLE else blobs.MODE
