"""Where the Hub's client keeps a file, and taking a wrong copy away: nothing outside of that place is touched."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from huggingface_hub import constants


def folder(kind: str, repo: str) -> Path:
    """What the cache holds of a repository."""
    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}"


def cached(place: Path, commit: str, name: str, size: int) -> Path | None:
    """The file `name` as the cache `place` has it, if it is there with that many bytes; they are not compared."""
    path = place / "snapshots" / commit / name
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return path if stat.S_ISREG(status.st_mode) and status.st_size == size else None


def free(place: Path) -> int:
    """The bytes that fit where `place` is, or will be. Raises OSError."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def discard(place: Path, path: Path) -> Path | None:
    """Remove the entry `path` of the cache `place`, and the bytes that it stands for where they lie in its `blobs`.

    Returns where the bytes are that were left alone, as they are not the cache's; None when none are.
    """
    if not path.parent.resolve().is_relative_to(place.resolve()):
        return path
    if not path.is_symlink():
        path.unlink(missing_ok=True)
        return None
    target = Path(os.path.normpath(path.parent / path.readlink()))
    path.unlink()
    if target.parent.resolve() != (place / "blobs").resolve():
        return target
    # Also a link of the client's, to bytes that several repositories share: those are replaced when they come again.
    if stat.S_ISREG(mode := _mode(target)) or stat.S_ISLNK(mode):
        target.unlink()
    return None


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0
