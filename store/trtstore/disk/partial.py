"""Large blobs that are half here: what a killed pull or a broken network left, for the next pull to go on from.

The writer of a file partial/<digits> holds a lock on it. Partial data is untrusted: a resumed download hashes it
first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trtstore.disk import locks
from trtstore.disk.layout import Layout, entries
from trtstore.errors import StoreFailure

KEPT = 86400.0  # seconds after its last byte


@contextmanager
def opened(layout: Layout, digits: str) -> Iterator[tuple[int, Path] | None]:
    """The file that has the beginning of the blob `digits`, empty where it is new: (descriptor, path).

    None while another process writes it. The caller renames it when it is complete. Raises Invalid, StoreFailure.
    """
    path = layout.make(layout.partial) / digits
    fd = locks.try_exclusive(path)
    if fd is None:
        yield None
        return
    try:
        # Its last holder may have renamed it between our opening and our lock: then it is not ours.
        yield (fd, path) if locks.is_at(fd, path) else None
    finally:
        os.close(fd)


def size(layout: Layout, digits: str) -> int:
    """Bytes of the blob `digits` that are here already. Raises Invalid, OSError."""
    try:
        return (layout.own(layout.partial) / digits).lstat().st_size
    except FileNotFoundError:
        return 0


def sweep(layout: Layout, kept: float = KEPT) -> None:
    """Remove what got no byte for `kept` seconds; what cannot be removed is left for the next time."""
    with suppress(StoreFailure, OSError):
        for path in entries(layout.own(layout.partial)):
            if time.time() - path.lstat().st_mtime > kept:
                _remove(path)


def _remove(path: Path) -> None:
    with suppress(StoreFailure, OSError):
        fd = locks.try_exclusive(path)
        if fd is not None:
            try:
                path.unlink()
            finally:
                os.close(fd)
