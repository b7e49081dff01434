"""Many processes in one store at once, with collectors among them: nobody sees an error, and nothing is built twice."""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.store.faults import crowd, memory
from tests.store.faults.checks import half_written, held_locks
from tests.store.faults.crowd import KEYS, Outcome
from tests.store.faults.operations import read_artifact
from tests.store.faults.storm import files_of, key_of
from tests.store.support import leftovers
from trtstore import Store
from trtstore.upkeep.maintenance import Maintenance

pytestmark = pytest.mark.slow

PROCESSES = 32
SECONDS = 18.0
LONGER = "TRTSTORE_CROWD_SECONDS"
SEED = "TRTSTORE_CROWD_SEED"

#: What each process does at least once, and what must come of it, else the test would prove nothing.
LEAST = {
    "builds": 100,
    "hits": 50,
    "safe hits": PROCESSES,
    "roots": 2 * PROCESSES,
    "pins": PROCESSES,
    "verifies": PROCESSES,
    "whole verifies": 5,
    "collections": 3 * PROCESSES,
    "removed": 50,
    "imports": PROCESSES,
    "imported": 1,
}
TICK = 0.02  # seconds: file times are those of the kernel's last tick


@pytest.fixture
def seed() -> int:
    seed = os.environ.get(SEED) or str(random.randrange(10**6))  # dice, no secret
    print(f"the crowd's seed: run again with {SEED}={seed}")
    return int(seed)


def test_a_crowd_with_collectors_in_it_sees_no_error_and_builds_nothing_twice(seed: int) -> None:
    seconds = float(os.environ.get(LONGER, SECONDS))
    with memory.folder() as home:
        (home / "links").mkdir()
        crowd.pack(home)
        each = {name: least // PROCESSES for name, least in LEAST.items() if least % PROCESSES == 0}
        work = [partial(crowd.mingle, seconds=seconds, least=each)] * PROCESSES
        outcome = crowd.ended(crowd.together(home, seed, work), Outcome())
        print(dict(outcome.counts))
        assert not outcome.failures, f"{len(outcome.failures)} failures, {SEED}={seed}\n{outcome.failures[0]}"
        events = [json.loads(line) for line in (home / "events").read_text().splitlines()]
        assert [*unneeded_builds(events), *unneeded_losses(events)] == []
        few = {name: outcome.counts[name] for name, least in LEAST.items() if outcome.counts[name] < least}
        assert not few, f"too few to prove anything: {few}"
        store = Store.open(home / "store", durability="fast")
        assert [*left_wrong(store)] == []
        assert [*wrongly_collected(store, outcome)] == []


def unneeded_builds(events: list[dict[str, Any]]) -> Iterator[str]:
    """Builds of one key at the same time, and those of a key that no collection had removed since the last."""
    builds, removals = by_key(events, "build"), by_key(events, "removed")
    for key, done in builds.items():
        for before, after in pairwise(done):
            if after["began"] < before["ended"]:
                yield f"{key[:8]}… is built by {before['pid']} and {after['pid']} at once"
            if not any(overlaps(r, before["began"], after["ended"]) for r in removals[key]):
                yield f"{key[:8]}… is built again by {after['pid']}, and was there"
        if len(done) > len(removals[key]) + 1:
            yield f"{key[:8]}… is built {len(done)} times and was removed {len(removals[key])} times"


def unneeded_losses(events: list[dict[str, Any]]) -> Iterator[str]:
    """What was used and then gone, though its grace period was not over."""
    removals = by_key(events, "removed")
    for loss in (event for event in events if event["kind"] == "lost"):
        allowed = loss["ended"] - loss["began"] + TICK
        if not any(overlaps(r, loss["began"], loss["ended"]) and r["grace"] < allowed for r in removals[loss["key"]]):
            yield f"{loss['key'][:8]}… is gone {allowed:.3f} seconds after a use"


def by_key(events: list[dict[str, Any]], kind: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in sorted(events, key=lambda event: event["began"]):
        if event["kind"] == kind:
            found[event["key"]].append(event)
    return found


def overlaps(event: dict[str, Any], began: float, ended: float) -> bool:
    return event["began"] <= ended and event["ended"] >= began


def left_wrong(store: Store) -> Iterator[str]:
    base = store.root / "v1"
    yield from leftovers(store.root)
    yield from held_locks(base)
    yield from half_written(base)
    yield from (str(finding) for finding in Maintenance(store).verify())
    numbers = {key_of(number): number for number in range(KEYS)}
    for key in [*store.keys()]:
        problems: list[str] = []
        record = store.lookup(key, on_problem=problems.append)
        yield from problems
        if record is not None and read_artifact(store.materialise(record).path) != files_of(numbers[key]):
            yield f"{numbers[key]} is a hit with wrong bytes"


def wrongly_collected(store: Store, outcome: Outcome) -> Iterator[str]:
    """What a last collection takes of roots and pins, and what else it leaves."""
    for link in outcome.links:
        assert link.is_symlink()
    plan = Maintenance(store).collect(0, grace=0)
    kept = {*map(key_of, outcome.links.values()), *map(key_of, outcome.pinned)}
    left = {*store.keys()}
    yield from (f"{key[:8]}… is rooted or pinned, and gone" for key in kept - left)
    yield from (f"{key[:8]}… is neither rooted nor pinned, and there" for key in left - kept)
    for link, number in outcome.links.items():
        if read_artifact(link) != files_of(number):
            yield f"the root {link.name} leads to other bytes"
    blobs = {path for path in (store.root / "v1" / "blobs").rglob("*") if path.is_file()}
    named = {digits for key in left for digits in named_by(store, key)}
    yield from (f"the blob {path.name[:8]}… is left" for path in blobs if path.name not in named)
    if plan.after < sum(path.stat().st_size for path in blobs):
        yield "the plan has fewer bytes than there are"
    if again := Maintenance(store).collect(0, grace=0).removed:
        yield f"one more collection finds {again}"


def named_by(store: Store, key: str) -> set[str]:
    record = store.lookup(key)
    assert record is not None
    return {
        record.manifest.removeprefix("sha256:"),
        *(entry.sha256 for entry in store.manifest(record).entries),
    }


def test_a_hundred_builds_are_whole_while_a_collector_takes_all_it_may(seed: int) -> None:
    with memory.folder() as home:
        collectors = crowd.together(home, seed, [crowd.collect_until_told])
        builders = crowd.together(home, seed + 1, [partial(crowd.build_often, builds=25)] * 4)
        outcome = crowd.ended(builders, Outcome())
        Path(home / "over").touch()
        crowd.ended(collectors, outcome)
        print(dict(outcome.counts))
        assert not outcome.failures, f"{len(outcome.failures)} failures, {SEED}={seed}\n{outcome.failures[0]}"
        assert outcome.counts["collections"] >= 1
        assert [*left_wrong(Store.open(home / "store", durability="fast"))] == []
