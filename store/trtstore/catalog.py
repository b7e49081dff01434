"""All records of a store at a glance: parsed once each, and remembered in the index by the record file's identity.

A hundred thousand envelopes take half a minute to parse; with what the index remembers, listing them takes less than
a second. A record that was replaced has another inode, size or mtime, and is parsed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from trtstore import access, usage
from trtstore.digest import hex_of, is_hex
from trtstore.errors import Malformed
from trtstore.index import Index
from trtstore.layout import Layout
from trtstore.strictjson import Json

SPLIT = 250  # records in a folder from which on its rows are split by the third digit
MAX_REFERENCES = (
    2000  # blobs of one record that are remembered; a longer list is read from the manifest each time
)

#: Told how many records had to be parsed so far.
OnParsed = Callable[[int], None]


#: Digits -> bytes, as pairs, of all that a record names, its manifest included.
Blobs = Sequence[tuple[str, int]]


class Summary(NamedTuple):
    """A record in short. Times are seconds since the epoch; `manifest` is 64 digits, or "" where it is unusable.

    `seconds` is what the build took as far as the record says. (A NamedTuple is made thrice as quickly as a frozen
    dataclass, and there may be a hundred thousand.)
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
    """The records of one store. Reads are as fresh as the folders; only parsing is saved."""

    def __init__(self, layout: Layout, index: Index) -> None:
        self._layout = layout
        self._index = index
        self._labels: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}

    def summaries(self, on_parsed: OnParsed = lambda _: None) -> Iterator[Summary]:
        """Every record, by shard, those that do not parse too. Raises OSError."""
        for summary, _ in self._all(("catalog",), on_parsed):
            yield summary

    def named(self, on_parsed: OnParsed = lambda _: None) -> Iterator[tuple[Summary, Blobs]]:
        """Every record with the blobs that it names; none where its manifest does not parse. Raises OSError."""
        yield from self._all(("catalog", "references"), on_parsed)

    def _all(self, tables: Sequence[str], on_parsed: OnParsed) -> Iterator[tuple[Summary, Blobs]]:
        parsed = 0
        readers = {"catalog": self._short, "references": self._references}
        for shard in access.shards(self._layout):
            for part, group in self._groups(shard).items():
                rows = [_Rows(self._index, table, part, readers[table]) for table in tables]
                for key, status in group:
                    identity = [status.st_ino, status.st_size, status.st_mtime_ns]
                    short, *blobs = [row.get(key, identity) for row in rows]
                    yield self._summary(key, status, short, None not in blobs), (blobs or [()])[0] or ()
                for row in rows:
                    row.save(group)
                if now := max(row.parsed for row in rows):
                    parsed += now
                    on_parsed(parsed)

    def _groups(self, shard: str) -> dict[str, list[tuple[str, os.stat_result]]]:
        found: list[tuple[str, os.stat_result]] = []
        with os.scandir(self._layout.records / shard) as entries:
            for entry in entries:
                if is_hex(entry.name) and entry.name.startswith(shard):
                    with suppress(FileNotFoundError):  # collected meanwhile
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
        if len(found) <= SPLIT:
            return {shard: found}
        groups: dict[str, list[tuple[str, os.stat_result]]] = {}
        for item in found:
            groups.setdefault(item[0][:3], []).append(item)
        return groups

    def _summary(self, key: str, status: os.stat_result, short: Json, usable: bool) -> Summary:
        manifest, size, files, labels, seconds = short or ["", 0, 0, {}, None]
        # Labels are few and records are many: equal ones are one object.
        same = self._labels.setdefault(tuple(labels.items()), labels)
        shown = manifest if usable else ""
        return Summary(key, shown, size, files, same, seconds, status.st_mtime, status.st_ctime)

    def _short(self, key: str) -> Json | None:
        try:
            record = access.read_record(self._layout, key)
        except Malformed:
            return None
        seconds = usage.stated_seconds(record)
        return [hex_of(record.manifest), record.bytes, record.files, dict(record.labels), seconds]

    def _references(self, key: str) -> Json | None:
        try:
            record = access.read_record(self._layout, key)
            listed = access.read_manifest(self._layout, record.manifest)
        except Malformed:
            return None
        digits = hex_of(record.manifest)
        own = {digits: len(listed.encode())}
        return sorted((own | access.named_blobs(record, listed)).items())


class _Rows:
    """What one row of the index remembers of a few records: key -> [identity, value]."""

    def __init__(self, index: Index, table: str, part: str, read: Callable[[str], Json | None]) -> None:
        self._index, self._table, self._part, self._read = index, table, part, read
        self._old: dict[str, Json] | None = None
        self._new: dict[str, Json] = {}
        self.parsed = 0

    def get(self, key: str, identity: list[int]) -> Json | None:
        row = self._known().get(key)
        if isinstance(row, list) and len(row) == 2 and row[0] == identity:
            self._new[key] = row
            return row[1]
        self.parsed += 1
        value = self._read(key)
        if value is not None and (self._table != "references" or len(value) <= MAX_REFERENCES):
            self._new[key] = [identity, value]
        return value

    def _known(self) -> dict[str, Json]:
        if self._old is None:
            known = self._index.get(self._table, self._part)
            self._old = known if isinstance(known, dict) else {}
        return self._old

    def save(self, group: list[tuple[str, os.stat_result]]) -> None:
        """Remember what was parsed, and forget what is gone."""
        if self.parsed or len(self._known()) > len(group):
            with suppress(ValueError):  # longer than a row may be: read again the next time
                self._index.put(self._table, self._part, self._new)
