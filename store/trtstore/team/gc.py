"""What goes from a team store, by a policy that a key with role=gc signed: what is broken, revoked, old or too much.

Uses are not counted there, since readers may not write: the oldest artifacts are removed first.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtstore.content.read import named_blobs
from trtstore.deadlines import Pool
from trtstore.disk.layout import VERSION, Layout
from trtstore.errors import Corrupt, Malformed, NotWritable
from trtstore.format import record as records
from trtstore.format.digest import hex_of
from trtstore.marks import revocations as revoked
from trtstore.remote.objects import ObjectInfo
from trtstore.remote.remote import Remote, blob_name, record_name
from trtstore.units import format_span

if TYPE_CHECKING:  # it loads what signatures take
    from trtstore.team.team import Team

LEASES = f"{VERSION}/leases/"
#: What nothing names is left for so long: a push may be on its way, and clocks may differ by minutes.
GRACE = 86_400.0
READERS = 16


@dataclass(frozen=True)
class RetentionPolicy:
    """How many bytes a team store may hold, and how old an artifact may be, in days; None is no limit."""

    max_bytes: int | None
    keep_days: int | None


@dataclass(frozen=True)
class Gone:
    """An object that goes: record, blob or lease, by its name, with its bytes and the reason."""

    kind: str
    name: str
    bytes: int
    why: str


@dataclass(frozen=True)
class _Artifact:
    key: str
    listed: ObjectInfo
    blobs: dict[str, int]
    trouble: str | None  # why it cannot be used


def collect(
    team: Team, layout: Layout, policy: RetentionPolicy, *, dry_run: bool, now: float | None = None
) -> list[Gone]:
    """Remove what `policy` does not let stay at `now` (by the place's own clock), records before blobs, and say why.

    Raises NotWritable, Unreachable, StoreFailure; what went until then is gone, and the rest whole.
    """
    team.sync()
    remote = team.remote
    now = _now(remote, dry_run=dry_run) if now is None else now
    listed = dict(remote.listed_records())
    blobs = dict(remote.listed_blobs())
    with Pool(READERS) as pool:
        artifacts = list(pool.map(lambda item: _artifact(remote, layout, blobs, *item), listed.items()))
    leaving = dict(_leaving(artifacts, blobs, policy, now))
    gone = [Gone("record", each.key, each.listed.size, leaving[each.key]) for each in artifacts if each.key in leaving]
    gone += _old_leases(remote, now)
    if not dry_run:
        for one in gone:
            remote.objects.delete(record_name(one.name) if one.kind == "record" else one.name)
        new = {key: one for key, one in remote.listed_records() if key not in listed}
        artifacts += [_artifact(remote, layout, blobs, *item) for item in new.items()]
    staying = {digits for each in artifacts if each.key not in leaving for digits in each.blobs}
    for digits, blob in blobs.items():
        if digits not in staying and now - blob.modified > GRACE:
            gone.append(Gone("blob", digits, blob.size, "no record names it"))
            if not dry_run:
                remote.objects.delete(blob_name(digits))
    return gone


def _now(remote: Remote, *, dry_run: bool) -> float:
    """By the clock that gave the objects their times: with another one, what came a minute ago could be a year old."""
    try:
        return remote.now()
    except NotWritable:
        if not dry_run:
            raise
        return time.time()  # for a reader, who removes nothing


def _artifact(remote: Remote, layout: Layout, blobs: dict[str, ObjectInfo], key: str, listed: ObjectInfo) -> _Artifact:
    data = remote.peek(key)
    if data is None:
        return _Artifact(key, listed, {}, None)
    try:
        record = records.parse(data, key)
    except Malformed as trouble:
        return _Artifact(key, listed, {}, str(trouble))
    digits = hex_of(record.manifest)
    named = {digits: blobs[digits].size} if digits in blobs else {}
    try:
        named |= named_blobs(record, remote.manifest(record))
    except (Corrupt, Malformed) as trouble:
        return _Artifact(key, listed, named, str(trouble))
    revocations = [revocation for one in named if (revocation := revoked.of(layout, one, record.labels)) is not None]
    if revocations:
        return _Artifact(key, listed, named, str(revocations[0]))
    lost = [one for one, size in named.items() if one not in blobs or blobs[one].size != size]
    return _Artifact(key, listed, named, f"its blob {lost[0][:12]} is not there" if lost else None)


def _leaving(
    artifacts: list[_Artifact], blobs: dict[str, ObjectInfo], policy: RetentionPolicy, now: float
) -> Iterator[tuple[str, str]]:
    """(key, why) of each record that goes."""
    oldest = sorted(artifacts, key=lambda each: each.listed.modified)
    staying = []
    for each in oldest:
        age = now - each.listed.modified
        if each.trouble is not None:
            if age > GRACE:  # a push may be on its way
                yield each.key, each.trouble
        elif policy.keep_days is not None and age > policy.keep_days * 86_400:
            yield each.key, f"it is {format_span(age)} old, and {policy.keep_days} days are kept"
        else:
            staying.append(each)
    for key in [] if policy.max_bytes is None else _above(staying, blobs, policy.max_bytes):
        yield key, "the store is above its size, and this is the oldest"


def _above(oldest: list[_Artifact], blobs: dict[str, ObjectInfo], limit: int) -> Iterator[str]:
    """The keys that must go for the rest to have at most `limit` bytes; what several share counts once."""
    users = Counter(digits for each in oldest for digits in each.blobs if digits in blobs)
    total = sum(blobs[digits].size for digits in users)
    for each in oldest:
        if total <= limit:
            return
        yield each.key
        for digits in each.blobs:
            users[digits] -= 1
            total -= blobs[digits].size if users[digits] == 0 else 0


def _old_leases(remote: Remote, now: float) -> list[Gone]:
    """Leases that were not written for a day; a live one is written every few seconds."""
    leases = list(remote.objects.listed(LEASES))
    fresh = {one.name.rpartition("/")[0] for one in leases if now - one.modified <= GRACE}
    return [
        Gone("lease", one.name, one.size, "nobody holds it")
        for one in leases
        if one.name.rpartition("/")[0] not in fresh
    ]
