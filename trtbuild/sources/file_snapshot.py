"""Files as they were when they were hashed, so that a build can say afterwards that they still are."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trtbuild.errors import BuildError, InputError
from trtbuild.sources.base import Digester
from trtstore import StoreFailure, is_own_group


@dataclass(frozen=True)
class FileSnapshot:
    """One file's digest, and the stat that it had before and after it was read (size in bytes, times in ns)."""

    path: Path
    sha256: str
    size: int
    stat: tuple[int, ...]


def take_snapshots(paths: Sequence[Path], digester: Digester, option: str) -> list[FileSnapshot]:
    """Hash the files at `paths`. Raises InputError when one cannot be read, or changes meanwhile."""
    try:
        before = [_stat(path) for path in paths]
        digests = digester.file_digests(paths)
        after = [_stat(path) for path in paths]
    except StoreFailure as failure:  # the store hashes them, but it is not the store that is at fault
        raise InputError(failure.message, option=option, hint=failure.hint) from None
    except OSError as failure:
        raise InputError(f"{failure.filename} cannot be read: {failure.strerror}", option=option) from None
    for path, then, now in zip(paths, before, after, strict=True):
        if then != now:
            raise InputError(
                f"{path} changed while the checkpoint was read",
                option=option,
                hint="wait until it is written, then try again",
            )
    return [FileSnapshot(path, digest, its[0], its) for path, digest, its in zip(paths, digests, after, strict=True)]


def recheck(snapshots: Iterable[FileSnapshot], digester: Digester, option: str) -> None:
    """Raises BuildError for a file whose bytes are not those that were hashed, or were others for a while.

    Bytes are read again only if the stat differs: touching a file does not change it. But if others may write to the
    file, one of them may have put other bytes there for a moment; only the change time shows that.
    """
    try:
        doubtful = [seen for seen in snapshots if _stat(seen.path) != seen.stat]
        digests = digester.file_digests([seen.path for seen in doubtful])
    except StoreFailure as failure:
        raise BuildError(
            f"{failure.message}, so the build's result is thrown away", option=option, hint=failure.hint
        ) from None
    except OSError as failure:
        why = f"{failure.filename} can no longer be read: {failure.strerror}"
        raise BuildError(why, option=option, hint="put it back and build again") from None
    for seen, digest in zip(doubtful, digests, strict=True):
        if digest != seen.sha256:
            raise BuildError(
                f"{seen.path} changed during the build, so its result is thrown away",
                option=option,
                hint="build again when nothing writes to the checkpoint",
            )
        who = _others(seen.path)
        if who is not None:
            raise BuildError(
                f"{seen.path} was written or replaced during the build, and {who} may write there, so the build's "
                "result is thrown away",
                option=option,
                hint="build again when nothing writes to the checkpoint, or from a copy that only you may write",
            )


def _others(path: Path) -> str | None:
    """The other users, in words, who may change or replace the file at `path`; None if there are none."""
    real = Path(os.path.realpath(path))
    beside = Path(os.path.realpath(path.parent))
    for place in dict.fromkeys((beside, *beside.parents, *real.parents, real)):
        status = place.stat()
        if status.st_uid not in (os.geteuid(), 0):
            return f"the owner of {place}"
        sticky = place != real and status.st_mode & stat.S_ISVTX
        group = status.st_mode & stat.S_IWGRP and not is_own_group(status.st_gid)
        if (group or status.st_mode & stat.S_IWOTH) and not sticky:
            return f"others than the owner of {place}"
    return None


def _stat(path: Path) -> tuple[int, ...]:
    # The change time as well: a tool that restores the modification time cannot restore that.
    status = path.stat()
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
