"""Statistics that only the index keeps: how often an artifact was used, and how long its build took."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import Any, TypeGuard

from trtstore.format.canonical_json import Json
from trtstore.format.record import Record
from trtstore.index.index import Index

_HITS, _BUILD = "hits", "build"
_MAX_SECONDS = 1e11  # the year 5138


def hit(index: Index, key: str) -> None:
    """Count one use of the artifact of `key`."""
    index.update(_HITS, key, lambda old: [_count(old) + 1, time.time()])


def built(index: Index, key: str, seconds: float) -> None:
    """Keep what a build took."""
    index.put(_BUILD, key, round(seconds, 3))


def hits(index: Index) -> dict[str, tuple[int, float]]:
    """(uses, when the last was) by key, of those that were used."""
    return {key: (_count(value), _last(value)) for key, value in index.items(_HITS).items()}


def build_seconds(index: Index) -> dict[str, float]:
    """Seconds by key, where they are known better than the record says."""
    rows = index.items(_BUILD).items()
    return {key: float(value) for key, value in rows if _is_time(value)}


def forget(index: Index, keys: list[str]) -> None:
    """Drop the statistics of artifacts that are gone."""
    index.forget(_HITS, keys)
    index.forget(_BUILD, keys)


def stated_seconds(record: Record) -> float | None:
    """Seconds between startedOn and finishedOn of the record's SLSA provenance, if it has them.

    https://slsa.dev/spec/v1.0/provenance
    """
    details = record.predicate.get("runDetails")
    metadata = details.get("metadata") if isinstance(details, Mapping) else None
    if not isinstance(metadata, Mapping):
        return None
    started, finished = _moment(metadata.get("startedOn")), _moment(metadata.get("finishedOn"))
    return None if started is None or finished is None else max(0.0, finished - started)


def _moment(text: Any) -> float | None:
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _last(value: Json | None) -> float:
    last = value[1] if isinstance(value, list) and len(value) > 1 else 0.0
    return float(last) if _is_time(last) else 0.0


def _is_time(value: Json) -> TypeGuard[float]:
    """Whether it is seconds, of an age or of a build, that can be told in words."""
    return isinstance(value, int | float) and 0 <= value <= _MAX_SECONDS


def _count(value: Json | None) -> int:
    count = value[0] if isinstance(value, list) and value else 0
    return count if type(count) is int and count >= 0 else 0
