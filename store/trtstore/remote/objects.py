"""Objects by name, in a bucket or a shared folder: all that a team store asks of the place where it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from trtstore.transfer.protocols import Readable


@dataclass(frozen=True)
class ObjectInfo:
    """An object: its name, bytes, and when it was put there in seconds since the epoch, by the place's own clock.

    Something under the name of an object that is not a regular file has -1 bytes.
    """

    name: str
    size: int
    modified: float


@dataclass(frozen=True)
class Stat(ObjectInfo):
    """As a listing has it, and a `stamp` that changes when the object is written anew."""

    stamp: str


class Objects(Protocol):
    """Named objects, each of which is there whole or not at all. `str` gives the URL without secrets.

    Names are `v1/…` with `/` between parts. Every method raises Unreachable where the place cannot be asked or does
    not answer in time, NotReadable or NotWritable where it refuses, and Corrupt where what is there is larger than it
    may be.
    """

    def read(self, name: str, limit: int) -> bytes | None:
        """The bytes of an object, at most `limit`; None where there is none."""

    def create(self, name: str, data: bytes) -> bool:
        """Put a new object there; False, and nothing is changed, where the name is taken.

        After it, and after `replace`, what is stored is what was sent, or NotWritable was raised.
        """

    def replace(self, name: str, data: bytes) -> None:
        """Put an object there, whatever had the name."""

    def size(self, name: str) -> int | None:
        """The bytes of an object; None where there is none."""

    def stat(self, name: str) -> Stat | None:
        """What the place says of an object; None where there is none."""

    def listed(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects whose names begin with `prefix`, which ends with `/`; in no order."""

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""

    def open(self, name: str, size: int) -> AbstractContextManager[Readable]:
        """The first `size` bytes of an object, read ahead in parts; fewer come only where it has fewer."""

    def upload(self, name: str, chunks: Iterator[bytes | memoryview], size: int) -> None:
        """Put an object of `size` bytes there, in parts and in bounded memory. What `chunks` raises leaves nothing.

        Unless the place `compares`, the caller has to look what was stored.
        """

    def compares(self) -> bool:
        """Whether the place refuses bytes that changed on their way to it. The first time it is tried, by writing."""
