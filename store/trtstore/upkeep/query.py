"""Questions about a store: which artifacts, which one, and what is different between two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from trtstore.content import read
from trtstore.disk import owners
from trtstore.errors import Invalid, Malformed, StoreFailure, as_store_failures
from trtstore.format.digest import hash_bytes
from trtstore.format.record import Record
from trtstore.index import usage
from trtstore.store import Store
from trtstore.upkeep.catalog import OnParsed, Summary
from trtstore.upkeep.maintenance import Maintenance

MAX_NAME = 200  # characters of one name in a dotted one: below a name of a megabyte there may be many
MIN_PREFIX = 4  # digits of a key that a person may give


class NotThere(StoreFailure):
    """No record has this key, or these labels."""


class Row(NamedTuple):
    """One artifact of a listing. `seconds` is what building it took, where that is known; `used` since the epoch."""

    summary: Summary
    hits: int
    used: float
    seconds: float | None

    @property
    def saved(self) -> float | None:
        """Seconds of building that its uses saved."""
        return None if self.seconds is None else self.hits * self.seconds


def rows(store: Store, labels: Mapping[str, str], on_parsed: OnParsed = lambda _: None) -> list[Row]:
    """The artifacts with these labels, the last used first. Raises NotReadable, StoreFailure."""
    hits, built = usage.hits(store.index), usage.build_seconds(store.index)
    wanted, matching = labels.items(), []
    with as_store_failures(store.root, reading=True):
        for summary in Maintenance(store).catalog.summaries(on_parsed):
            if wanted and not wanted <= summary.labels.items():
                continue
            seconds = built.get(summary.key, summary.seconds)
            count, last = hits.get(summary.key, (0, summary.stored))
            matching.append(Row(summary, count, last, seconds))
    matching.sort(key=lambda row: row.used, reverse=True)
    return matching


def find_key(store: Store, prefix: str) -> str:
    """The one key that begins with `prefix`. Raises Invalid if it is malformed or not unique, NotThere.

    >>> find_key(store, key[:12]) == key
    True
    """
    if len(prefix) < MIN_PREFIX or not set(prefix) <= set("0123456789abcdef") or len(prefix) > 64:
        raise Invalid(
            f"{prefix!r} is no key: a key is 64 hexadecimal digits, of which {MIN_PREFIX} or more will do",
            "`trtstore ls` shows the keys",
        )
    keys = list(store.keys(prefix))
    if not keys:
        raise NotThere(f"no key begins with {prefix} in {store.root}", "`trtstore ls` shows the keys")
    if len(keys) > 1:
        shown = ", ".join(key[: len(prefix) + 6] for key in keys[:5])
        raise Invalid(f"{len(keys)} keys begin with {prefix}: {shown}", "give more digits")
    return keys[0]


def select(store: Store, words: Sequence[str]) -> list[str]:
    """The keys that `words` mean: prefixes of keys, and all with the labels where words are label=value."""
    prefixes, labels = split(words)
    keys = [find_key(store, prefix) for prefix in prefixes]
    if labels:
        matching = [row.summary.key for row in rows(store, labels)]
        if not matching:
            shown = " ".join(f"{name}={value}" for name, value in labels.items())
            raise NotThere(f"nothing with {shown} is in {store.root}", "`trtstore ls` shows the labels")
        keys += matching
    return list(dict.fromkeys(keys))


def split(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Words that are no label, and the labels."""
    plain = [word for word in words if "=" not in word]
    pairs = (word.partition("=") for word in words if "=" in word)
    return plain, {name: value for name, _, value in pairs}


def find_record(store: Store, key: str) -> Record:
    """The usable record of `key`. Raises NotThere with the reason where it is not usable.

    >>> find_record(store, key).labels["model"]
    'llama'
    """
    problems: list[str] = []
    record = store.lookup(key, on_problem=problems.append)
    if record is None:
        raise NotThere(problems[0] if problems else f"{key} is not in {store.root}")
    return record


def named_by(store: Store, key: str) -> Record:
    """The record of `key`, usable or not, also a revoked one. Raises NotThere with the reason, and as a read."""
    problems: list[str] = []
    with as_store_failures(store.root, reading=True):
        try:
            if owners.owns(store._layout, key, problems.append):
                return read.read_record(store._layout, key)
        except Malformed as trouble:
            problems.append(f"{key} of {store.root} cannot be read: {trouble}")
    raise NotThere(problems[0])


def fields(store: Store, record: Record) -> dict[str, Any]:
    """All that can differ between two artifacts, by dotted name: labels, what the record says, and the files."""
    with as_store_failures(store.root, reading=True):
        listed = read.read_manifest(store._layout, record.manifest)
    fields_of = {f"label.{name}": value for name, value in record.labels.items()}
    fields_of |= dict(_flat(record.predicate, ""))
    fields_of |= {
        f"file.{entry.path}": f"{entry.mode} {entry.size} bytes {entry.sha256[:12]}" for entry in listed.entries
    }
    return fields_of


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for inner in sorted(value):
            short = inner if len(inner) <= MAX_NAME else f"{inner[:MAX_NAME]}…{hash_bytes(inner.encode())[:12]}"
            yield from _flat(value[inner], f"{name}.{short}" if name else short)
    else:
        yield name, value


def differences(store: Store, first: Record, second: Record) -> list[tuple[str, Any, Any]]:
    """(name, in the first, in the second) of each field that differs; None where one lacks it."""
    mine, other = fields(store, first), fields(store, second)
    names = sorted(mine.keys() | other.keys())
    return [(name, mine.get(name), other.get(name)) for name in names if mine.get(name) != other.get(name)]
