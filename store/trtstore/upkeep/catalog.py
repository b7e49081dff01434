"""All records of a store at a glance: parsed once each, and remembered in the index, a page for each folder.

A hundred thousand envelopes take half a minute to parse, and a second to look at one by one. A page is as fresh as the
folder's own time says, for a record is put in place, replaced and removed by rename; where that changed, each record of
the folder is looked at, and parsed again if it has another inode, size or mtime.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from trtstore.content import read
from trtstore.disk.layout import Layout, shards
from trtstore.errors import Malformed
from trtstore.format.canonical_json import Json
from trtstore.format.digest import hash_bytes, hex_of, is_hex
from trtstore.index import usage
from trtstore.index.index import Index
from trtstore.transfer.readonly import ReadOnly

RACY = 2.0  # seconds: a folder changed so lately may change again within its time stamp's grain
FORM = 1  # of what is remembered
SPLIT = 250  # records in a folder from which on the rows of their blobs are split by the third digit
MAX_REFERENCES = 2000  # blobs of one record that are remembered; a longer list is read from the manifest each time

#: Told how many records had to be parsed so far.
OnParsed = Callable[[int], None]


#: Digits -> bytes, as pairs, of all that a record names, its manifest included.
Blobs = Sequence[tuple[str, int]]


class Summary(NamedTuple):
    """A record in short. Times are seconds since the epoch; `manifest` is 64 digits, or "" where it is unusable.

    `seconds` is what the build took as far as the record says. `used` is exact in `named` alone, elsewhere it is
    `stored`: what was used since, only the index says without a look at each file. (A NamedTuple is made thrice as
    quickly as a frozen dataclass, and there may be a hundred thousand.)
    """

    key: str
    manifest: str
    bytes: int
    files: int
    labels: Mapping[str, str]
    seconds: float | None
    stored: float
    used: float


class Catalog:
    """The records of the store of `layout`, remembered in `index`.

    The index may be another store's, so that a store that is only read costs no more the second time: `prefix` then
    keeps its rows apart from that store's own.
    """

    def __init__(self, layout: Layout, index: Index, prefix: str = "") -> None:
        self._layout = layout
        self._index = index
        self._prefix = prefix
        self._labels: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        self._parsed = 0

    def summaries(self, on_parsed: OnParsed = lambda _: None) -> Iterator[Summary]:
        """Every record, by shard, those that do not parse too. Raises OSError."""
        for shard in shards(self._layout.own(self._layout.records)):
            page, folder = self._remembered(shard), self._identity(shard)
            if not folder or page.folder != folder:
                page = self._refreshed(shard, page, folder, self._found(shard), on_parsed)
            labels = [self._same(each) for each in page.labels]
            yield from [
                Summary(key, manifest, size, files, labels[number], seconds, at := stored / 1e9, at)
                for key, (_, _, stored, manifest, size, files, number, seconds) in page.rows.items()
            ]

    def named(self, on_parsed: OnParsed = lambda _: None) -> Iterator[tuple[Summary, Blobs]]:
        """Every record with the blobs that it names; none where its manifest does not parse. Raises OSError."""
        for shard in shards(self._layout.own(self._layout.records)):
            folder, statuses, before = self._identity(shard), self._found(shard), self._parsed
            page = self._refreshed(shard, self._remembered(shard), folder, statuses, on_parsed)
            labels = [self._same(each) for each in page.labels]
            for part, group in _parts(shard, statuses).items():
                references = _References(self._layout, self._index, part)
                for key, status in group:
                    _, _, stored, manifest, size, files, number, seconds = page.rows[key]
                    named = references.get(key, _file_identity(status)) if manifest else None
                    shown = "" if named is None else manifest
                    used = status.st_ctime
                    summary = Summary(key, shown, size, files, labels[number], seconds, stored / 1e9, used)
                    yield summary, () if named is None else [(manifest, named[0]), *named[1]]
                before += references.save(group)
                if before > self._parsed:
                    self._parsed = before
                    on_parsed(before)

    def _identity(self, shard: str) -> list[int]:
        """Which folder this is, and when a name in it last changed; nothing equals one that changed just now."""
        status = (self._layout.records / shard).stat()
        settled = time.time() - status.st_mtime > RACY
        return [status.st_ino, status.st_mtime_ns] if settled else []

    def _found(self, shard: str) -> list[tuple[str, os.stat_result]]:
        statuses: list[tuple[str, os.stat_result]] = []
        with os.scandir(self._layout.records / shard) as entries:
            for entry in entries:
                if is_hex(entry.name) and entry.name.startswith(shard):
                    with suppress(FileNotFoundError):  # collected meanwhile
                        statuses.append((entry.name, entry.stat(follow_symlinks=False)))
        return statuses

    def _remembered(self, shard: str) -> _Page:
        known: Any = self._index.get("catalog", self._prefix + shard)
        if isinstance(known, dict) and known.get("form") == FORM:  # rows have a checksum: this code wrote it
            return _Page(known["folder"], known["labels"], known["rows"])
        return _Page([], [], {})

    def _refreshed(
        self,
        shard: str,
        old: _Page,
        folder: list[int],
        statuses: list[tuple[str, os.stat_result]],
        on_parsed: OnParsed,
    ) -> _Page:
        """The page of the records `found`, remembered where it is another than `old`."""
        page, before = _Page(folder, list(old.labels), {}), self._parsed
        for key, status in statuses:
            row = old.rows.get(key)
            # What did not parse is read again each time: a collector is about to remove it.
            if row is None or row[:3] != _file_identity(status) or not row[3]:
                row = [*_file_identity(status), *self._short(key, page.labels)]
                self._parsed += 1
            page.rows[key] = row
        if self._parsed > before:
            on_parsed(self._parsed)
        if self._parsed > before or len(page.rows) != len(old.rows) or (folder and old.folder != folder):
            with suppress(ValueError):  # longer than a row may be: read again the next time
                self._index.put(
                    "catalog",
                    self._prefix + shard,
                    {"form": FORM, "folder": folder, "labels": page.labels, "rows": page.rows},
                )
        return page

    def _short(self, key: str, labels: list[dict[str, str]]) -> list[Json]:
        """What a row says of a record after its identity; labels by their number."""
        try:
            record = read.twice(lambda: read.read_record(self._layout, key))
        except Malformed:
            return ["", 0, 0, _number(labels, {}), None]
        number = _number(labels, dict(record.labels))
        seconds = usage.stated_seconds(record)
        return [hex_of(record.manifest), record.bytes, record.files, number, seconds]

    def _same(self, labels: dict[str, str]) -> dict[str, str]:
        """Equal labels as one object: there are few, and records are many."""
        return self._labels.setdefault(tuple(labels.items()), labels)


class _Page(NamedTuple):
    """What the index remembers of a folder of records: key -> [inode, size, mtime in ns, manifest, …]."""

    folder: list[int]
    labels: list[dict[str, str]]
    rows: dict[str, list[Json]]


class _References:
    """What a few records name, as a row of the index remembers it: key -> [identity, [bytes of manifest, blobs]]."""

    def __init__(self, layout: Layout, index: Index, part: str) -> None:
        self._layout, self._index, self._part = layout, index, part
        known: Any = index.get("references", part)
        fits = isinstance(known, dict) and known.get("form") == FORM
        self._old: dict[str, Json] = known["rows"] if fits else {}
        self._new: dict[str, Json] = {}
        self._parsed = 0

    def get(self, key: str, identity: list[int]) -> tuple[int, Blobs] | None:
        """Bytes of the manifest, and the other blobs; None where the manifest does not parse."""
        row = self._old.get(key)
        if isinstance(row, list) and len(row) == 2 and row[0] == identity:
            self._new[key] = row
            size, blobs = row[1]
            return size, blobs
        self._parsed += 1
        try:
            record = read.twice(lambda: read.read_record(self._layout, key))
            listed = read.twice(lambda: read.read_manifest(self._layout, record.manifest))
            named = read.named_blobs(record, listed)
        except Malformed:
            return None
        size, blobs = len(listed.encode()), sorted(named.items())
        if len(blobs) <= MAX_REFERENCES:
            self._new[key] = [identity, [size, blobs]]
        return size, blobs

    def save(self, group: list[tuple[str, os.stat_result]]) -> int:
        """Remember what was parsed, and forget what is gone; returns how many were parsed."""
        if self._parsed or len(self._old) > len(group):
            with suppress(ValueError):  # longer than a row may be: read again the next time
                self._index.put("references", self._part, {"form": FORM, "rows": self._new})
        return self._parsed


def _file_identity(status: os.stat_result) -> list[int]:
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _parts(shard: str, statuses: list[tuple[str, os.stat_result]]) -> dict[str, list[tuple[str, os.stat_result]]]:
    if len(statuses) <= SPLIT:
        return {shard: statuses}
    groups: dict[str, list[tuple[str, os.stat_result]]] = {}
    for item in statuses:
        groups.setdefault(item[0][:3], []).append(item)
    return groups


def _number(labels: list[dict[str, str]], wanted: dict[str, str]) -> int:
    """The place of `wanted` in `labels`, which gets it where it lacks it."""
    if wanted not in labels:
        labels.append(wanted)
    return labels.index(wanted)


def catalog_of(other: ReadOnly, index: Index) -> Catalog:
    """The records of a store that is only read, remembered in `index`, which is the reader's own.

    >>> other = ReadOnly.open(store.root)
    >>> [summary.labels["model"] for summary in catalog_of(other, store.index).summaries()]
    ['llama']
    """
    return Catalog(other._layout, index, f"{hash_bytes(os.fsencode(other._layout.root))[:16]}:")
