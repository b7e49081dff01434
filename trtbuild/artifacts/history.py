"""What earlier builds teach about a step: which of them was nearest, what differs, and what it took.

The nearest is the one with the fewest differing fields; of equals, the one that took longest, for that is the rebuild
most worth understanding. Fields are compared through all upstream steps, so that a difference shows where it arose
(`toolchain.onnx` of the network) and not as another key of an input.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, TypeAlias, TypeGuard

from trtbuild.artifacts import provenance
from trtbuild.facts.key import LOCK, TOOL
from trtbuild.planning.plan import Planned
from trtstore import OnParsed, Reader, Record, StoreFailure, Summary

#: Records that are read to find the nearest: those whose labels are most alike. Reading one takes half a millisecond.
CANDIDATES = 200

#: More than any build takes, or any machine has: what a record says beyond it is no statistic.
MAX_SECONDS, MAX_BYTES = 1e9, 1 << 60

#: What an earlier build must share to say how long another will take.
KIND = ("compiler.name", "network.frontend", "target.kind")


class Absent(Enum):
    """A field that one side does not have: its step did not read it."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True)
class Difference:
    """One field with another value: `old` in the store, `new` as asked for; ABSENT where a side lacks it."""

    field: str
    steps: tuple[str, ...]  # that read it
    old: Any
    new: Any


@dataclass(frozen=True)
class Near:
    """An earlier build of the same step, and all in which it differs from what is asked for."""

    record: Record
    store: str
    ours: bool  # in our own store, rather than in one that is only read
    differences: tuple[Difference, ...]

    @property
    def seconds(self) -> float | None:
        """What its worker took."""
        found = provenance.stats(self.record).get("seconds")
        return float(found) if _counts(found, MAX_SECONDS) else None

    @property
    def model_bytes(self) -> int | None:
        """Bytes of the checkpoint that it was made from."""
        found = provenance.stats(self.record).get("model_bytes")
        return found if _counts(found, MAX_BYTES) and isinstance(found, int) and found > 0 else None


@dataclass(frozen=True)
class Estimate:
    """What a step will take, from an earlier build: seconds of its worker, bytes of its result, bytes of memory.

    `scale` is the checkpoint's size over that of the earlier build, by which all three were multiplied.
    """

    seconds: float
    bytes: int
    peak_memory_bytes: int | None
    basis: Near
    scale: float


@dataclass(frozen=True)
class Place:
    """A store to look into, whether it is our own, how its records are listed, and how many of them may be read."""

    store: Reader
    ours: bool
    summaries: Callable[[OnParsed], Iterable[Summary]]
    most: int = CANDIDATES


class History:
    """Earlier builds in `places`, each listed when it is first asked; one that cannot be read is told."""

    def __init__(
        self,
        places: Sequence[Place],
        on_problem: Callable[[str], None],
        on_parsed: OnParsed = lambda _: None,
    ) -> None:
        self._places = tuple(places)
        self._on_problem = on_problem
        self._on_parsed = on_parsed
        self._records: dict[tuple[str, str], tuple[Record | None, provenance.Told]] = {}

    def nearest(self, planned: Planned, labels: Mapping[str, str], same: Collection[str] = ()) -> Near | None:
        """The build of the same step that is most like `planned`, itself left out; None where there is none.

        `labels` are those that its record would have: they choose which records are read at all. Only builds with
        equal fields `same` count.
        """
        best: tuple[tuple[float, ...], Near] | None = None
        for place, summary in self._candidates(planned, labels):
            record, found = self._read(place, summary.key)
            if record is None or planned.name not in found.fields:
                continue
            near = Near(record, str(place.store), place.ours, compare(found, planned))
            if any(difference.field in same for difference in near.differences):
                continue
            rank = (-len(near.differences), near.seconds or 0.0, summary.stored)
            if best is None or rank > best[0]:
                best = (rank, near)
        return None if best is None else best[1]

    def estimate(self, planned: Planned, labels: Mapping[str, str], model_bytes: int) -> Estimate | None:
        """What `planned` will take, from the nearest build of its kind; None where there is no basis."""
        near = self.nearest(planned, labels, same=KIND)
        if near is None or near.seconds is None:
            return None
        scale = model_bytes / near.model_bytes if near.model_bytes else 1.0
        peak = provenance.stats(near.record).get("peak_memory_bytes")
        return Estimate(
            seconds=near.seconds * scale,
            bytes=round(near.record.bytes * scale),
            peak_memory_bytes=round(peak * scale) if _counts(peak, MAX_BYTES) else None,
            basis=near,
            scale=scale,
        )

    def _read(self, place: Place, key: str) -> tuple[Record | None, provenance.Told]:
        """A record and what it tells; read once, for the many steps of a sweep."""
        at = (str(place.store), key)
        if at not in self._records:
            record = place.store.lookup(key, on_problem=lambda _: None)
            self._records[at] = (record, _NOTHING if record is None else provenance.told(record))
        return self._records[at]

    def _candidates(self, planned: Planned, labels: Mapping[str, str]) -> list[tuple[Place, Summary]]:
        def alike(item: tuple[Place, Summary]) -> tuple[int, float]:
            theirs = item[1].labels
            return sum(theirs.get(name) == value for name, value in labels.items()), item[1].used

        found = [
            item for item in self._listed if item[1].labels.get("step") == planned.name and item[1].manifest
        ]
        found = heapq.nlargest(CANDIDATES, (item for item in found if item[1].key != planned.key), key=alike)
        left = {id(place): place.most for place in self._places}
        chosen = []
        for place, summary in found:
            if left[id(place)]:
                left[id(place)] -= 1
                chosen.append((place, summary))
        return chosen

    @cached_property
    def _listed(self) -> list[tuple[Place, Summary]]:
        found: list[tuple[Place, Summary]] = []
        for place in self._places:
            try:
                found += [(place, summary) for summary in place.summaries(self._on_parsed)]
            except (OSError, StoreFailure) as trouble:
                self._on_problem(f"{place.store} cannot be listed: {trouble}")
        return found


def fields(planned: Planned) -> dict[str, Mapping[str, Any]]:
    """The fields of each step's key by the step's name, upstream first."""
    return {step.name: step.fields for step in provenance.chain(planned)}


def compare(found: provenance.Told, planned: Planned) -> tuple[Difference, ...]:
    """What differs between a record and a plan, each difference once, with all the steps that read the field."""
    wanted = {step.name: step for step in provenance.chain(planned)}
    merged: dict[tuple[str, str, str], Difference] = {}
    for step in dict.fromkeys([*wanted, *found.fields]):
        asked = wanted.get(step)
        if asked is not None and found.keys.get(step) == asked.key:
            continue
        old, new = _by_package(
            (found.fields.get(step, {}), found.packages.get(step, {})),
            ({}, {}) if asked is None else (asked.fields, asked.packages),
        )
        for name in dict.fromkeys([*new, *old]):
            upstream = name.removeprefix(provenance.INPUT)
            known = upstream in found.fields and upstream in wanted
            if name == "step.name" or (name.startswith(provenance.INPUT) and known):
                continue  # shown as what differs within that step
            one, other = _plain(old.get(name, ABSENT)), _plain(new.get(name, ABSENT))
            if one != other or type(one) is not type(other):
                at = (name, repr(one), repr(other))
                steps = (*merged[at].steps, step) if at in merged else (step,)
                merged[at] = Difference(name, steps, one, other)
    return tuple(merged.values())


_NOTHING = provenance.Told({}, {}, None, {}, None, None, None, {})
_Side: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Any]]  # fields, and packages of the toolchain


def _by_package(old: _Side, new: _Side) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The fields of two sides, with the digests of two locks replaced by the packages that differ, where any does."""
    (old_fields, old_packages), (new_fields, new_packages) = old, new
    if old_fields.get(LOCK, ABSENT) == new_fields.get(LOCK, ABSENT) or not (old_packages and new_packages):
        return old_fields, new_fields
    names = {*old_packages, *new_packages}
    if not (LOCK in old_fields and LOCK in new_fields):
        names = {*old_packages} & {*new_packages}  # versions that were asked for are of a few packages alone
    differing = [name for name in sorted(names) if old_packages.get(name) != new_packages.get(name)]
    sides = []
    for fields_, packages in (old, new):
        kept = {name: value for name, value in fields_.items() if not name.startswith(TOOL)}
        kept |= {TOOL + name: packages[name] for name in differing if name in packages}
        if not differing and LOCK in fields_:
            kept[LOCK] = fields_[LOCK]
        sides.append(kept)
    return sides[0], sides[1]


def _counts(found: Any, most: float) -> TypeGuard[float]:
    """Whether what a record says, which anybody may have written, is a number from 0 to `most`."""
    return type(found) in (int, float) and 0 <= found <= most


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
