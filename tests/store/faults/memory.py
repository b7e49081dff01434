"""A folder in memory, for tests that make thousands of small stores."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108  # a private folder is made in it


@contextmanager
def folder() -> Iterator[Path]:
    """A private folder, in memory where the machine has a tmpfs that may be written to, else on disk."""
    where = SHM if SHM.is_dir() and os.access(SHM, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="trtstore-", dir=where, ignore_cleanup_errors=True) as name:
        yield Path(name).resolve()
