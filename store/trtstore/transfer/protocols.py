"""The protocols of a store that others read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from trtstore.errors import StoreFailure
from trtstore.format.manifest import Manifest
from trtstore.format.record import Record
from trtstore.marks.doubts import Doubt

#: Told (bytes done, bytes in all).
OnProgress = Callable[[int, int], None]


def ignore_progress(_done: int, _all: int) -> None:
    """An OnProgress that does nothing."""


class Readable(Protocol):
    """A binary stream, read once from its beginning to its end."""

    def read(self, size: int, /) -> bytes | memoryview: ...


@runtime_checkable
class Skipping(Readable, Protocol):
    """A stream whose beginning need not be read."""

    def skip(self, count: int, /) -> None:
        """Go on behind the first `count` bytes; only before anything was read."""


class Writable(Protocol):
    """A binary stream, written from its beginning to its end; says how many bytes it took."""

    def write(self, data: memoryview, /) -> int: ...


class Reader(Protocol):
    """A store that can be read: this one, somebody else's, or one across a network.

    What it answers is trusted for nothing but what the caller hashes again. Its methods raise StoreFailure: Corrupt
    if the object is not there or not what its name says, another one if the store cannot be reached.
    """

    def lookup(self, key: str, *, on_problem: Callable[[str], None] | None = None) -> Record | None:
        """The record of `key`, or None; the reason why a record cannot be used goes to `on_problem`."""

    def doubt(self, key: str) -> Doubt | None:
        """What a store that takes the artifact of `key` must remember against it; asked after `lookup`."""

    def keys(self) -> Iterator[str]:
        """The keys that have a record, sorted."""

    def envelope(self, key: str) -> bytes:
        """The bytes of the record of `key`, signatures included."""

    def manifest(self, record: Record) -> Manifest:
        """The list of the record's files."""

    def open_blob(self, digest: str, size: int) -> AbstractContextManager[Readable]:
        """The bytes of "sha256:<64 hex>", which should be `size`. An `io.FileIO` may be shared by reflink."""


@runtime_checkable
class Failing(Protocol):
    """A store that remembers what could not be taken from it."""

    def failed(self, key: str, trouble: StoreFailure) -> None:
        """It has a record of `key` that is believed, and the artifact did not come whole."""
