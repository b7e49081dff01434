"""Signed documents of which the newest counts: a series, a version that only rises, and the last one seen here.

teams/<sha256 of the team store's URL>/<name> holds the envelope of the last one that was believed. A document of
another series, or of a lower version, is an old one, or another team's, that somebody put in its place.
"""

from __future__ import annotations

import datetime
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trtstore.disk import locks
from trtstore.disk.layout import Layout, read_bounded, write_small
from trtstore.errors import Malformed, Untrusted, as_store_failures
from trtstore.format import canonical_json
from trtstore.format.canonical_json import Json
from trtstore.format.digest import ALGORITHM, hash_bytes
from trtstore.format.envelope import STATEMENT, Envelope, statement

MAX_VERSION = 99_999_999  # eight digits

_SERIES = re.compile(r"[0-9a-f]{32}")
_FORM = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Issue:
    """Which document this is: 32 hex digits that its first version chose, its number, and when it was signed."""

    series: str
    version: int
    issued: str

    def next(self, when: datetime.datetime) -> Issue:
        """What comes after it."""
        return Issue(self.series, self.version + 1, written(when))


def first(when: datetime.datetime) -> Issue:
    """The first of a series of its own."""
    return Issue(secrets.token_hex(16), 1, written(when))


def parse(predicate: dict[str, Json], what: str) -> Issue:
    """The issue that a predicate tells. Raises Malformed."""
    series, version, issued = (predicate.get(name) for name in ("series", "version", "issuedOn"))
    if not isinstance(series, str) or _SERIES.fullmatch(series) is None:
        raise Malformed(f"{what} has no series")
    if type(version) is not int or not 1 <= version <= MAX_VERSION:
        raise Malformed(f"{what} has no version")
    if not isinstance(issued, str):
        raise Malformed(f"{what} has no date")
    moment(issued, what)
    return Issue(series, version, issued)


def enclosed(subject: str, predicate_type: str, predicate: dict[str, Json]) -> Envelope:
    """An unsigned statement of which the predicate is all that matters."""
    digest = hash_bytes(canonical_json.canonical(predicate))
    said = {
        "_type": STATEMENT,
        "subject": [{"name": subject, "digest": {ALGORITHM: digest}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    return Envelope(canonical_json.canonical(said), ())


def opened(envelope: Envelope, subject: str, what: str) -> tuple[str, dict[str, Json]]:
    """(predicate's type, predicate) of such a statement. Raises Malformed."""
    said = statement(envelope, what)
    digest = hash_bytes(canonical_json.canonical(said["predicate"]))
    if said["subject"][0] != {"name": subject, "digest": {ALGORITHM: digest}}:
        raise Malformed(f"the statement is no {subject}")
    return said["predicateType"], said["predicate"]


def written(when: datetime.datetime) -> str:
    """A moment as the documents write it."""
    return when.strftime(_FORM)


def moment(text: str, what: str) -> datetime.datetime:
    """The moment that a document tells. Raises Malformed."""
    try:
        parsed = datetime.datetime.strptime(text, _FORM).replace(tzinfo=datetime.UTC)
    except ValueError:
        raise Malformed(f"{what} has a date that is none") from None
    if written(parsed) != text:
        raise Malformed(f"{what} has a date that is none")
    return parsed


class VersionMemory:
    """What this store remembers of one document of the team store at `url`; `read` is how its bytes are read."""

    def __init__(self, layout: Layout, url: str, name: str, limit: int, read: Callable[[bytes], Issue]) -> None:
        self._layout, self._name, self._limit, self._read = layout, name, limit, read
        self._place = layout.teams / hash_bytes(url.encode()) / name

    def seen(self) -> bytes | None:
        """The last one that was believed, or None. Raises Untrusted if it cannot be read, NotReadable, StoreFailure."""
        with as_store_failures(self._layout.root, reading=True):
            self._layout.own(self._place.parent)
            data = read_bounded(self._place, self._limit)
            there = data is not None or self._place.is_symlink() or self._place.exists()
        if data is None and not there:
            return None
        try:
            self._read(data or b"")
        except Malformed:
            raise _forget(f"what was remembered of the {self._name} cannot be read", self._place) from None
        return data

    def check(self, issue: Issue, where: object) -> None:
        """Raises Untrusted where `found` is older than what was seen, or of another series."""
        data = self.seen()
        if data is None:
            return
        last = self._read(data)
        if issue.series != last.series:
            raise _forget(f"the {self._name} of {where} is of another series than was seen before", self._place)
        if issue.version < last.version:
            raise Untrusted(
                f"the {self._name} of {where} is version {issue.version}, and version {last.version} was seen "
                "before: somebody put an old one there",
                f"sign it anew, with a key that may; and look at who may write to {where}",
            )

    def keep(self, data: bytes) -> None:
        """Remember a document that was believed, unless a newer one was meanwhile. Raises as `check`, StoreFailure"""
        with as_store_failures(self._layout.root):
            self._layout.make(self._layout.locks)
            with locks.exclusive(self._layout.lock("team", self._place.parent.name)):
                last = self.seen()
                if last is None or self._read(last).version < self._read(data).version:
                    write_small(self._layout, self._place, data)


def _forget(words: str, place: Path) -> Untrusted:
    return Untrusted(words, f"if you know why, delete {place}: then this machine believes what is there now")
