"""Private folders in tmp/: removed at their end, and swept by the next writer when their process was killed.

A folder tmp/<name>/ holds `lock`, flocked for as long as its process lives, and `work/`, which is handed out.
`locks/tmp` is held shared while a folder is made and alone while tmp/ is swept, so that no folder is swept
between its creation and its lock.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trtstore.disk import locks, partial
from trtstore.disk.layout import Layout
from trtstore.errors import Busy, StoreFailure, as_store_failures

PATIENCE = 10.0  # seconds for a lock that only its maker has a reason to hold


@contextmanager
def folder(layout: Layout) -> Iterator[Path]:
    """An empty folder of mode 0700 on the store's own file system. Raises NotWritable, NoSpace, StoreFailure."""
    with as_store_failures(layout.root):
        layout.make(layout.tmp)
        layout.make(layout.locks)
    with locks.shared(layout.lock("tmp")), as_store_failures(layout.root):
        home = layout.tmp / f"{os.getpid()}.{secrets.token_hex(8)}"
        fd = _make(home)
    try:
        yield home / "work"
    finally:
        # The lock first: where descriptors have run out, the removal needs this one. A sweeper may then help.
        os.close(fd)
        remove_folder(home)


def _make(home: Path) -> int:
    """Make the folder `home`; returns the descriptor that holds its lock."""
    fd: int | None = None
    home.mkdir(mode=0o700)
    try:
        fd = _lock(home / "lock")
        (home / "work").mkdir(mode=0o700)
    except (OSError, StoreFailure):
        if fd is not None:
            os.close(fd)
        remove_folder(home)
        raise
    return fd


def _lock(path: Path) -> int:
    """A descriptor that holds the new lock `path`. A collection, which tries all locks, has it for a moment."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        fd = locks.try_exclusive(path)
        if fd is not None:
            return fd
        time.sleep(0.001)
    raise Busy(f"{path} is new, and somebody else holds it")


def sweep(layout: Layout) -> None:
    """Remove what killed processes left in tmp/, and old beginnings of blobs; what cannot be removed is left for the
    next time."""
    partial.sweep(layout)
    try:
        if not layout.own(layout.tmp).is_dir():
            return  # nothing is there
        layout.make(layout.locks)
        gate = locks.try_exclusive(layout.lock("tmp"))
    except (StoreFailure, OSError):
        return  # the write that follows says why
    if gate is None:
        return  # another process is just making a folder, or sweeping
    try:
        with suppress(OSError):
            for home in layout.tmp.iterdir():
                _sweep_one(home)
    finally:
        os.close(gate)


def _sweep_one(home: Path) -> None:
    lock = home / "lock"
    if home.is_symlink() or lock.is_symlink() or not lock.is_file():  # not a lock, so nothing is held
        remove_folder(home)
        return
    with suppress(StoreFailure):
        fd = locks.try_exclusive(lock)
        if fd is not None:
            remove_folder(home)
            os.close(fd)


def remove_folder(path: Path) -> None:
    """Remove a file, a link, or a folder with all below it, read-only folders included, as far as possible.

    Needs one descriptor at a time (shutil.rmtree: two for each level), so that it works where they have run out.

    >>> Path("old").mkdir()
    >>> remove_folder(Path("old"))
    >>> Path("old").exists()
    False
    """
    with suppress(OSError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        with suppress(OSError):  # another member's, in a store that a group shares
            path.chmod(0o700)
        with suppress(OSError):
            for inner in list(path.iterdir()):
                remove_folder(inner)
        path.rmdir()
