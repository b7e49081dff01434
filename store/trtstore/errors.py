"""What a store can refuse, each as one sentence that names the path, with a hint how to fix it, if there is one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StoreFailure(Exception):
    """The base of all: `message` is one sentence, `hint` says how to fix it, or is None."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Invalid(StoreFailure):
    """What was handed over, or stands in a store's own place, cannot be used: a malformed key, a symbolic link, …"""


class Corrupt(StoreFailure):
    """Bytes on disk are not what their name says, or changed while they were read."""


class NoSpace(StoreFailure):
    """The device is full, or the quota is used up."""


class NotWritable(StoreFailure):
    """The folder is read-only, or belongs to somebody else."""


class Exposed(StoreFailure):
    """Others may write to the folders of a store, so nothing says whose artifacts it has."""


class NotReadable(StoreFailure):
    """The permissions of a file forbid reading it."""


class TooManyOpenFiles(StoreFailure):
    """The process, or the machine, has no file descriptor left."""


class NoLocks(StoreFailure):
    """The file system has no flock(2): two builds of one key could not exclude each other."""


class Busy(StoreFailure):
    """A lock was not to be had in the time given."""


class Unreachable(StoreFailure):
    """Another store cannot be asked, or broke off in the middle."""


class Silent(Unreachable):
    """It did not answer in time, or sends its bytes slower than any link: it is not asked again at once."""


class Mismatch(Corrupt):
    """The bytes of the blob `digits`, which came from elsewhere, are not those of its name."""

    def __init__(self, digits: str, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.digits = digits


class Untrusted(Corrupt):
    """A record from elsewhere has no trusted signature, or its artifact was revoked."""


class Malformed(ValueError):
    """Stored bytes do not parse. It is not a StoreFailure, as `lookup` turns it into a miss."""


_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
_DECAYED = {errno.EIO, errno.EBADMSG, errno.EUCLEAN}
_LOCKLESS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def from_os(error: OSError, path: Path, *, reading: bool = False) -> StoreFailure:
    """The StoreFailure for what the operating system refused while working on `path` (a store or a file)."""
    reason = (error.strerror or str(error)).lower()
    # The store's root tells a user more than a temporary file's name: add the file only where it differs.
    inner = error.filename
    place = f" ({os.fsdecode(inner)})" if isinstance(inner, str | bytes) and os.fsdecode(inner) != str(path) else ""
    if error.errno in _FULL:
        return NoSpace(f"cannot write to {path}: {reason}", "free some space, or keep the store on another disk")
    if error.errno in _DESCRIPTORS:
        return TooManyOpenFiles(f"cannot open {path}: {reason}{place}", "raise the limit: `ulimit -n 4096`")
    if error.errno in _DENIED and reading:
        return NotReadable(f"cannot read {path}: {reason}{place}", "check the owner and mode of the file")
    if error.errno in _DENIED:
        return NotWritable(
            f"cannot write to {path}: {reason}{place}",
            "check its owner, mode and mount, or choose another folder",
        )
    hint = "look at the disk; `trtstore verify` moves what cannot be read away" if is_decay(error) else None
    return StoreFailure(f"cannot {'read' if reading else 'write to'} {path}: {reason}{place}", hint)


def is_decay(error: OSError) -> bool:
    """Whether an opened file cannot be read because the disk, or its file system, lost its content."""
    return error.errno in _DECAYED


@contextmanager
def decayed(path: Path | str | None = None) -> Iterator[None]:
    """Raise as Malformed what the disk does not give, of `path` or of the file that the error names.

    Not for code that removes what does not parse: a disk may fail once.
    """
    try:
        yield
    except OSError as error:
        if not is_decay(error):
            raise
        reason = (error.strerror or str(error)).lower()
        raise Malformed(f"{path or error.filename or 'it'} cannot be read: {reason}") from error


def no_locks(error: OSError, path: Path) -> StoreFailure:
    """The StoreFailure for a lock on `path` that could not be taken at all (as opposed to: is held)."""
    if error.errno in _LOCKLESS:
        return NoLocks(f"the file system of {path} has no file locks", "keep the store on a local disk")
    return from_os(error, path)


@contextmanager
def as_store_failures(path: Path, *, reading: bool = False) -> Iterator[None]:
    """Raise an OSError of the body as the StoreFailure that names `path`.

    >>> with as_store_failures(Path("absent"), reading=True):
    ...     Path("absent").read_bytes()
    Traceback (most recent call last):
    trtstore.errors.StoreFailure: cannot read absent: no such file or directory
    """
    try:
        yield
    except OSError as error:
        raise from_os(error, path, reading=reading) from error
