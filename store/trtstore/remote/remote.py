"""A store across a network: artifacts as objects, by the names that they have in a local store."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trtstore.content.read import checked_manifest, named_blobs
from trtstore.deadlines import PATIENCE, Pool
from trtstore.disk.hashing import BackgroundHasher, OnBytes, ignore_bytes, in_threads, side_by_side
from trtstore.disk.layout import VERSION
from trtstore.errors import Corrupt, Malformed, NotWritable, Silent, Unreachable
from trtstore.format import manifest, names
from trtstore.format import record as records
from trtstore.format.digest import checked_key, digest_of, hash_bytes, hex_of, is_hex
from trtstore.format.manifest import Manifest
from trtstore.format.record import Record
from trtstore.marks.doubts import Doubt
from trtstore.remote.objects import ObjectInfo, Objects
from trtstore.remote.seen import Seen
from trtstore.transfer.protocols import OnProgress, Readable, Reader, ignore_progress

SMALL = 4 << 20  # bytes: what travels in one request, created only where it is absent
WORKERS = 8  # requests about small objects at a time
UPLOADS = 3  # attempts at a large object, each part of which is tried more often
PROBE = f"{VERSION}/probe"
CLOCK = f"{VERSION}/clock"


@dataclass(frozen=True)
class Pushed:
    """What a push did: whether the record is new there, and the bytes of blobs that travelled."""

    new: bool
    bytes: int


def record_name(key: str) -> str:
    """The object that is the record of `key`."""
    return f"{VERSION}/{names.record_name(key)}"


def blob_name(digits: str) -> str:
    """The object that is the blob `digits`."""
    return f"{VERSION}/{names.blob_name(digits)}"


class Remote:
    """The artifacts in `objects`: a `Reader`. It believes nothing; its user decides whose signature counts.

    `seen` remembers which blobs were read before, so that a writer need not send them again. A lookup takes `patience`
    seconds at most.

    >>> team.remote.find("cd" * 32) is None
    True
    """

    def __init__(self, objects: Objects, seen: Seen | None = None, patience: float = PATIENCE) -> None:
        self.objects = objects
        self.patience = patience
        self.seen = seen or Seen(str(objects))
        self._probed = False

    def __str__(self) -> str:
        return str(self.objects)

    def find(self, key: str) -> bytes | None:
        """The bytes of the record of `key`, signatures included, or None. Raises Unreachable, Corrupt, StoreFailure."""
        return self.objects.read(record_name(checked_key(key)), records.MAX_BYTES)

    def peek(self, key: str) -> bytes | None:
        """As `find`, for many records: b"" for an object that is too large or not a regular file."""
        try:
            return self.find(key)
        except Corrupt:
            return b""

    def lookup(self, key: str, *, on_problem: Callable[[str], None] | None = None) -> Record | None:
        """The record of `key`, or None; its blobs may be there or not. Raises Unreachable, StoreFailure."""
        data = self.find(key)
        try:
            return None if data is None else records.parse(data, key)
        except Malformed as trouble:
            if on_problem is not None:
                on_problem(f"{key} of {self} is taken as absent: {trouble}")
            return None

    def doubt(self, key: str) -> Doubt | None:  # noqa: ARG002  # it is of whatever is here
        """None: nothing here was judged."""
        return Doubt(str(self))

    def keys(self) -> Iterator[str]:
        """The keys that have a record, sorted. Raises Unreachable, StoreFailure."""
        return iter(sorted(key for key, _ in self.listed_records()))

    def listed_records(self) -> Iterator[tuple[str, ObjectInfo]]:
        """(key, object) of each record, in no order; other names are passed over."""
        for one in self.objects.listed(f"{VERSION}/records/"):
            key = one.name.rpartition("/")[2]
            if is_hex(key) and one.name == record_name(key):
                yield key, one

    def listed_blobs(self) -> Iterator[tuple[str, ObjectInfo]]:
        """(digits, object) of each blob, in no order; other names are passed over."""
        for one in self.objects.listed(f"{VERSION}/blobs/"):
            digits = one.name.rpartition("/")[2]
            if is_hex(digits) and one.name == blob_name(digits):
                yield digits, one

    def envelope(self, key: str) -> bytes:
        """As `find`; raises Corrupt where there is none."""
        data = self.find(key)
        if data is None:
            raise Corrupt(f"{key} is not in {self}")
        return data

    def manifest(self, record: Record) -> Manifest:
        """The list of the record's files. Raises Corrupt where it is not what the record says, and as `find`."""
        data = self.objects.read(blob_name(hex_of(record.manifest)), manifest.MAX_BYTES)
        if data is None:
            raise Corrupt(f"the manifest of {record.key} is not in {self}")
        try:
            return checked_manifest(record, data)
        except Malformed as trouble:
            raise Corrupt(f"{record.key} of {self}: {trouble}") from None

    @contextmanager
    def open_blob(self, digest: str, size: int) -> Iterator[Readable]:
        """The bytes of "sha256:<64 hex>". Raises as `find`."""
        with self.objects.open(blob_name(hex_of(digest)), size) as file:
            yield file

    def is_whole(self, digits: str, size: int, on_bytes: OnBytes = ignore_bytes) -> bool:
        """Whether the blob is there, and is what its name says: read once, and then remembered for this very object.

        Raises Unreachable, StoreFailure.
        """
        stat = self.objects.stat(blob_name(digits))
        if stat is None or stat.size != size:
            return False
        if self.seen.has(digits, stat):
            return True
        if not self.reads(digits, size, on_bytes):
            return False
        self.seen.keep(digits, stat)
        return True

    def reads(self, digits: str, size: int, on_bytes: OnBytes) -> bool:
        """Whether the bytes that are there, all of which are read, are those of the name."""
        with self.open_blob(digest_of(digits), size) as file, BackgroundHasher(size) as digest:
            for _ in digest.chunks(file.read, on_bytes):
                pass
            return digest.matches(digits)

    def now(self) -> float:
        """The time by the place's own clock, seconds since the epoch: that of an object which is written for it.

        Raises NotWritable, Unreachable, StoreFailure.
        """
        self.objects.replace(CLOCK, secrets.token_hex(16).encode())
        stat = self.objects.stat(CLOCK)
        if stat is None:
            raise Unreachable(f"{self} does not keep {CLOCK}, by which its clock is read")
        return stat.modified

    def check_writable(self) -> None:
        """Raises NotWritable where the place refuses, or ignores that a name is taken; Unreachable, StoreFailure.

        A place that lets a second writer have a name would let a slow builder overwrite what others use already.
        """
        if self._probed:
            return
        mine = secrets.token_hex(16).encode()
        if self.objects.create(PROBE, mine) and self.objects.create(PROBE, mine[::-1]):
            raise NotWritable(
                f"{self} ignores conditional writes: it let two writers create one object, so the later one of two "
                "builds would replace what others use already",
                "it can be read; to write, use a server that honours them (AWS S3, Google Cloud Storage, Azure, "
                "SeaweedFS, MinIO)",
            )
        self._probed = True

    def push(
        self, source: Reader, record: Record, envelope: bytes, on_progress: OnProgress = ignore_progress
    ) -> Pushed:
        """Copy an artifact of `source` here under `envelope`: the blobs that are missing, then the record.

        Every byte is hashed on its way, and what is stored is compared: by the place with the checksum that is sent
        along, else it is read back. A record that is there stays, whatever it is: the caller looks first. Raises
        Corrupt where `source` has other bytes than its names say, NotWritable, Unreachable, StoreFailure; then no
        record is there, and the blobs that are need not travel again.
        """
        self.check_writable()
        sent = self.push_blobs(source, record, on_progress)
        return Pushed(self.put_record(record.key, envelope), sent)

    def push_blobs(self, source: Reader, record: Record, on_progress: OnProgress = ignore_progress) -> int:
        """As `push`, without the record; returns the bytes that travelled."""
        data = source.manifest(record).encode()
        sent = self.send(source, self.missing(source, record), on_progress)
        self.put_blob(hex_of(record.manifest), data)
        return sent

    def send(self, source: Reader, blobs: dict[str, int], on_progress: OnProgress = ignore_progress) -> int:
        """Put `blobs` (digits -> bytes) of `source` here, in place of whatever has their names; returns the bytes.

        Raises as `push`.
        """
        sending = _Sending(self, source, sum(blobs.values()), on_progress)
        with Pool(WORKERS) as pool:
            list(pool.map(sending.small, [blob for blob in blobs.items() if blob[1] <= SMALL]))
        large = [blob for blob in blobs.items() if blob[1] > SMALL]
        in_threads(sending.large, large, sending.tell, side_by_side())
        return sending.done

    def missing(self, source: Reader, record: Record) -> dict[str, int]:
        """Digits -> bytes of the blobs of `record`, whose manifest `source` has, that are not here, or not whole.

        Blobs that this store has not read before are read. Raises Unreachable, StoreFailure.
        """
        wanted = named_blobs(record, source.manifest(record))
        small = [blob for blob in wanted.items() if blob[1] <= SMALL]
        large = [blob for blob in wanted.items() if blob[1] > SMALL]
        with Pool(WORKERS) as pool:
            whole = dict(zip(small, pool.map(lambda blob: self.is_whole(*blob), small), strict=True))
        read = in_threads(lambda blob, on_bytes: self.is_whole(*blob, on_bytes), large, ignore_bytes, side_by_side())
        whole.update(zip(large, read, strict=True))
        return {digits: size for digits, size in wanted.items() if not whole[digits, size]}

    def put_record(self, key: str, envelope: bytes) -> bool:
        """Whether `envelope` is the record of `key` now, and is new. Another one that is there stays."""
        name = record_name(key)
        if self.objects.create(name, envelope):
            return True
        # An answer that was lost makes the second attempt find the first: then it is ours.
        return self._there(name, records.MAX_BYTES) == envelope

    def replace_record(self, key: str, envelope: bytes) -> None:
        """Make `envelope` the record of `key`, in place of one that is not trusted, or that lacks a signature."""
        self.objects.replace(record_name(key), envelope)

    def put_blob(self, digits: str, data: bytes) -> None:
        """Put a blob here, in place of any other bytes under its name. Raises NotWritable, StoreFailure."""
        if not self.objects.create(blob_name(digits), data):
            there = self._there(blob_name(digits), max(len(data), 1))
            if there is None or hash_bytes(there) != digits:
                self.objects.replace(blob_name(digits), data)  # what was there is not what its name says

    def _there(self, name: str, limit: int) -> bytes | None:
        """The bytes of an object; None if it has more than `limit`, or is not a regular file."""
        try:
            return self.objects.read(name, limit)
        except Corrupt:
            return None


class _Sending:
    """Blobs on their way from a store to a place, with the count of what was sent."""

    def __init__(self, remote: Remote, source: Reader, whole: int, on_progress: OnProgress) -> None:
        self._remote, self._objects, self._source = remote, remote.objects, source
        self._whole, self._on_progress = whole, on_progress
        self._turn = threading.Lock()
        self.done = 0

    def tell(self, count: int) -> None:
        """Of `count` bytes that were sent, or, below 0, that must be sent again."""
        with self._turn:
            self.done += count
            if count > 0:
                self._on_progress(self.done, self._whole)

    def small(self, blob: tuple[str, int]) -> None:
        digits, size = blob
        data = b"".join(self._read(digits, size, self.tell))
        if not self._objects.create(blob_name(digits), data):
            self._objects.replace(blob_name(digits), data)  # it was looked at a moment ago, and is not whole
        self._remote.seen.sent(digits)

    def large(self, blob: tuple[str, int], on_bytes: OnBytes) -> None:
        digits, size = blob
        sent = 0

        def tell(count: int) -> None:
            nonlocal sent
            sent += count
            on_bytes(count)

        for left in reversed(range(UPLOADS)):
            try:
                self._objects.upload(blob_name(digits), self._read(digits, size, tell), size)
                if self._objects.compares() or self._remote.is_whole(digits, size):
                    self._remote.seen.sent(digits)
                    return
                if not left:
                    raise NotWritable(
                        f"{self._remote} stores other bytes of the blob {digits[:12]} than were sent, {UPLOADS} times",
                        "something on the way to it, or in it, changes them",
                    )
                tell(-sent)
            except Silent:
                raise
            except Unreachable:
                if not left:
                    raise
                self._objects.size(blob_name(digits))  # raises if there is no answer at all
                tell(-sent)

    def _read(self, digits: str, size: int, on_bytes: OnBytes) -> Iterator[bytes | memoryview]:
        """The blob's bytes; raises Corrupt at their end where they are others: no whole object comes of them."""
        with self._source.open_blob(f"sha256:{digits}", size) as file, BackgroundHasher(size) as digest:
            yield from digest.chunks(file.read, on_bytes)
            if not digest.matches(digits):
                raise Corrupt(f"the blob {digits} is not what its name says", "verify the store, and build it again")
