"""Reading what is in a store, strictly: a record by its key, its manifest, and whether all that they name is there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from trtstore.content import blobs
from trtstore.disk.layout import Layout, read_bounded, sharded
from trtstore.errors import Malformed, decayed
from trtstore.format import manifest
from trtstore.format import record as records
from trtstore.format.digest import hash_bytes, hex_of
from trtstore.format.manifest import Manifest
from trtstore.format.record import Record
from trtstore.marks import revocations

_T = TypeVar("_T")


def identity(layout: Layout, key: str) -> tuple[int, int, int] | None:
    """Which file has the name of the record of `key`, whatever it holds; None where there is none. Raises OSError.

    Another record of the same key has another identity; one that was only used has not. Where a folder on the way is
    a link, that stands for it.
    """
    place = layout.record(key)
    try:
        status = (layout.link_above(place) or place).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def touch(layout: Layout, key: str) -> None:
    """Mark the record of `key` as used just now."""
    path = layout.record(key)
    with suppress(OSError):  # somebody else's record, or a read-only store
        stored = path.lstat().st_mtime_ns
        os.utime(path, ns=(time.time_ns(), stored), follow_symlinks=False)


def lookup(layout: Layout, key: str, on_problem: Callable[[str], None], *, mend: bool = True) -> Record | None:
    """The record of `key` if all that it names is there, else None; `mend` as for `blobs.problem`.

    Raises OSError.
    """
    usable = find(layout, key, on_problem, mend=mend)
    return None if usable is None else usable[0]


def find(
    layout: Layout, key: str, on_problem: Callable[[str], None], *, mend: bool = True
) -> tuple[Record, Manifest] | None:
    """As `lookup`, with the record's manifest. A read error of the disk is also a miss."""
    path = layout.record(key)
    while (seen := identity(layout, key)) is not None:
        try:
            with decayed():
                record = read_record(layout, key)
                return record, usable_manifest(layout, record, mend=mend)
        except Malformed as trouble:
            if identity(layout, key) == seen:
                on_problem(f"{path} is taken as absent: {trouble}")
                return None
            # It was whole, and was collected or replaced while this looked.
    return None


def read_record(layout: Layout, key: str) -> Record:
    """The record of `key`, as it is written. Raises Malformed, OSError."""
    return records.parse(read_envelope(layout, key), key)


def read_envelope(layout: Layout, key: str) -> bytes:
    """The bytes of the record of `key`, unread. Raises Malformed, OSError."""
    return _bytes(layout, layout.record(key), records.MAX_BYTES)


def read_manifest(layout: Layout, digest: str) -> Manifest:
    """The manifest "sha256:<64 hex>", whose blobs may be there or not. Raises Malformed, OSError."""
    return _named(digest, manifest_bytes(layout, digest))


def manifest_bytes(layout: Layout, digest: str) -> bytes:
    """The bytes of the manifest "sha256:<64 hex>", unread. Raises Malformed, OSError."""
    return _bytes(layout, layout.blob(hex_of(digest)), manifest.MAX_BYTES)


def checked_manifest(record: Record, data: bytes) -> Manifest:
    """The manifest in `data`, which must be that of `record`. Raises Malformed."""
    listed = _named(record.manifest, data)
    if (listed.size, len(listed.entries)) != (record.bytes, record.files):
        raise Malformed("the record's totals are not those of its manifest")
    return listed


def named_blobs(record: Record, listed: Manifest) -> dict[str, int]:
    """Digits -> bytes of each blob beside the manifest. Raises Malformed where one digest has two sizes."""
    named = [(entry.sha256, entry.size) for entry in listed.entries]
    named += [(hex_of(file.digest), file.size) for file in record.attachments.values()]
    sizes: dict[str, int] = {}
    for digits, size in named:
        if sizes.setdefault(digits, size) != size:
            raise Malformed(f"the blob {digits} is given two sizes")
    return sizes


def twice(read: Callable[[], _T]) -> _T:
    """What `read` gives, at the second try if need be: a disk may fail once, or give wrong bytes, and somebody is
    about to remove what does not parse. Raises as `read`."""
    with suppress(Malformed), decayed():
        return read()
    return read()


def usable_manifest(layout: Layout, record: Record, *, mend: bool = True) -> Manifest:
    """The record's manifest, with every blob and attachment there; `mend` as for `blobs.problem`.

    Raises Malformed, OSError.
    """
    listed = checked_manifest(record, manifest_bytes(layout, record.manifest))
    refuse_revoked(layout, record, listed)
    for digits, size in named_blobs(record, listed).items():
        trouble = blobs.problem(layout, digits, size, mend=mend)
        if trouble is not None:
            raise Malformed(trouble)
    return listed


def refuse_revoked(layout: Layout, record: Record, listed: Manifest) -> None:
    """Raises Malformed if the artifact, or one of its blobs, was revoked; OSError."""
    if not layout.revoked.is_dir():
        return  # as in most stores: a hit costs one look more
    for digits in (hex_of(record.manifest), *named_blobs(record, listed)):
        revocation = revocations.of(layout, digits, record.labels)
        if revocation is not None:
            raise Malformed(str(revocation))


def _bytes(layout: Layout, place: Path, limit: int) -> bytes:
    link = layout.link_above(place)
    if link is not None:
        raise Malformed(f"{link} is a symbolic link, and what it leads to is not the store's")
    data = read_bounded(place, limit)
    if data is None:
        raise Malformed(f"{place} is not there, is no regular file, or is too long")
    return data


def _named(digest: str, data: bytes) -> Manifest:
    if hash_bytes(data) != hex_of(digest):
        raise Malformed(f"the manifest {digest} is not what its name says")
    return manifest.parse(data)


def keys(layout: Layout, prefix: str = "") -> Iterator[str]:
    """The keys that have a record, sorted; whether it is usable only `lookup` says.

    Raises Invalid if records/ is a link, OSError.
    """
    yield from sharded(layout.own(layout.records), prefix)
