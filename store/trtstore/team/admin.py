"""What a team store is asked as a whole: its artifacts at a glance, copies elsewhere."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trtstore.deadlines import Pool, deadline
from trtstore.errors import Malformed, Silent
from trtstore.format import record as records
from trtstore.format.digest import hash_bytes, hex_of
from trtstore.index import usage
from trtstore.index.index import Index
from trtstore.remote.objects import ObjectInfo
from trtstore.remote.remote import Remote
from trtstore.upkeep.catalog import Summary
from trtstore.upkeep.query import Row

if TYPE_CHECKING:  # it loads what signatures take
    from trtstore.team.judge import Judged
    from trtstore.team.team import Team

NEWEST = 2000  # records that are looked at for what is like another
READERS = 16  # records asked for at a time


def rows(remote: Remote, labels: dict[str, str], on_read: Callable[[int], None]) -> list[Row]:
    """The artifacts with these labels, believed or not, the newest first. Raises Unreachable, StoreFailure."""
    matching = []
    listed = dict(remote.listed_records())
    with Pool(READERS) as pool:
        for number, (key, data) in enumerate(zip(listed, pool.map(remote.peek, listed), strict=True), 1):
            on_read(number)
            summary = None if data is None else _summary(key, data, listed[key].modified)
            if summary is not None and labels.items() <= summary.labels.items():
                matching.append(Row(summary, 0, summary.stored, summary.seconds))
    matching.sort(key=lambda row: row.summary.stored, reverse=True)
    return matching


def _summary(key: str, data: bytes, stored: float) -> Summary | None:
    try:
        record = records.parse(data, key)
    except Malformed:
        return Summary(key, "", 0, 0, {}, None, stored, stored)
    seconds = usage.stated_seconds(record)
    return Summary(key, hex_of(record.manifest), record.bytes, record.files, record.labels, seconds, stored, stored)


def team_summaries(team: Team, index: Index, on_read: Callable[[int], None]) -> list[Summary]:
    """The newest artifacts at a glance, believed or not; what was read once is remembered in `index`.

    Nothing where the team store was not reached before. Raises Unreachable, StoreFailure.

    >>> _ = team.push(store, key, signer)
    >>> [summary.labels["model"] for summary in team_summaries(team, store.index, lambda count: None)]
    ['llama']
    """
    if team.down is not None:
        return []
    with deadline(team.remote.patience):
        try:
            listed = dict(team.remote.listed_records())
        except Silent as trouble:
            team.went_down(trouble)
            return []
        return _read(team, index, listed, on_read)


def _read(team: Team, index: Index, listed: dict[str, ObjectInfo], on_read: Callable[[int], None]) -> list[Summary]:
    newest = heapq.nlargest(NEWEST, listed, key=lambda key: listed[key].modified)
    where = hash_bytes(str(team).encode())[:16]
    known = {key: _remembered(index.get("team", f"{where}:{key}"), key, listed[key]) for key in newest}
    unknown = [key for key, summary in known.items() if summary is None]
    with Pool(READERS) as pool:
        for number, (key, data) in enumerate(zip(unknown, pool.map(team.remote.peek, unknown), strict=True), 1):
            on_read(number)
            known[key] = None if data is None else _summary(key, data, listed[key].modified)
            if (one := known[key]) is not None:
                row = [one.stored, one.manifest, one.bytes, one.files, dict(one.labels), one.seconds]
                index.put("team", f"{where}:{key}", row)
    return [summary for summary in known.values() if summary is not None]


def _remembered(row: Any, key: str, listed: ObjectInfo) -> Summary | None:
    """The summary in a row of the index, if it is of that very object."""
    if not isinstance(row, list) or len(row) != 6 or row[0] != listed.modified:
        return None
    stored, digits, size, files, labels, seconds = row
    return Summary(key, digits, size, files, labels, seconds, stored, stored)


def mirror(source: Team, target: Remote, judged: Judged, on_progress: Callable[[int, int], None]) -> bool:
    """Copy one artifact with the signatures that it has; whether its record is new there.

    Raises Corrupt where bytes are not what they should be, Unreachable, NotWritable, StoreFailure.
    """
    if target.find(judged.record.key) == judged.envelope and not target.missing(source, judged.record):
        return False
    target.push_blobs(source, judged.record, on_progress)
    return target.put_record(judged.record.key, judged.envelope)
