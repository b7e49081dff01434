"""A store that is only read: somebody else's, or a mounted one. Nothing is written, no time stamp and no lock."""

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
from trtstore.errors import Corrupt, Invalid, Malformed, translated
from trtstore.format.digest import checked_key, hex_of
from trtstore.format.manifest import Manifest
from trtstore.format.record import Record
from trtstore.marks import doubts
from trtstore.marks.doubts import Doubt

log = logging.getLogger("trtstore")


class ReadOnly:
    """The store of `layout`, to be read: a `Reader`. It may be written by others meanwhile."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @classmethod
    def open(cls, root: Path) -> ReadOnly:
        """The store below `root`, which need not exist. Raises Exposed where everybody may write to it."""
        layout = Layout(root.absolute())
        with translated(layout.root, reading=True):
            owners.check_other(layout)
        return cls(layout)

    def __str__(self) -> str:
        return str(self.layout.root)

    def lookup(self, key: str, *, on_problem: Callable[[str], None] | None = None) -> Record | None:
        """As `Store.lookup`; a blob with other times than a store gives is hashed each time, and left as it is."""
        checked_key(key)
        with translated(self.layout.root, reading=True):
            return read.lookup(self.layout, key, on_problem or log.warning, mend=False)

    def doubt(self, key: str) -> Doubt | None:
        """As `Store.doubt`: what its owner was told, who reads it should know."""
        with translated(self.layout.root, reading=True):
            return doubts.of(self.layout, checked_key(key))

    def blob_path(self, digest: str) -> Path | None:
        """The file that holds the bytes of "sha256:<64 hex>", or None. For reading only."""
        try:
            path = self.layout.blob(hex_of(digest))
        except Malformed as trouble:
            raise Invalid(str(trouble)) from None
        if self.layout.link_above(path) is not None or path.is_symlink():
            return None
        return path if path.is_file() else None

    def keys(self) -> Iterator[str]:
        """The keys that have a record, sorted; whether one is usable only `lookup` says."""
        with translated(self.layout.root, reading=True):
            yield from read.keys(self.layout)

    def envelope(self, key: str) -> bytes:
        """The bytes of the record of `key`. Raises Corrupt when it is not there, NotReadable and the like."""
        with translated(self.layout.root, reading=True), _corrupt():
            return read.read_envelope(self.layout, checked_key(key))

    def manifest(self, record: Record) -> Manifest:
        """The record's manifest, strictly parsed; its blobs may be there or not. Raises as `envelope`."""
        with translated(self.layout.root, reading=True), _corrupt():
            return read.read_manifest(self.layout, record.manifest)

    @contextmanager
    def open_blob(self, digest: str, size: int) -> Iterator[io.FileIO]:
        """The file with the bytes of `digest`, at its beginning. Raises as `envelope`; reads no byte itself."""
        with translated(self.layout.root, reading=True), _corrupt():
            place = self.layout.blob(hex_of(digest))
            link = self.layout.link_above(place)
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
