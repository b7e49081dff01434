"""What earlier builds teach about a step: which one is nearest, what differs, and what it took.

The nearest build has the fewest differing fields; among equals it is the one that took longest, since its rebuild is
most worth an explanation. Fields are compared through all upstream steps. So a difference shows where it arose, such as
`toolchain.onnx` of the network, and not as another key of an input.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import trtstore
from trtbuild.artifacts import provenance
from trtbuild.facts.key import LOCK, TOOL
from trtbuild.planning.plan import PlannedStep
from trtstore import Reader, ReadOnly, Record, Store, StoreFailure

if TYPE_CHECKING:  # a hit does not read what lists records
    from trtstore import OnParsed, Summary, Team

#: How many records are read to find the nearest: those with the most equal labels. One takes half a millisecond.
CANDIDATES = 200
#: The same of the team store, whose records come over the network.
TEAM_CANDIDATES = 24

#: More than any build takes, or any machine has. A record that claims more is not believed.
MAX_SECONDS, MAX_BYTES = 1e9, 1 << 60

#: The fields that an earlier build must share to be the basis of an estimate.
KIND = ("compiler.name", "network.frontend", "target.kind")


class Absent(Enum):
    """The value of a field that one side lacks: its step did not read it."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True)
class Difference:
    """One field with two values: `old` in the store, `new` as asked for. ABSENT stands for a missing one.

    `steps` are the steps that read the field.
    """

    field: str
    steps: tuple[str, ...]
    old: Any
    new: Any


@dataclass(frozen=True)
class NearestBuild:
    """The earlier build of the same step that is most like what is asked for, and how it differs.

    `ours` says whether it is in the local store, and not in one that is only read.
    """

    record: Record
    store: str
    ours: bool
    differences: tuple[Difference, ...]

    @property
    def seconds(self) -> float | None:
        """The wall time of its worker, if the record has it."""
        seconds = provenance.stats(self.record).get("seconds")
        return float(seconds) if _counts(seconds, MAX_SECONDS) else None

    @property
    def model_bytes(self) -> int | None:
        """The bytes of the checkpoint that it was made from, if the record has them."""
        size = provenance.stats(self.record).get("model_bytes")
        return size if _counts(size, MAX_BYTES) and isinstance(size, int) and size > 0 else None


@dataclass(frozen=True)
class Estimate:
    """What a step will take, from an earlier build: seconds of its worker, bytes of its result, bytes of memory.

    `scale` is the checkpoint's size over that of the earlier build, by which all three were multiplied.
    """

    seconds: float
    bytes: int
    peak_memory_bytes: int | None
    basis: NearestBuild
    scale: float


@dataclass(frozen=True)
class HistorySource:
    """A store to search, how its records are listed, and how many of them may be read at `most`."""

    store: Reader
    ours: bool
    summaries: Callable[[OnParsed], Iterable[Summary]]
    most: int = CANDIDATES


class History:
    """Earlier builds in `places`, each listed when it is first asked; one that cannot be read is told."""

    def __init__(
        self,
        sources: Sequence[HistorySource],
        on_problem: Callable[[str], None],
        on_parsed: OnParsed = lambda _: None,
    ) -> None:
        self._sources = tuple(sources)
        self._on_problem = on_problem
        self._on_parsed = on_parsed
        self._records: dict[tuple[str, str], tuple[Record | None, provenance.ParsedProvenance]] = {}

    def nearest(self, planned: PlannedStep, same: Collection[str] = ()) -> NearestBuild | None:
        """The build of the same step that is most like `planned`, except itself; None if there is none.

        Its labels choose which records are read at all. Only builds with equal fields `same` count.
        """
        best: tuple[tuple[float, ...], NearestBuild] | None = None
        for source, summary in self._candidates(planned):
            record, build = self._read(source, summary.key)
            if record is None or planned.name not in build.fields:
                continue
            near = NearestBuild(record, str(source.store), source.ours, compare(build, planned))
            if any(difference.field in same for difference in near.differences):
                continue
            rank = (-len(near.differences), near.seconds or 0.0, summary.stored)
            if best is None or rank > best[0]:
                best = (rank, near)
        return None if best is None else best[1]

    def estimate(self, planned: PlannedStep, model_bytes: int) -> Estimate | None:
        """What `planned` will take, from the nearest build of its kind; None if there is no basis."""
        near = self.nearest(planned, same=KIND)
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

    def _read(self, source: HistorySource, key: str) -> tuple[Record | None, provenance.ParsedProvenance]:
        """A record and its provenance, read once for the many steps of a sweep."""
        at = (str(source.store), key)
        if at not in self._records:
            record = source.store.lookup(key, on_problem=lambda _: None)
            self._records[at] = (record, _NOTHING if record is None else provenance.parse(record))
        return self._records[at]

    def _candidates(self, planned: PlannedStep) -> list[tuple[HistorySource, Summary]]:
        labels = planned.labels or {}

        def alike(item: tuple[HistorySource, Summary]) -> tuple[int, float]:
            theirs = item[1].labels
            return sum(theirs.get(name) == value for name, value in labels.items()), item[1].used

        same_step = [item for item in self._listed if item[1].labels.get("step") == planned.name and item[1].manifest]
        others = (item for item in same_step if item[1].key != planned.key)
        left = {id(source): source.most for source in self._sources}
        chosen = []
        for source, summary in heapq.nlargest(CANDIDATES, others, key=alike):
            if left[id(source)]:
                left[id(source)] -= 1
                chosen.append((source, summary))
        return chosen

    @cached_property
    def _listed(self) -> list[tuple[HistorySource, Summary]]:
        listed: list[tuple[HistorySource, Summary]] = []
        for source in self._sources:
            try:
                listed += [(source, summary) for summary in source.summaries(self._on_parsed)]
            except (OSError, StoreFailure) as trouble:
                self._on_problem(f"{source.store} cannot be listed: {trouble}")
        return listed


def history_of(
    store: Store,
    also: Sequence[ReadOnly],
    team: Team | None,
    on_problem: Callable[[str], None],
    on_parsed: OnParsed,
) -> History:
    """The earlier builds in the local store, in the others on this machine, and in the team store."""
    sources = [HistorySource(store, True, trtstore.Maintenance(store).catalog.summaries)]
    sources += [HistorySource(other, False, trtstore.catalog_of(other, store.index).summaries) for other in also]
    if team is not None:
        listing = partial(trtstore.team_summaries, team, store.index)
        sources.append(HistorySource(team, False, listing, TEAM_CANDIDATES))
    return History(sources, on_problem, on_parsed)


def fields(planned: PlannedStep) -> dict[str, Mapping[str, Any]]:
    """The fields of each step's key by the step's name, upstream first."""
    return {step.name: step.fields for step in planned.chain}


def compare(build: provenance.ParsedProvenance, planned: PlannedStep) -> tuple[Difference, ...]:
    """The differences between an earlier build and a plan, each once, with all steps that read the field."""
    wanted = {step.name: step for step in planned.chain}
    merged: dict[tuple[str, str, str], Difference] = {}
    for step in dict.fromkeys([*wanted, *build.fields]):
        asked = wanted.get(step)
        if asked is not None and build.keys.get(step) == asked.key:
            continue
        old, new = _by_package(
            (build.fields.get(step, {}), build.packages.get(step, {})),
            ({}, {}) if asked is None else (asked.fields, asked.packages),
        )
        for name in dict.fromkeys([*new, *old]):
            upstream = name.removeprefix(provenance.INPUT)
            known = upstream in build.fields and upstream in wanted
            if name == "step.name" or (name.startswith(provenance.INPUT) and known):
                continue  # shown as what differs within that step
            one, other = _plain(old.get(name, ABSENT)), _plain(new.get(name, ABSENT))
            if one != other or type(one) is not type(other):
                at = (name, repr(one), repr(other))
                steps = (*merged[at].steps, step) if at in merged else (step,)
                merged[at] = Difference(name, steps, one, other)
    return tuple(merged.values())


_NOTHING = provenance.ParsedProvenance({}, {}, None, {}, None, None, None, {})
_Side: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Any]]  # fields, and packages of the toolchain


def _by_package(old: _Side, new: _Side) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The fields of two sides. Where packages of two locks differ, these stand in place of the locks' digests."""
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


def _counts(value: Any, most: float) -> TypeGuard[float]:
    """Whether `value` of a record, which anybody may have written, is a number from 0 to `most`."""
    return type(value) in (int, float) and 0 <= value <= most


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
