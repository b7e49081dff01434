"""Files as they were when they were hashed, so that a build can say afterwards that they still are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trtbuild.errors import BuildError, InputError
from trtbuild.sources.base import Digester
from trtstore import StoreFailure


@dataclass(frozen=True)
class Sighting:
    """One file's digest, and the stat that it had before and after it was read (size in bytes, times in ns)."""

    path: Path
    sha256: str
    size: int
    stat: tuple[int, ...]


def see(paths: Sequence[Path], digester: Digester, option: str) -> list[Sighting]:
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
    return [
        Sighting(path, digest, stat[0], stat)
        for path, digest, stat in zip(paths, digests, after, strict=True)
    ]


def recheck(sightings: Iterable[Sighting], digester: Digester, option: str) -> None:
    """Raises BuildError for a file whose bytes are no longer those that were hashed.

    Bytes are read again only where the stat differs: touching a file is not changing it.
    """
    try:
        doubtful = [seen for seen in sightings if _stat(seen.path) != seen.stat]
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


def _stat(path: Path) -> tuple[int, ...]:
    # The change time as well: a tool that restores the modification time cannot restore that.
    found = path.stat()
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
