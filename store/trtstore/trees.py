"""An artifact as a folder, made of its blobs: by reflink where the file system can, else hard link, else copy."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trtstore import blobs
from trtstore.errors import Corrupt, Invalid
from trtstore.layout import STAMP, Layout, walk
from trtstore.manifest import EXECUTABLE, Entry, Manifest, mode_of

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
    if status.st_mtime_ns == STAMP * 10**9:
        return True
    blob = layout.blob(entry.sha256).lstat()
    return (status.st_dev, status.st_ino) == (blob.st_dev, blob.st_ino)


def build(layout: Layout, tree: Path, manifest: Manifest) -> Method:
    """Make the absent folder `tree`; returns the way that most of its bytes took. Raises Corrupt, OSError."""
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
    return max(sizes, key=lambda method: sizes[method])


def _place(layout: Layout, blob: Path, target: Path, entry: Entry) -> Method:
    with blob.open("rb") as source, target.open("xb") as copy:
        if blobs.clone(source.fileno(), copy.fileno()):
            return _finish(layout, target, entry, "reflink")
    target.unlink()
    # An executable file cannot be its blob's other name: names of one file share the mode.
    if entry.mode != EXECUTABLE and blobs.link(blob, target):
        return "hardlink"
    shutil.copyfile(blob, target, follow_symlinks=False)
    return _finish(layout, target, entry, "copy")


def _finish(layout: Layout, target: Path, entry: Entry, method: Method) -> Method:
    target.chmod(_mode(entry))
    os.utime(target, (STAMP, STAMP))
    layout.sync(target)
    return method


def _mode(entry: Entry) -> int:
    return 0o555 if entry.mode == EXECUTABLE else blobs.MODE
