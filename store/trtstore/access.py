"""Reading what is in a store, strictly: a record by its key, its manifest, and whether all that they name is there."""

from __future__ import annotations

import os
from collections.abc import Iterator

from trtstore import blobs, manifest, records
from trtstore.digest import hash_bytes, hex_of, is_hex
from trtstore.errors import Malformed
from trtstore.layout import Layout, read_bounded
from trtstore.manifest import Manifest
from trtstore.records import Record


def read_record(layout: Layout, key: str) -> Record:
    """The record of `key`, as it is written. Raises Malformed, OSError."""
    data = read_bounded(layout.record(key), records.MAX_BYTES)
    if data is None:
        raise Malformed("it is no regular file, or too long")
    return records.parse(data, key)


def read_manifest(layout: Layout, digest: str) -> Manifest:
    """The manifest "sha256:<64 hex>", whose blobs may be there or not. Raises Malformed, OSError."""
    digits = hex_of(digest)
    data = read_bounded(layout.blob(digits), manifest.MAX_BYTES)
    if data is None:
        raise Malformed(f"the manifest {layout.blob(digits)} is not there")
    if hash_bytes(data) != digits:
        raise Malformed(f"the manifest {layout.blob(digits)} is not what its name says")
    return manifest.parse(data)


def named_blobs(record: Record, listed: Manifest) -> dict[str, int]:
    """Digits -> bytes of each blob that the record names beside its manifest."""
    wanted = {entry.sha256: entry.size for entry in listed.entries}
    return wanted | {hex_of(file.digest): file.size for file in record.attachments.values()}


def usable_manifest(layout: Layout, record: Record) -> Manifest:
    """The record's manifest, with every blob and attachment there. Raises Malformed, OSError."""
    found = read_manifest(layout, record.manifest)
    if (found.size, len(found.entries)) != (record.bytes, record.files):
        raise Malformed("its totals are not those of its manifest")
    for digits, size in named_blobs(record, found).items():
        trouble = blobs.problem(layout, digits, size)
        if trouble is not None:
            raise Malformed(trouble)
    return found


def shards(layout: Layout) -> list[str]:
    """The two-digit folders of records/ that are there. Raises OSError."""
    try:
        with os.scandir(layout.records) as found:
            return sorted(e.name for e in found if len(e.name) == 2 and e.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def keys(layout: Layout, prefix: str = "") -> Iterator[str]:
    """The keys that have a record, sorted; whether it is usable only `lookup` says. Raises OSError."""
    for shard in shards(layout):
        if shard.startswith(prefix[:2]):
            with os.scandir(layout.records / shard) as found:
                names = sorted(entry.name for entry in found)
            yield from (n for n in names if is_hex(n) and n[:2] == shard and n.startswith(prefix))
