"""Artifacts as one file, for sites without a network: an uncompressed tar in groups, written and read as a stream."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from trtstore.content.read import checked_manifest, named_blobs
from trtstore.disk.hashing import BackgroundHasher, OnBytes, ignore_bytes
from trtstore.errors import Corrupt, Invalid, Malformed, Untrusted, as_store_failures
from trtstore.exchange import tar
from trtstore.exchange.tar import Stream
from trtstore.format import manifest
from trtstore.format import record as records
from trtstore.format.digest import checked_key, digest_of, hash_bytes, hex_of, is_hex
from trtstore.format.names import blob_name, record_name
from trtstore.marks.doubts import Doubt
from trtstore.store import Store
from trtstore.transfer.protocols import OnProgress, Readable, Reader, Writable, ignore_progress
from trtstore.transfer.receive import Arrival, Received, Receiver

#: Judges a record that came: what is to be remembered against it, or None. Raises Untrusted where it is refused.
Judgement = Callable[[str, bytes], Doubt | None]

#: Makes of a record, by its key, what goes into a bundle: with a signature more.
Sign = Callable[[str, bytes], bytes]


def unjudged(_key: str, _envelope: bytes) -> Doubt | None:
    """A judgement that takes everything and believes nothing."""
    return Doubt("a bundle")


def as_it_is(_key: str, envelope: bytes) -> bytes:
    """Signs nothing."""
    return envelope


#: Of one bundle. Who reads or writes one keeps the digests of all its blobs in memory: 100 bytes each.
MAX_BLOBS = 1 << 20


def export_file(
    store: Reader,
    keys: Iterable[str],
    path: Path,
    on_progress: OnProgress = ignore_progress,
    *,
    sign: Sign = as_it_is,
) -> int:
    """As `export_to`, into the file `path`, which has its name only once it is whole."""
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
    with as_store_failures(path):
        try:
            with temporary.open("xb") as file:
                count = export_to(store, keys, file, on_progress, sign=sign)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)  # it has the other name, unless something failed
        _sync_folder(path.parent)
    return count


def export_to(
    store: Reader,
    keys: Iterable[str],
    file: Writable,
    on_progress: OnProgress = ignore_progress,
    *,
    sign: Sign = as_it_is,
    max_blobs: int = MAX_BLOBS,
) -> int:
    """Write the artifacts of `keys` to `file`; returns how many. The same artifacts give the same bytes.

    Every byte is hashed on its way. Raises Invalid for a key without a usable record, before anything is written;
    Corrupt when bytes are not what their name says; and what the stream refuses. Then `file` holds half a bundle.
    """
    wanted = sorted({checked_key(key) for key in keys})
    sizes: dict[bytes, int] = {}
    for key in wanted:
        if store.lookup(key) is None:
            raise Invalid(f"there is no usable artifact of the key {key}")
        group = _group(store, key)
        sizes[bytes.fromhex(group.manifest)] = len(group.listing)
        sizes |= {bytes.fromhex(digits): size for digits, size in group.blobs.items()}
    if len(sizes) > max_blobs:
        raise Invalid(f"a bundle holds {max_blobs} blobs, and this one would have {len(sizes)}", "make two")
    writer = _Writer(store, file, max_blobs, sum(sizes.values()), on_progress)
    for key in wanted:
        group = _group(store, key)
        writer.group(replace(group, envelope=sign(key, group.envelope)))
    writer.send(tar.END)
    return len(wanted)


@dataclass(frozen=True)
class _Group:
    """One artifact to be written: its key, its record, its manifest's digits and bytes, and the other blobs."""

    key: str
    envelope: bytes
    manifest: str
    listing: bytes
    blobs: dict[str, int]


def _group(store: Reader, key: str) -> _Group:
    envelope = store.envelope(key)
    try:
        record = records.parse(envelope, key)
        listing = store.manifest(record).encode()
        blobs = named_blobs(record, checked_manifest(record, listing))
    except Malformed as trouble:
        raise Corrupt(f"the artifact of the key {key} cannot be exported: {trouble}") from None
    return _Group(key, envelope, hex_of(record.manifest), listing, blobs)


class _Writer:
    def __init__(self, store: Reader, file: Writable, most: int, whole: int, on_progress: OnProgress) -> None:
        self._store, self._file = store, file
        self._seen = _Seen(most)
        self._done, self._whole, self._on_progress = 0, whole, on_progress

    def group(self, group: _Group) -> None:
        self._member(record_name(group.key), group.envelope)
        if self._seen.is_first(group.manifest):
            self._member(blob_name(group.manifest), group.listing)
            self._tell(len(group.listing))
        for digits, size in group.blobs.items():
            if self._seen.is_first(digits):
                self._blob(digits, size)

    def send(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        with as_store_failures(tar.STREAM):
            while view:  # an unbuffered stream may take less than it is given
                view = view[self._file.write(view) :]

    def _member(self, name: str, data: bytes) -> None:
        self.send(tar.header(name, len(data)) + data + tar.padding(len(data)))

    def _blob(self, digits: str, size: int) -> None:
        self.send(tar.header(blob_name(digits), size))
        with (
            self._store.open_blob(digest_of(digits), size) as source,
            BackgroundHasher(size) as hasher,
            as_store_failures(Path(f"the blob {digits}"), reading=True),
        ):
            for data in hasher.chunks(source.read, self._tell):
                self.send(data)
        if not hasher.matches(digits):
            raise Corrupt(f"the blob {digits} is not what its name says", "verify the store, and build it again")
        self.send(tar.padding(size))

    def _tell(self, count: int) -> None:
        self._done += count
        self._on_progress(self._done, self._whole)


def import_from(
    store: Store,
    file: Readable,
    on_bytes: OnBytes = ignore_bytes,
    *,
    judge: Judgement = unjudged,
    on_refused: Callable[[str, Untrusted], None] = lambda _key, _why: None,
    max_blobs: int = MAX_BLOBS,
) -> Iterator[Received]:
    """Put the artifacts of a bundle into `store`, each as soon as it is whole; yields what became of each.

    Reads `file` once, to its end, and believes nothing. Raises Corrupt when it is no bundle, is damaged or ends
    early: what was yielded is kept, and nothing else; importing the whole file later goes on from there. An artifact
    that is there already stays as it is, unless that was doubted and this one is not. `judge` is asked of each
    record before anything of it is taken; what it refuses is told to `on_refused`, read, and not kept.
    """
    stream, kept = Stream(file, on_bytes), 0
    with store.receiver() as receiver:
        groups = _arrived(stream, store, receiver, _Seen(max_blobs), judge, on_refused)
        while True:
            try:
                received = next(groups, None)
            except (Corrupt, Malformed) as trouble:
                raise Corrupt(
                    f"the bundle is refused: {trouble}; the {kept} artifacts before that are kept",
                    "copy or export it again: importing it goes on from there",
                ) from None
            if received is None:
                return
            kept += 1
            yield received


def _arrived(
    stream: Stream,
    store: Store,
    receiver: Receiver,
    seen: _Seen,
    judge: Judgement,
    on_refused: Callable[[str, Untrusted], None],
) -> Iterator[Received]:
    last = ""
    while (header := stream.header()) is not None:
        name, size = header
        key = name[-64:]
        if not is_hex(key) or name != record_name(key):
            raise Malformed(f"{name!a} stands where a record must be")
        if key <= last:
            raise Malformed(f"the record of {key} is not in the order of keys")
        last = key
        envelope = stream.small(name, size, records.MAX_BYTES)
        arrival = receiver.begin(key, envelope)
        doubt, refused = None, None
        try:
            doubt = judge(key, envelope)
        except Untrusted as trouble:
            refused = trouble
        for digits, blob_size in arrival.list_blobs(_listing(stream, arrival, seen)).items():
            if not seen.is_first(digits):
                arrival.has(digits, blob_size)
                continue
            stream.expect(blob_name(digits), blob_size)
            with stream.member(blob_size) as member:
                arrival.take(digits, blob_size, member)
        if refused is None:
            yield store.commit(arrival.delivery(doubt))
        else:
            arrival.refuse()
            on_refused(key, refused)


def _listing(stream: Stream, arrival: Arrival, seen: _Seen) -> bytes:
    digits = hex_of(arrival.record.manifest)
    if not seen.is_first(digits):
        return arrival.stored_manifest()
    name = blob_name(digits)
    data = stream.small(name, stream.expect(name), manifest.MAX_BYTES)
    if hash_bytes(data) != digits:
        raise Malformed(f"the manifest {digits} is not what its name says")
    return data


class _Seen:
    """The blobs of a bundle so far."""

    def __init__(self, most: int) -> None:
        self._digests: set[bytes] = set()
        self._most = most

    def is_first(self, digits: str) -> bool:
        before = len(self._digests)
        self._digests.add(bytes.fromhex(digits))
        if len(self._digests) > self._most:
            raise Malformed(f"it has more than {self._most} blobs")
        return len(self._digests) > before


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
