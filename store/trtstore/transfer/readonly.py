"""Reading a store, also one of another user or on a read-only mount. Nothing is written: no time stamp and no lock."""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trtstore.content import read
from trtstore.disk import owners
from trtstore.disk.layout import Layout
from trtstore.errors import Corrupt, Invalid, Malformed, as_store_failures
from trtstore.format.digest import checked_key, hex_of
from trtstore.format.manifest import Manifest
from trtstore.format.record import Record
from trtstore.marks import doubts
from trtstore.marks.doubts import Doubt

log = logging.getLogger("trtstore")


class ReadOnly:
    """The store below a root folder, for reading: a `Reader`. Others may write to it meanwhile.

    >>> other = ReadOnly.open(store.root)
    >>> other.lookup(key).labels["model"], list(other.keys()) == [key]
    ('llama', True)
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.root = layout.root

    @classmethod
    def open(cls, root: Path) -> ReadOnly:
        """The store below `root`, which need not exist. Raises Exposed if everybody may write to it."""
        layout = Layout(root.absolute())
        with as_store_failures(layout.root, reading=True):
            owners.check_other(layout)
        return cls(layout)

    def __str__(self) -> str:
        return str(self.root)

    def lookup(self, key: str, *, on_problem: Callable[[str], None] | None = None) -> Record | None:
        """The record of `key` if all that it names is there, else None.

        Checks the forms of record and manifest, and size and times of each blob. Reads no blob, except one with other
        times than a store gives, which is hashed each time. A record that is there and cannot be used is passed to
        `on_problem` (by default, logged). Raises Invalid for a malformed key, NotReadable, StoreFailure.
        """
        checked_key(key)
        with as_store_failures(self.root, reading=True):
            return read.lookup(self._layout, key, on_problem or log.warning, mend=False)

    def doubt(self, key: str) -> Doubt | None:
        """What is known against the artifact of `key`, which may still be used; None if nothing is.

        Raises NotReadable, StoreFailure.
        """
        with as_store_failures(self.root, reading=True):
            return doubts.of(self._layout, checked_key(key))

    def blob_path(self, digest: str) -> Path | None:
        """The file that holds the bytes of "sha256:<64 hex>", or None. For reading only."""
        try:
            path = self._layout.blob(hex_of(digest))
        except Malformed as trouble:
            raise Invalid(str(trouble)) from None
        if self._layout.link_above(path) is not None or path.is_symlink():
            return None
        return path if path.is_file() else None

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin with `prefix` and have a record, sorted; whether one is usable only `lookup` says."""
        with as_store_failures(self.root, reading=True):
            yield from read.keys(self._layout, prefix)

    def envelope(self, key: str) -> bytes:
        """The bytes of the record of `key`. Raises Corrupt if it is not there, NotReadable, StoreFailure."""
        with as_store_failures(self.root, reading=True), _corrupt():
            return read.read_envelope(self._layout, checked_key(key))

    def manifest(self, record: Record) -> Manifest:
        """The record's manifest, strictly parsed; its blobs may be there or not. Raises as `envelope`."""
        with as_store_failures(self.root, reading=True), _corrupt():
            return read.read_manifest(self._layout, record.manifest)

    @contextmanager
    def open_blob(self, digest: str, size: int) -> Iterator[io.FileIO]:
        """The file with the bytes of `digest`, at its beginning. Raises as `envelope`; reads no byte itself."""
        with as_store_failures(self.root, reading=True), _corrupt():
            place = self._layout.blob(hex_of(digest))
            link = self._layout.link_above(place)
            if link is not None:
                raise Malformed(f"{link} is a symbolic link, and what it leads to is not the store's")
            try:
                fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                raise Malformed(f"the blob {place} is not there") from None
        with io.FileIO(fd) as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                raise Corrupt(f"the blob {place} is no regular file of {size} bytes")
            yield file


@contextmanager
def _corrupt() -> Iterator[None]:
    try:
        yield
    except Malformed as trouble:
        raise Corrupt(str(trouble)) from None
