"""Private folders in tmp/: removed at their end, and swept by the next writer when their process was killed.

A folder tmp/<name>/ holds `lock`, flocked for as long as its process lives, and `work/`, which is handed out.
`locks/tmp` is held shared while a folder is made and alone while tmp/ is swept, so that no folder is swept
between its creation and its lock.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trtstore import locks
from trtstore.errors import StoreFailure, translated
from trtstore.layout import Layout


@contextmanager
def folder(layout: Layout) -> Iterator[Path]:
    """An empty folder of mode 0700 on the store's own file system. Raises NotWritable, NoSpace and the like."""
    with translated(layout.root):
        layout.make(layout.tmp)
        layout.make(layout.locks)
    with locks.shared(layout.lock("tmp")), translated(layout.root):
        home = layout.tmp / f"{os.getpid()}.{secrets.token_hex(8)}"
        home.mkdir(mode=0o700)
        try:
            fd = locks.try_exclusive(home / "lock")
            work = home / "work"
            work.mkdir(mode=0o700)
        except (OSError, StoreFailure):
            remove(home)
            raise
    try:
        yield work
    finally:
        remove(home)
        if fd is not None:
            os.close(fd)


def sweep(layout: Layout) -> None:
    """Remove what killed processes left in tmp/; what cannot be removed is left for the next time."""
    try:
        gate = locks.try_exclusive(layout.lock("tmp"))
    except StoreFailure:
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
    if home.is_symlink() or not home.is_dir() or not (home / "lock").exists():
        remove(home)
        return
    with suppress(StoreFailure):
        fd = locks.try_exclusive(home / "lock")
        if fd is not None:
            remove(home)
            os.close(fd)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all below it, read-only folders too, as far as possible."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        for place, _, _ in os.walk(path):
            with suppress(OSError):
                Path(place).chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)
