"""Decides what a collection removes: garbage first, then the artifacts that are cheapest to lose. Changes nothing."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from trtstore import units
from trtstore.content import read
from trtstore.disk.layout import Layout
from trtstore.environments.environment import Environment
from trtstore.errors import Malformed
from trtstore.format.labels import needs
from trtstore.index import usage
from trtstore.index.index import Index
from trtstore.upkeep import garbage
from trtstore.upkeep.catalog import Catalog, OnParsed, Summary
from trtstore.upkeep.decisions import Decision, EvictionPlan
from trtstore.upkeep.live import Protected, protected
from trtstore.upkeep.refcounts import RefCounts
from trtstore.upkeep.score import UNKNOWN_SECONDS, Worth, chance


class Listed(NamedTuple):
    """A record, and the numbers of the blobs that it names."""

    summary: Summary
    blobs: array[int]


class Weighed(NamedTuple):
    """A record that may go, and what it would cost to lose it."""

    record: Listed
    worth: Worth


def make_plan(
    layout: Layout,
    index: Index,
    limit: int | None,
    grace: float,
    on_parsed: OnParsed,
    mine: Path | None = None,
) -> EvictionPlan:
    """One decision over a whole store. `mine` is the caller's own folder in tmp/.

    Raises Invalid if a folder of the store is a link, OSError.
    """
    layout.check()  # a record behind a link is a miss, and its blobs would be garbage
    now = time.time()
    keep = protected(layout, now, grace, mine)
    counts = RefCounts()
    records = [Listed(each, counts.name(blobs)) for each, blobs in Catalog(layout, index).named(on_parsed)]
    unrecorded = keep.trees.keys() - {record.summary.manifest for record in records}
    _hold_roots(layout, counts, unrecorded)
    unnamed = list(counts.mark(layout))
    usable: list[Listed] = []
    unusable: list[Listed] = []
    for record in records:
        whole = record.summary.manifest and not counts.lost(record.blobs)
        (usable if whole else unusable).append(record)
    recorded = {record.summary.manifest for record in usable}
    _hold_roots(layout, counts, keep.trees.keys() - recorded - unrecorded)
    before = counts.total() + sum(status.st_size for _, status in unnamed)

    keep = keep.with_trees((record.summary.key, record.summary.manifest) for record in usable)
    decisions = [_unusable(record, counts) for record in unusable]
    decisions += garbage.unnamed_blobs(unnamed, keep)
    decisions += garbage.dead_roots(layout, keep)
    trees = garbage.unrecorded_trees(layout, index, keep, recorded)
    toolchains = garbage.unused_toolchains(layout, keep)
    for part in (garbage.quarantined(layout, now), trees, toolchains, garbage.old_hints(layout, now)):
        decisions += part.decisions
        before += part.bytes

    left = before - sum(decision.freed for decision in decisions)
    decisions += _within(limit, left, _caches(toolchains.idle, trees.copies, now))
    left = before - sum(decision.freed for decision in decisions)
    dropped = {decision.name for decision in decisions if decision.kind == "tree"}
    staying, free = _divide(layout, usable, keep, trees.names)
    for decision, record in staying:
        counts.hold(record.blobs)
        decisions.append(decision)
    weighed = _least_worth_first(free, usable, counts, index, now)
    decisions += _evict(limit, left, weighed, usable, trees, dropped, counts)
    return EvictionPlan(limit, before, tuple(decisions), counts.unnamed)


def _hold_roots(layout: Layout, counts: RefCounts, trees: Iterable[str]) -> None:
    """A root keeps its blobs, too, if no record of its tree does."""
    for digits in sorted(trees):
        with suppress(Malformed):
            listed = read.read_manifest(layout, f"sha256:{digits}")
            sizes = {entry.sha256: entry.size for entry in listed.entries}
            counts.hold(counts.name([(digits, len(listed.encode())), *sizes.items()]))


def _unusable(record: Listed, counts: RefCounts) -> Decision:
    summary, reason = record.summary, "unusable: a miss, whoever asks"
    return Decision("record", summary.key, True, reason, counts.drop(record.blobs), None, summary.labels)


def _caches(idle: Iterable[Environment], copies: Mapping[str, int], now: float) -> Iterator[Decision]:
    """What can be made again in seconds or by a lock, in the order in which it goes above the limit."""
    for each in sorted(idle, key=lambda environment: environment.used):
        reason = f"{each.title}, last used {units.format_ago(now - each.used)}: its lock can make it again"
        yield Decision("toolchain", each.name, True, reason, each.bytes, each.path)
    for digits, size in copies.items():
        yield Decision("tree", digits, True, "a copy that its blobs can make again in seconds", size)


def _within(limit: int | None, left: int, removals: Iterable[Decision]) -> Iterator[Decision]:
    """The first `removals`, until at most `limit` of `left` bytes are left. The others stay; copies do so silently."""
    for decision in removals:
        if limit is not None and left > limit:
            left -= decision.bytes
            yield decision
        elif decision.kind != "tree":
            yield decision._replace(remove=False, reason=_enough(limit))


def _enough(limit: int | None) -> str:
    return "no limit was given" if limit is None else "the store is within its limit"


def _divide(
    layout: Layout, usable: Sequence[Listed], keep: Protected, trees: set[str]
) -> tuple[list[tuple[Decision, Listed]], list[Listed]]:
    """The records that must stay, each with its decision; and the others. `trees` are the names of those in trees/."""
    keys, staying, free = dict(keep.keys), [], []
    for record in sorted(usable, key=lambda item: not needs(item.summary.labels)):  # those that need others first
        summary = record.summary
        reason = keys.get(summary.key) or keep.trees.get(summary.manifest)
        if reason is None and summary.used >= keep.horizon:
            reason = keep.since
        if reason is None and summary.manifest in trees:
            reason = garbage.tree_in_use(layout.tree(summary.manifest), keep)
        if reason is None:
            free.append(record)
            continue
        for key in needs(summary.labels):
            keys.setdefault(key, f"{summary.key[:12]} needs it")
        decision = Decision("record", summary.key, False, reason, summary.bytes, None, summary.labels)
        staying.append((decision, record))
    return staying, free


def _least_worth_first(
    free: Iterable[Listed], usable: Iterable[Listed], counts: RefCounts, index: Index, now: float
) -> list[Weighed]:
    """The `free` records, the cheapest to lose first. An unknown build time is taken to be the median of the others."""
    hits, built = usage.hits(index), usage.build_seconds(index)
    seconds = {each.summary.key: built.get(each.summary.key, each.summary.seconds) for each in usable}
    known = [took for took in seconds.values() if took is not None]
    typical = median(known) if known else UNKNOWN_SECONDS
    weighed = []
    for record in free:
        summary, took = record.summary, seconds[record.summary.key]
        uses, idle = hits.get(summary.key, (0,))[0], now - summary.used
        worth = Worth(
            seconds=typical if took is None else took,
            known=took is not None,
            hits=uses,
            idle=idle,
            chance=chance(uses, now - summary.stored, idle),
            bytes=counts.share(record.blobs),
        )
        weighed.append(Weighed(record, worth))
    least: dict[str, float] = {}  # what others need is worth no less than they are, and goes after them
    for record, worth in weighed:
        for key in needs(record.summary.labels):
            least[key] = max(least.get(key, 0.0), worth.density)

    def order(item: Weighed) -> tuple[float, bool, float, str]:
        key, density = item.record.summary.key, item.worth.density
        return max(density, least.get(key, 0.0)), key in least, item.record.summary.used, key

    return sorted(weighed, key=order)


def _evict(
    limit: int | None,
    left: int,
    weighed: Iterable[Weighed],
    usable: Iterable[Listed],
    trees: garbage.Trees,
    dropped: set[str],
    counts: RefCounts,
) -> Iterator[Decision]:
    """The records that go, until at most `limit` of `left` bytes are left; a tree goes with its last record.

    `dropped` are trees that go already.
    """
    recorded = Counter(record.summary.manifest for record in usable)
    for record, worth in weighed:
        summary = record.summary
        if limit is None or left <= limit:
            reason = _enough(limit)
            yield Decision("record", summary.key, False, reason, summary.bytes, None, summary.labels, worth)
            continue
        freed = counts.drop(record.blobs)
        yield Decision("record", summary.key, True, "cheapest to lose", freed, None, summary.labels, worth)
        left -= freed
        tree = summary.manifest
        recorded[tree] -= 1
        if not recorded[tree] and tree not in dropped and tree in trees.names:
            size = trees.copies.get(tree, 0)
            yield Decision("tree", tree, True, "its last record goes", size)
            left -= size
