"""Artifacts from elsewhere: every byte is hashed as it arrives; blobs get names first, the record last."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trtstore.content import blobs
from trtstore.content.blobs import Staged
from trtstore.content.read import checked_manifest, manifest_bytes, named_blobs, refuse_revoked
from trtstore.disk import free_space, gate, partial
from trtstore.disk.hashing import OnBytes, ignore_bytes, in_threads, side_by_side
from trtstore.disk.layout import Layout
from trtstore.errors import Corrupt, Malformed, StoreFailure, Unreachable
from trtstore.format import expected
from trtstore.format import record as records
from trtstore.format.digest import digest_of, hex_of
from trtstore.format.manifest import Manifest
from trtstore.format.record import Record
from trtstore.index.seals import Seals
from trtstore.marks.doubts import Doubt
from trtstore.transfer import incoming
from trtstore.transfer.protocols import OnProgress, Readable, Reader, ignore_progress


@dataclass(frozen=True)
class Received:
    """The record that a key now has, and whether it is new: no usable one was there before."""

    record: Record
    new: bool


@dataclass(frozen=True)
class Delivery:
    """An artifact that came whole and is staged: what `Store.commit` takes.

    `blobs` maps digits -> bytes of all blobs that it needs, the manifest's own included; `staged` are those that came
    or were linked. The record is written to `temporary` before it is renamed. `doubt` is remembered against it.
    """

    record: Record
    envelope: bytes
    listed: Manifest
    staged: tuple[Staged, ...]
    blobs: Mapping[str, int]
    temporary: Path
    doubt: Doubt | None


class Arrival:
    """One artifact on its way in: first its record, then its manifest, then each blob, then `delivery`.

    All methods raise Corrupt if bytes are not what they should be, NoSpace, StoreFailure. The store gets nothing before
    the delivery is committed.
    """

    def __init__(
        self, layout: Layout, stage: Path, seals: Seals, key: str, envelope: bytes, parked: dict[str, Staged]
    ) -> None:
        self._layout, self._stage, self._seals = layout, stage, seals
        self._parked = parked
        self._envelope = envelope
        self._staged: list[Staged] = []
        self._turn = threading.Lock()
        self._wanted: dict[str, int] = {}
        self._listed = Manifest(())
        with _strictly():
            self.record = records.parse(envelope, key)

    def list_blobs(self, data: bytes) -> dict[str, int]:
        """Take the manifest; returns digits -> bytes of each blob that must come, in the order of the manifest and
        then of the record's attachments."""
        with _strictly():
            self._listed = checked_manifest(self.record, data)
            needed = named_blobs(self.record, self._listed)
        digits = hex_of(self.record.manifest)
        self._wanted = {digits: len(data)} | needed
        if not self.has(digits, len(data)):
            self._staged.append(blobs.stage_bytes(self._layout, data, self._stage / digits))
        return needed

    def stored_manifest(self) -> bytes:
        """The bytes of the manifest when it is in the store already, or came with an artifact that was refused."""
        parked = self._parked.get(hex_of(self.record.manifest))
        if parked is not None:
            return parked.path.read_bytes()
        with _strictly():
            return manifest_bytes(self._layout, self.record.manifest)

    def has(self, digits: str, size: int) -> bool:
        """Whether the blob is in the store, and need not come."""
        parked = self._parked.pop(digits, None)
        if parked is not None:
            self._add(parked)
            return True
        if blobs.problem(self._layout, digits, size, seals=self._seals) is not None:
            return False
        # A second name, and the new ctime that comes with it, keep collectors from taking it before the commit.
        target, place = self._stage / digits, self._layout.blob(digits)
        try:
            with self._seals.linking(digits, place):
                if not target.exists() and blobs.link(place, target):
                    self._add(Staged(target, digits, size))
        except FileNotFoundError:
            return False  # collected in between
        return True

    def take(self, digits: str, size: int, file: Readable, on_bytes: OnBytes = ignore_bytes) -> None:
        """Stage a blob. One that is in the store is compared, and not written again.

        A large blob goes on from the part that an earlier transfer left, if `file` can skip it. Also raises Damaged.
        """
        if self.has(digits, size):
            incoming.check(digits, size, *incoming.copy(file, None, size, on_bytes))
        else:
            self._add(incoming.stage(self._layout, file, digits, size, self._stage / digits, on_bytes))

    def _add(self, staged: Staged) -> None:
        with self._turn:  # or `keep`, in another thread, would drop it
            self._staged.append(staged)

    def keep(self) -> None:
        """Put the blobs that came into the store without a record, for who tries again soon.

        A collector takes them after its grace period.
        """
        with gate.adding(self._layout):
            with self._turn:
                staged, self._staged = self._staged, []
            blobs.commit(self._layout, staged, self._seals)

    def delivery(self, doubt: Doubt | None = None) -> Delivery:
        """The whole artifact, with what must be remembered against it."""
        staged, temporary = tuple(self._staged), self._stage / "record"
        return Delivery(self.record, self._envelope, self._listed, staged, self._wanted, temporary, doubt)

    def refuse(self) -> None:
        """Keep nothing of it, but its blobs for artifacts that come later: a bundle does not send a blob twice."""
        for blob in self._staged:
            self._parked[blob.sha256] = blob
        self._staged = []


class Receiver:
    """Receives artifacts one after the other, through one folder in tmp/."""

    def __init__(self, layout: Layout, stage: Path, seals: Seals) -> None:
        self._layout, self._stage, self._seals = layout, stage, seals
        self._parked: dict[str, Staged] = {}

    def begin(self, key: str, envelope: bytes) -> Arrival:
        """An artifact whose record is `envelope`. Raises Corrupt when that is not a record of `key`."""
        return Arrival(self._layout, self._stage, self._seals, key, envelope, self._parked)

    def receive(
        self,
        key: str,
        envelope: bytes,
        source: Reader,
        on_progress: OnProgress = ignore_progress,
        manifest: str | None = None,
        doubt: Doubt | None = None,
    ) -> Delivery:
        """Copy the artifact of `envelope` from `source`: only the blobs that are missing here travel.

        Raises Corrupt if a byte is not what it should be, if the record's manifest is not `manifest`, or if it was
        revoked here; Unreachable if `source` breaks off; and as a write. What came before `source` broke off is kept,
        and need not travel again. Large blobs come side by side if there are cores for it.
        """
        arrival = self.begin(key, envelope)
        if (wrong := expected.trouble(arrival.record, manifest)) is not None:
            raise Corrupt(wrong)
        with _asking(source):
            listed = source.manifest(arrival.record)
        with _strictly():
            refuse_revoked(self._layout, arrival.record, listed)
        needed = arrival.list_blobs(listed.encode())
        missing = {digits: size for digits, size in needed.items() if not arrival.has(digits, size)}
        done, whole, came = 0, sum(missing.values()), 0
        begun = sum(partial.size(self._layout, digits) for digits, size in missing.items() if size >= incoming.LARGE)

        def tell(count: int) -> None:
            nonlocal done
            done = min(done + count, whole)
            on_progress(done, whole)

        def fetch(blob: tuple[str, int], on_bytes: OnBytes) -> None:
            nonlocal came
            _fetch(arrival, source, *blob, on_bytes, self._stage, whole - done - begun)
            came += 1
            if blob[1] >= incoming.LARGE:
                arrival.keep()  # after a kill it need not be fetched again

        try:
            for blob in missing.items():
                if blob[1] < incoming.LARGE:
                    fetch(blob, tell)
            in_threads(fetch, [blob for blob in missing.items() if blob[1] >= incoming.LARGE], tell, side_by_side())
        except (Unreachable, KeyboardInterrupt):
            if came:
                arrival.keep()
            raise
        return arrival.delivery(doubt)


def _fetch(arrival: Arrival, source: Reader, digits: str, size: int, on_bytes: OnBytes, stage: Path, left: int) -> None:
    """Take one blob; `left` are the bytes that must still be written for it and those behind it."""
    for _ in range(2):
        with _opened(source, digits, size) as file:
            if not isinstance(file, io.FileIO):  # whose blocks may be shared
                free_space.check(stage, left)
            try:
                arrival.take(digits, size, file, on_bytes)
            except incoming.Damaged:
                continue
            return


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
