"""A file as it was when it was hashed, so that a build can say afterwards that it still is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trtbuild.errors import BuildError, InputError
from trtbuild.sources.base import Digester


@dataclass(frozen=True)
class Sighting:
    """One file's digest, and the stat that it had before and after it was read (size in bytes, times in ns)."""

    path: Path
    sha256: str
    size: int
    stat: tuple[int, ...]


def see(path: Path, digester: Digester, option: str) -> Sighting:
    """Hash the file at `path`. Raises InputError when it cannot be read, or changes meanwhile."""
    try:
        before = _stat(path)
        digest = digester.file_digest(path)
        after = _stat(path)
    except OSError as failure:
        raise InputError(f"{path} cannot be read: {failure.strerror}", option=option) from None
    if before != after:
        raise InputError(
            f"{path} changed while it was read",
            option=option,
            hint="wait until it is written, then try again",
        )
    return Sighting(path, digest, after[0], after)


def recheck(sightings: Iterable[Sighting], digester: Digester, option: str) -> None:
    """Raises BuildError for a file whose bytes are no longer those that were hashed.

    Bytes are read again only when the stat differs: touching a file is not changing it.
    """
    for seen in sightings:
        try:
            same = _stat(seen.path) == seen.stat or digester.file_digest(seen.path) == seen.sha256
        except OSError as failure:
            why = f"{seen.path} can no longer be read: {failure.strerror}"
            raise BuildError(why, option=option, hint="put it back and build again") from None
        if not same:
            raise BuildError(
                f"{seen.path} changed during the build, so its result is thrown away",
                option=option,
                hint="build again when nothing writes to the checkpoint",
            )


def _stat(path: Path) -> tuple[int, ...]:
    # The change time as well: a tool that restores the modification time cannot restore that.
    found = path.stat()
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
