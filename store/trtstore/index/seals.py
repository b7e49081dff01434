"""Which files still have the bytes that were hashed here: known by inode, size, mtime and ctime, without reading.

Who may write to a file can put its mtime back, but not its ctime: that takes root, or another clock. A link that is
made or removed changes the ctime as well, so the store seals a blob again after its own links. Where a seal is missing
or broken the bytes are read once. Rows are kept in the index; one row speaks for all files of an artifact, so a hit
costs one row and one look at each file. The row is believed as far as the index is.

Where the kernel keeps a file (`verity`), its digest is a second row, and must be the same, too: root cannot set that.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from trtstore.disk import verity
from trtstore.disk.hashing import OnBytes, hash_fd, ignore_bytes
from trtstore.format.canonical_json import Json
from trtstore.format.names import blob_name
from trtstore.index.index import Index

GRAIN = 0.011  # seconds within which two changes of a file may leave one ctime: a tick of the kernel's, at most
COARSE = 2.0  # the same, on a file system that keeps whole seconds
SMALL = 1 << 16  # bytes: to read so many again takes no longer than to look a row up
TRIES = 2  # reads of a file that somebody links meanwhile

BLOB, ARTIFACT, TREE = "seal", "sealed", "sealed-tree"  # tables of the index
#: What is theirs beside it, where the kernel keeps a file.
_VERITY = {BLOB: "seal-verity", ARTIFACT: "sealed-verity"}


class Seals:
    """The seals of one store. Threads may share them. Nothing here fails: what cannot be kept is read again."""

    def __init__(self, index: Index, base: Path) -> None:
        self._index = index
        self._base = base
        self._known: dict[str, list[Json]] = {}
        self._new: dict[str, os.stat_result] = {}
        self._turn = threading.Lock()

    def is_right(self, digits: str, status: os.stat_result) -> bool:
        """Whether the blob `digits`, whose lstat is given, has the bytes that were hashed. Reads none."""
        now = _identity(status)
        if self._known.get(digits) == now:
            return True
        if is_foreign(status):
            return False  # its owner may write to it at any time
        if self._fixed:
            return True
        if status.st_size < SMALL or self._index.get(BLOB, digits) != now:
            return False
        kept = self._index.get(_VERITY[BLOB], digits)
        return kept is None or kept == self._measured(digits, status)

    def keep(self, digits: str, status: os.stat_result) -> None:
        """The blob with that lstat has the right bytes. Kept on disk by `flush`."""
        with self._turn:
            self._known[digits] = _identity(status)
            if status.st_size >= SMALL and not is_foreign(status):
                self._new[digits] = status

    @contextmanager
    def linking(self, digits: str, place: Path) -> Iterator[None]:
        """Keep the seal of the blob at `place` while the body makes or removes a link to it. Raises OSError."""
        before = place.lstat()
        right = self.is_right(digits, before)
        yield
        after = place.lstat()
        if right and _identity(before)[:3] == _identity(after)[:3]:
            self.keep(digits, after)

    def read(self, digits: str, path: Path, size: int, on_bytes: OnBytes = ignore_bytes) -> bool:
        """Whether the file `path` has `size` bytes whose SHA-256 is `digits`: they are read. Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            for _ in range(TRIES):
                os.lseek(fd, 0, os.SEEK_SET)
                before = os.fstat(fd)
                if hash_fd(fd, size, on_bytes=on_bytes) != (digits, size):
                    return False
                if _identity(before) == _identity(os.fstat(fd)):
                    self.keep(digits, before)
                    break
        finally:
            os.close(fd)
        return True

    def settle(self, others: Mapping[str, os.stat_result]) -> None:
        """Wait, outside of any transaction, until what `keep` was told of, and `others`, can be written down."""
        with self._turn:
            statuses = [*self._new.values(), *others.values()]
        if statuses:
            _settled(dict(enumerate(statuses)))

    def flush(self) -> None:
        """Write down what `keep` was told."""
        with self._turn:
            new, self._new = self._new, {}
        if new and _settled(new):
            with self._index.batch():
                for digits, status in new.items():
                    self._index.put(BLOB, digits, _identity(status))
                    self._keep_verity(BLOB, digits, self._measured(digits, status))

    def holds(self, table: str, name: str, statuses: Mapping[str, os.stat_result]) -> bool:
        """Whether the files `found` are those that `hold` was told of under this name."""
        if not statuses:
            return True
        total = _sum(statuses)
        if total is None:
            return False
        if self._index.get(table, name) != total:
            return self._fixed
        kept = self._index.get(_VERITY[table], name) if table in _VERITY else None
        return kept is None or kept == self._measures(statuses)

    def hold(self, table: str, name: str, statuses: Mapping[str, os.stat_result]) -> None:
        """Write down, in one row, that the files of `statuses`, by digits or paths, have the right bytes."""
        total = _sum(statuses) if statuses else None
        if total is not None and _settled(statuses):
            self._index.put(table, name, total)
            if table in _VERITY:
                self._keep_verity(table, name, self._measures(statuses))

    def believe(self, statuses: Mapping[str, os.stat_result]) -> None:
        """The blobs `found`, by digits, are right, as `holds` has just said."""
        with self._turn:
            self._known |= {digits: _identity(status) for digits, status in statuses.items()}

    def forget(self, *, keys: list[str], trees: list[str], blobs: list[str]) -> None:
        """Drop the rows of what is gone."""
        self._index.forget(TREE, trees)
        for table, names in ((ARTIFACT, keys), (BLOB, blobs)):
            self._index.forget(table, names)
            self._index.forget(_VERITY[table], names)

    def _measured(self, digits: str, status: os.stat_result) -> str | None:
        return verity.measured(f"{self._base}/{blob_name(digits)}", status)

    def _measures(self, statuses: Mapping[str, os.stat_result]) -> str | None:
        """One text for what the kernel says of the blobs `found`; None where it keeps none of them."""
        kept = {digits: self._measured(digits, status) for digits, status in statuses.items()}
        if not any(kept.values()):
            return None
        lines = sorted(f"{digits}\0{digest or ''}" for digits, digest in kept.items())
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()

    def _keep_verity(self, table: str, name: str, what: str | None) -> None:
        if what is not None:
            self._index.put(_VERITY[table], name, what)
        elif self._index.get(_VERITY[table], name) is not None:
            self._index.forget(_VERITY[table], [name])  # the store was copied, or an older release wrote

    @cached_property
    def _fixed(self) -> bool:
        """Whether only root can write to the store: then no seal can be kept, and none is needed."""
        try:
            if os.statvfs(self._base).f_flag & os.ST_RDONLY:
                return True
            return os.geteuid() != 0 and self._base.stat().st_uid == 0 and not os.access(self._base, os.W_OK)
        except OSError:
            return False


def is_foreign(status: os.stat_result) -> bool:
    """Whether a file belongs to neither this user nor root: its bytes are hashed whenever they are to be used."""
    return status.st_uid not in (0, os.geteuid())


def _identity(status: os.stat_result) -> list[Json]:
    # Not the device: many file systems get another number with each mount.
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _sum(statuses: Mapping[str, os.stat_result]) -> str | None:
    """One text for all of `found`; None where a file of another user is among them."""
    trusted, lines = {0, os.geteuid()}, []
    for name, its in statuses.items():
        if its.st_uid not in trusted:
            return None
        lines.append(f"{name}\0{its.st_ino} {its.st_size} {its.st_mtime_ns} {its.st_ctime_ns}")
    lines.sort()
    return hashlib.blake2b("\n".join(lines).encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _settled(statuses: Mapping[Any, os.stat_result]) -> bool:
    """Whether a change of these files from now on gives them another ctime; waits for that, where it is soon."""
    newest = max(status.st_ctime_ns for status in statuses.values())
    if newest % 10**9 == 0:  # whole seconds are all that the file system keeps, or a rare accident
        return time.time() - newest / 1e9 > COARSE
    if time.time() - newest / 1e9 < GRAIN:  # a clock ahead of this one, too
        time.sleep(GRAIN)
    return True
