"""Whether bytes will fit on the disk, asked before the first of them is written."""

from __future__ import annotations

import os
from pathlib import Path

from trtstore.errors import NoSpace, as_store_failures
from trtstore.units import format_size


def check(folder: Path, wanted: int) -> None:
    """Raises NoSpace where the file system of `folder` has fewer than `wanted` bytes free for this user.

    One that does not say how large it is takes what it takes.
    """
    with as_store_failures(folder, reading=True):
        statistics = os.statvfs(folder)
    free = statistics.f_bavail * statistics.f_frsize
    if statistics.f_blocks and wanted > free:
        raise NoSpace(
            f"{format_size(wanted)} are to be written to {folder}, and {format_size(free)} are free there",
            "free some space, or keep the store on another disk",
        )
