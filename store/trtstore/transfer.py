"""Artifacts from elsewhere: every byte is hashed as it arrives in tmp/; blobs get names first, the record last."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trtstore import blobs, gate, records, writeback
from trtstore.access import checked_manifest, manifest_bytes, named_blobs
from trtstore.blobs import Staged
from trtstore.digest import CHUNK, Aside, OnBytes, digest_of, hash_fd, hex_of, ignore_bytes
from trtstore.errors import Corrupt, Malformed, StoreFailure, Unreachable
from trtstore.layout import Layout
from trtstore.protocols import OnProgress, Readable, Reader, ignore_progress
from trtstore.records import Record

LARGE = 64 << 20  # bytes of a blob that gets its name as soon as it came


@dataclass(frozen=True)
class Received:
    """The record that a key now has, and whether it came just now: no usable one was there before."""

    record: Record
    new: bool


class Admit(Protocol):
    """How a store takes what is staged: `settle` while no collector decides, then the record, first one wins."""

    def __call__(
        self, key: str, envelope: bytes, staged: Sequence[Staged], wanted: Mapping[str, int], temporary: Path
    ) -> Received: ...


class Arrival:
    """One artifact on its way in: first its record, then its manifest, then each blob, then `finish`.

    Everything raises Corrupt where bytes are not what they should be, NoSpace and the like. Nothing is in the store
    before `finish`.
    """

    def __init__(self, layout: Layout, stage: Path, admit: Admit, key: str, envelope: bytes) -> None:
        self._layout, self._stage, self._admit = layout, stage, admit
        self._key, self._envelope = key, envelope
        self._staged: list[Staged] = []
        self._wanted: dict[str, int] = {}
        with _strictly():
            self.record = records.parse(envelope, key)

    def list_blobs(self, data: bytes) -> dict[str, int]:
        """Take the manifest, and return digits -> bytes of each blob that must come: in the manifest's order, then
        in that of the record's attachments."""
        with _strictly():
            listed = checked_manifest(self.record, data)
            needed = named_blobs(self.record, listed)
        digits = hex_of(self.record.manifest)
        self._wanted = {digits: len(data)} | needed
        if not self.has(digits, len(data)):
            self._staged.append(blobs.stage_bytes(self._layout, data, self._stage / digits))
        return needed

    def stored_manifest(self) -> bytes:
        """The bytes of the manifest when it is in the store already."""
        with _strictly():
            return manifest_bytes(self._layout, self.record.manifest)

    def has(self, digits: str, size: int) -> bool:
        """Whether the blob is in the store, and need not come."""
        if blobs.problem(self._layout, digits, size) is not None:
            return False
        # A second name, and the new ctime that comes with it, keep collectors from taking it before `finish`.
        target = self._stage / digits
        try:
            if not target.exists() and blobs.link(self._layout.blob(digits), target):
                self._staged.append(Staged(target, digits, size))
        except FileNotFoundError:
            return False  # collected in between
        return True

    def take(self, digits: str, size: int, file: Readable, on_bytes: OnBytes = ignore_bytes) -> None:
        """Stage a blob. One that is in the store is compared, and not written again."""
        if self.has(digits, size):
            _check(digits, size, *_copy(file, None, size, on_bytes))
        else:
            self._staged.append(_stage(self._layout, file, digits, size, self._stage / digits, on_bytes))

    def keep(self) -> None:
        """Put the blobs that came into the store without a record, for who tries again soon.

        A collector takes them after its grace period.
        """
        staged, self._staged = self._staged, []
        with gate.adding(self._layout):
            blobs.commit(self._layout, staged)

    def finish(self) -> Received:
        """Put what was staged into the store."""
        return self._admit(self._key, self._envelope, self._staged, self._wanted, self._stage / "record")


class Arrivals:
    """Artifacts that arrive one after the other, through one folder in tmp/."""

    def __init__(self, layout: Layout, stage: Path, admit: Admit) -> None:
        self._layout, self._stage, self._admit = layout, stage, admit

    def begin(self, key: str, envelope: bytes) -> Arrival:
        """An artifact whose record is `envelope`. Raises Corrupt when that is not a record of `key`."""
        return Arrival(self._layout, self._stage, self._admit, key, envelope)

    def receive(
        self, key: str, envelope: bytes, source: Reader, on_progress: OnProgress = ignore_progress
    ) -> Received:
        """Copy the artifact of `envelope` from `source`: only the blobs that are missing here travel.

        Raises Corrupt when a byte is not what it should be, Unreachable when `source` breaks off, and as a write.
        What came whole before `source` broke off is kept, and need not travel again.
        """
        arrival = self.begin(key, envelope)
        with _asking(source):
            data = source.manifest(arrival.record).encode()
        needed = arrival.list_blobs(data)
        missing = {digits: size for digits, size in needed.items() if not arrival.has(digits, size)}
        done, whole, came = 0, sum(missing.values()), 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            on_progress(done, whole)

        try:
            for digits, size in missing.items():
                with _opened(source, digits, size) as file:
                    arrival.take(digits, size, file, tell)
                came += 1
                if size >= LARGE:
                    arrival.keep()  # who is killed later need not fetch it again
        except (Unreachable, KeyboardInterrupt):
            if came:
                arrival.keep()
            raise
        return arrival.finish()


def settle(layout: Layout, staged: Sequence[Staged], wanted: Mapping[str, int]) -> None:
    """Commit the staged blobs; raises Corrupt unless all of `wanted` (digits -> bytes) are then there, OSError.

    For an `Admit`, which holds off collectors: the blobs that were there already may have gone meanwhile.
    """
    blobs.commit(layout, list(staged))
    for digits, size in wanted.items():
        trouble = blobs.problem(layout, digits, size)
        if trouble is not None:
            raise Corrupt(trouble, "try again: it was there a moment ago")


def _stage(layout: Layout, file: Readable, digits: str, size: int, target: Path, on_bytes: OnBytes) -> Staged:
    fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        cloned = _clone(file, size, fd)
        tell = writeback.early(fd, on_bytes) if layout.durable else on_bytes
        found = hash_fd(fd, size, on_bytes=on_bytes) if cloned else _copy(file, fd, size, tell)
        _check(digits, size, *found)
    finally:
        os.close(fd)
    blobs.seal(target)
    layout.sync(target)
    return Staged(target, digits, size)


def _clone(file: Readable, size: int, target: int) -> bool:
    """Share the blocks of a plain file. Nothing but FileIO: a decompressing stream has a descriptor too."""
    if not isinstance(file, io.FileIO):
        return False
    status = os.fstat(file.fileno())
    return stat.S_ISREG(status.st_mode) and status.st_size == size and blobs.clone(file.fileno(), target)


def _copy(file: Readable, target: int | None, size: int, on_bytes: OnBytes) -> tuple[str, int]:
    """(hex SHA-256, bytes) of `file`, copied to `target`; ends, unwritten, with the first byte beyond `size`."""
    done = 0
    with Aside(size) as digest:
        while data := _read(file, min(CHUNK, size - done + 1)):
            done += len(data)
            if done > size:
                break
            digest.update(data)
            if target is not None:
                _write_all(target, data)
            on_bytes(len(data))
        return digest.hexdigest(), done


def _read(file: Readable, count: int) -> bytes | memoryview:
    try:
        return file.read(count)
    except OSError as error:
        raise Unreachable(f"the source broke off: {error}") from error


def _write_all(target: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


def _check(digits: str, size: int, found: str, count: int) -> None:
    if count > size:
        raise Corrupt(f"the blob {digits} that came has more than {size} bytes")
    if count < size:
        raise Corrupt(f"the blob {digits} that came has {count} bytes, not {size}")
    if found != digits:
        raise Corrupt(f"the blob {digits} that came is not what its name says")


@contextmanager
def _strictly() -> Iterator[None]:
    try:
        yield
    except Malformed as trouble:
        raise Corrupt(str(trouble)) from None


@contextmanager
def _asking(source: Reader) -> Iterator[None]:
    """Tell what `source` could not do from what this store cannot."""
    try:
        yield
    except (Corrupt, Unreachable):
        raise
    except (StoreFailure, OSError) as error:
        raise Unreachable(f"{source} cannot be read: {error}") from error


@contextmanager
def _opened(source: Reader, digits: str, size: int) -> Iterator[Readable]:
    with ExitStack() as held:
        with _asking(source):
            file = held.enter_context(source.open_blob(digest_of(digits), size))
        yield file  # what the body raises is this store's affair, and passes through unchanged
