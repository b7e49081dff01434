"""File locks that the kernel frees when their holder dies, however it dies: flock(2), and nothing that is left over.

A lock file left on disk means nothing; only a held flock does. (The `filelock` package takes the same lock, but
has no shared mode, and falls back to lock files that outlive a SIGKILL where flock is missing.)
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trtstore.disk.layout import read_bounded
from trtstore.errors import Busy, Invalid, no_locks
from trtstore.format import canonical_json

POLL = 0.05  # seconds between attempts while waiting
PATIENCE = 600.0  # seconds for a lock that is never held longer, unless its holder was stopped
TELL = 1.0  # seconds between two calls of on_wait
_MAX_NOTE = 4096  # bytes of a lock file that are read
_MAX_WHO = 300  # characters, each at most twelve bytes of JSON


@dataclass(frozen=True)
class Holder:
    """The holder of a lock: process id (0 if not known), a text for people, and since when, in seconds of the epoch."""

    pid: int
    who: str
    started: float


OnWait = Callable[[Holder], None]


@contextmanager
def exclusive(
    path: Path,
    *,
    who: str = "",
    on_wait: OnWait | None = None,
    patience: float = math.inf,
    keep: bool = False,
) -> Iterator[None]:
    """Hold the lock `path` exclusively, waiting for `patience` seconds; `on_wait` is called about every second.

    The file is removed afterwards unless `keep`, so that a folder of per-key locks stays small. Raises Busy when
    patience ends, Invalid where `path` is no lock file, NoLocks, NotWritable, StoreFailure. A thread that asks twice
    waits for itself.
    """
    fd = _wait(path, on_wait, patience)
    try:
        _sign(fd, who)
        yield
    finally:
        with suppress(OSError):
            if not keep and is_at(fd, path):
                path.unlink()  # under the lock: those who wait for the old file see that it is gone, and start again
        os.close(fd)


@contextmanager
def shared(path: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock `path` together with others, and against who holds it alone. Raises as `exclusive`."""
    fd = _open(path)
    started, pause = time.monotonic(), 0.001
    while not _attempt(fd, path, fcntl.LOCK_SH):
        if time.monotonic() - started > patience:
            os.close(fd)
            raise _busy(path, patience)
        time.sleep(pause)
        pause = min(2 * pause, POLL)
    try:
        yield
    finally:
        os.close(fd)


def try_exclusive(path: Path) -> int | None:
    """A descriptor that holds the lock `path` until it is closed, or None when somebody else has it."""
    fd = _open(path)
    if _attempt(fd, path, fcntl.LOCK_EX):
        return fd
    os.close(fd)
    return None


def held_since(path: Path) -> float | None:
    """When the lock `path` was taken, in seconds since the epoch (its file's mtime); None if it is free.

    The lock is tried, shared, and released at once. Only a regular file can be held. Raises OSError.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.fstat(fd).st_mtime
    finally:
        os.close(fd)
    return None


def folder(path: Path, *, alone: bool) -> int | None:
    """A descriptor that holds the folder `path` itself, alone or together with others, until it is closed.

    None when the folder is held against that, or lost its name meanwhile. Where folders cannot be locked (some
    network file systems) the descriptor holds nothing. Raises OSError if there is no such folder.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        return fd
    try:
        here = is_at(fd, path)
    except OSError:
        os.close(fd)
        raise
    if here:
        return fd
    os.close(fd)
    return None


def _wait(path: Path, on_wait: OnWait | None, patience: float) -> int:
    started = told = time.monotonic()
    while True:
        fd = try_exclusive(path)
        if fd is not None:
            if _is_ours(fd, path):
                return fd
            os.close(fd)
            continue  # its last holder removed it in between: the lock of that file guards nothing any more
        if on_wait is not None and time.monotonic() - told >= TELL:
            told = time.monotonic()
            on_wait(_holder(path))
        if time.monotonic() - started > patience:
            raise _busy(path, patience)
        time.sleep(POLL)


def _open(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise no_locks(error, path) from error
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:  # 0: its last holder has just removed it
        return fd
    os.close(fd)
    # A second name may be somebody else's file, which a note would overwrite, or another lock, which would then be
    # waited for by its own holder.
    raise Invalid(
        f"{path} is no regular file with one name, and can be no lock",
        "remove it: a lock file that nobody holds means nothing",
    )


def _busy(path: Path, patience: float) -> Busy:
    holder = _holder(path)
    hint = f"is the process {holder.pid} stopped? `kill -CONT {holder.pid}`, or end it" if holder.pid else None
    return Busy(f"{path} is held by {holder.who or 'another process'}, for more than {patience:.0f} seconds", hint)


def _attempt(fd: int, path: Path, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        os.close(fd)
        raise no_locks(error, path) from error
    return True


def _is_ours(fd: int, path: Path) -> bool:
    """As `is_at`; where that cannot be told the descriptor is closed, which frees the lock. Raises as `exclusive`."""
    try:
        return is_at(fd, path)
    except OSError as error:
        os.close(fd)
        raise no_locks(error, path) from error


def is_at(fd: int, path: Path) -> bool:
    """Whether the open file `fd` is still the one that has the name `path`. Raises OSError."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _sign(fd: int, who: str) -> None:
    # The note is for people: a full disk must not keep a build from starting.
    note = json.dumps({"pid": os.getpid(), "who": who[:_MAX_WHO], "started": time.time()}).encode()
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, note, 0)


def _holder(path: Path) -> Holder:
    # Anybody may have written the note, and its words end up on a terminal.
    try:
        note = canonical_json.parse(read_bounded(path, _MAX_NOTE) or b"", "the note")
        pid, who, started = note["pid"], str(note["who"]), float(note["started"])
        if type(pid) is not int:
            raise TypeError("its process is no number")
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return Holder(0, "another process", time.time())  # it is just signing, or just leaving
    printable = "".join(character for character in who if character.isprintable())
    return Holder(pid, printable, started)
