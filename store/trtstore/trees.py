"""An artifact as a folder, made of its blobs: by reflink where the file system can, else hard link, else copy."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trtstore import blobs, locks, room
from trtstore.errors import Corrupt, Invalid
from trtstore.layout import STAMP, Layout, walk
from trtstore.manifest import EXECUTABLE, Entry, Manifest, mode_of

_LOOK = 0.001  # seconds until a collector's look at a tree is over, or its successor has the name

Method = Literal["present", "reflink", "hardlink", "copy"]


@dataclass(frozen=True)
class Materialised:
    """A folder that holds an artifact: where, how most of its bytes came to be there, in how many seconds."""

    path: Path
    method: Method
    seconds: float


def is_whole(layout: Layout, tree: Path, manifest: Manifest) -> bool:
    """Whether `tree` holds the manifest's files and no others, by names, sizes, modes and times. Raises OSError.

    Reads no bytes: a file is right when it is its blob's other name, or a copy that nobody wrote to.
    """
    try:
        if not stat.S_ISDIR(tree.lstat().st_mode):
            return False
        found = {path: status for path, _, status in walk(tree)}
        wanted = {entry.path: entry for entry in manifest.entries}
        return found.keys() == wanted.keys() and all(
            _is_right(layout, wanted[path], status) for path, status in found.items()
        )
    except (FileNotFoundError, Invalid):
        return False


def _is_right(layout: Layout, entry: Entry, status: os.stat_result) -> bool:
    if status.st_size != entry.size or mode_of(status.st_mode) != entry.mode:
        return False
    if status.st_nlink == 1:
        return status.st_mtime_ns == STAMP * 10**9
    blob = layout.blob(entry.sha256).lstat()
    return (status.st_dev, status.st_ino) == (blob.st_dev, blob.st_ino)


def take(tree: Path, *, alone: bool) -> int | None:
    """A descriptor that holds the folder `tree` until it is closed; None when it is absent, or, `alone`, being read.

    Readers share a tree. A collector holds it alone for no longer than it takes to see that nobody reads, so a
    reader waits for that: to take the tree for absent would make it anew below the next reader. Raises OSError.
    """
    while True:
        try:
            fd = locks.folder(tree, alone=alone)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        if fd is not None or alone:
            return fd
        time.sleep(_LOOK)


def is_present(layout: Layout, tree: Path, manifest: Manifest) -> bool:
    """Whether `tree` is whole, and then it counts as used from now on.

    Raises Invalid where trees/ is a link, OSError.
    """
    layout.own(tree.parent)
    fd = take(tree, alone=False)  # no remover between the look and the mark
    if fd is None:
        return False
    try:
        if not is_whole(layout, tree, manifest):
            return False
        with suppress(OSError):  # somebody else's folder, or a read-only one
            os.utime(fd)  # a tree's own time says when it was last used
        return True
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Built:
    """How a tree came to be: the way that most of its bytes took, and how many of them are a copy."""

    method: Method
    copied: int


def build(layout: Layout, tree: Path, manifest: Manifest) -> Built:
    """Make the absent folder `tree`. Raises Corrupt, OSError."""
    tree.mkdir()
    sizes: dict[Method, int] = {}
    for entry in manifest.entries:
        trouble = blobs.problem(layout, entry.sha256, entry.size)
        if trouble is not None:
            raise Corrupt(trouble, "build it again: what is broken counts as absent, and is replaced")
        target = tree / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        method = _place(layout, layout.blob(entry.sha256), target, entry)
        sizes[method] = sizes.get(method, 0) + entry.size
    os.utime(tree)  # used from now on, however long the copies took
    return Built(max(sizes, key=lambda method: sizes[method]), sizes.get("copy", 0))


def _place(layout: Layout, blob: Path, target: Path, entry: Entry) -> Method:
    with blob.open("rb") as source, target.open("xb") as copy:
        if blobs.clone(source.fileno(), copy.fileno()):
            return _finish(layout, target, entry, "reflink")
    target.unlink()
    # An executable file cannot be its blob's other name: names of one file share the mode.
    if entry.mode != EXECUTABLE and blobs.link(blob, target):
        return "hardlink"
    room.check(target.parent, entry.size)
    shutil.copyfile(blob, target, follow_symlinks=False)
    return _finish(layout, target, entry, "copy")


def _finish(layout: Layout, target: Path, entry: Entry, method: Method) -> Method:
    target.chmod(_mode(entry))
    os.utime(target, (STAMP, STAMP))
    layout.sync(target)
    return method


def _mode(entry: Entry) -> int:
    return 0o555 if entry.mode == EXECUTABLE else blobs.MODE
