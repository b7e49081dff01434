"""What a collection decides: what it keeps and why, and what goes first."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.store.shop import Shop, key_of
from tests.store.support import leftovers, read_tree, write_files
from trtstore.upkeep.decisions import EvictionPlan
from trtstore.upkeep.maintenance import Maintenance
from trtstore.upkeep.score import DAY, chance

TICK = 0.05  # seconds: file times are those of the kernel's last tick
MARGIN = 2.0  # seconds between what is old and what is new: more than a busy machine needs to begin to decide


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def reasons(plan: EvictionPlan, *, remove: bool) -> dict[str, str]:
    return {decision.name: decision.reason for decision in plan.decisions if decision.remove is remove}


def test_without_a_limit_only_garbage_goes(shop: Shop) -> None:
    shop.put("kept")
    write_files(shop.base / "blobs" / "sha256" / "00", {"0" * 64: b"named by nobody", "stray": b"no name"})
    write_files(shop.base / "trees" / ("0" * 64), {"file": b"no record leads here"})
    write_files(shop.base / "tmp" / "1.dead", {"lock": b"", "work/half": b"half an engine"})
    (shop.base / "roots").mkdir()
    (shop.base / "roots" / ("0" * 64)).symlink_to(shop.home / "no such link")
    plan = shop.collect(None)
    assert {(d.kind, d.name) for d in plan.removed} == {
        ("blob", "0" * 64),
        ("blob", "stray"),
        ("tree", "0" * 64),
        ("root", "0" * 64),
    }
    assert shop.left("kept") == ["kept"]
    assert plan.met
    assert [path.name for folder in ("trees", "roots", "tmp") for path in (shop.base / folder).iterdir()] == []
    assert shop.collect(None).removed == []


@pytest.mark.parametrize("damage", ["a lost blob", "a lost manifest", "a cut record"])
def test_a_record_that_is_a_miss_goes_though_it_is_pinned(shop: Shop, damage: str) -> None:
    record = shop.put("broken")
    place = shop.base / "records" / record.key[:2] / record.key
    manifest = shop.store._layout.blob(record.manifest.removeprefix("sha256:"))
    own = shop.store._layout.blob(shop.store.manifest(record).entries[0].sha256)
    Maintenance(shop.store).pin(record.key)
    shop.collect(None)  # so that the index knows the record as it was
    if damage == "a cut record":
        place.unlink()
        place.write_bytes(b"{")
    else:
        (own if damage == "a lost blob" else manifest).unlink()
    plan = shop.collect(None)
    assert not place.exists()
    assert reasons(plan, remove=True)[record.key].startswith("unusable")
    assert shop.bytes() == plan.after == 0


def test_roots_and_pins_stay_whatever_the_limit(shop: Shop) -> None:
    for name in ("rooted", "pinned", "neither"):
        shop.put(name)
    shop.store.add_root(shop.home / "link", shop.put("rooted"))
    Maintenance(shop.store).pin(key_of("pinned"), "the demo of Friday")
    plan = shop.collect(0)
    assert shop.left("rooted", "pinned", "neither") == ["rooted", "pinned"]
    kept = reasons(plan, remove=False)
    assert kept[key_of("rooted")] == f"a root: {shop.home / 'link'}"
    assert kept[key_of("pinned")] == "pinned: the demo of Friday"
    assert not plan.met
    assert plan.after == shop.bytes() > 0
    (shop.home / "link").unlink()
    Maintenance(shop.store).unpin(key_of("pinned"))
    assert shop.collect(0).met
    assert shop.bytes() == 0


@pytest.mark.parametrize("damage", ["no record", "a record without its log"])
def test_a_root_keeps_its_tree_and_blobs_when_its_record_is_gone(shop: Shop, damage: str) -> None:
    log = write_files(shop.home / "logs", {"log": b"what the compiler said"}) / "log"
    record = shop.put("rooted", {"own.bin": b"own" * 100, "run": b"run" * 100}, attachments={"log": log})
    shop.store.add_root(shop.home / "link", record)
    before = read_tree(shop.home / "link")
    blobs = {entry.sha256 for entry in shop.store.manifest(record).entries}
    if damage == "no record":
        (shop.base / "records" / record.key[:2] / record.key).unlink()
    else:
        shop.store._layout.blob(record.attachments["log"].digest.removeprefix("sha256:")).unlink()
    plan = shop.collect(0)
    assert read_tree(shop.home / "link") == before
    assert all(shop.store._layout.blob(digits).exists() for digits in blobs)
    assert plan.after == shop.bytes()
    assert shop.left("rooted") == []


def grace_since(moment: float) -> float:
    """The grace period that ends at `moment`, for a collection that decides soon after this."""
    return time.time() - moment


def test_what_was_used_within_the_grace_period_stays(shop: Shop) -> None:
    shop.put("old")
    record = shop.put("used")
    tree = shop.store.materialise(shop.put("tree is new")).path
    moment = time.time() + TICK
    time.sleep(MARGIN)
    assert shop.store.use(record.key) is not None
    os.utime(tree)
    plan = shop.collect(0, grace_since(moment))
    assert shop.left("old", "used", "tree is new") == ["used", "tree is new"]
    kept = reasons(plan, remove=False).values()
    assert all(reason.startswith("used within the grace period of ") for reason in kept)
    assert not plan.met


def test_who_publishes_what_is_there_uses_it(shop: Shop) -> None:
    shop.put("again")
    shop.put("once")
    moment = time.time() + TICK
    time.sleep(MARGIN)
    shop.put("again")
    shop.collect(0, grace_since(moment))
    assert shop.left("again", "once") == ["again"]


def test_a_blob_without_a_record_stays_for_the_grace_period(shop: Shop) -> None:
    shop.put("any")
    blob = write_files(shop.base / "blobs" / "sha256" / "00", {"0" * 64: b"of a writer that was killed"}) / ("0" * 64)
    plan = shop.collect(None, grace=60)
    assert blob.exists()
    assert reasons(plan, remove=False)["0" * 64].endswith("used within the grace period of 1 minute")


def test_the_cheapest_seconds_per_byte_go_first_until_the_limit_is_met(shop: Shop) -> None:
    shop.put("slow to build", seconds=100)
    shop.put("quick to build", seconds=10)
    shop.put("large", {"own.bin": b"large" * 20_000}, seconds=100)
    order = [key_of(name) for name in ("large", "quick to build", "slow to build")]
    plan = shop.collect(0, dry_run=True)
    assert [d.name for d in plan.removed] == order
    sizes = [decision.bytes for decision in plan.removed]
    for count in range(3):
        limit = plan.before - sum(sizes[:count])
        found = shop.collect(limit)
        assert found.removed == [] if count == 0 else [d.name for d in found.removed] == order[count - 1 : count]
        assert found.after == limit == shop.bytes()
        assert found.met


def test_what_is_used_more_often_stays_longer(shop: Shop) -> None:
    for name in ("a", "b", "c"):
        shop.put(name, seconds=10)
    for name, uses in (("a", 3), ("c", 1)):
        for _ in range(uses):
            assert shop.store.use(key_of(name)) is not None
    plan = shop.collect(0, dry_run=True)
    assert [d.name for d in plan.removed] == [key_of(name) for name in ("b", "c", "a")]
    assert [d.worth.hits for d in plan.removed if d.worth] == [0, 1, 3]


def test_a_build_of_unknown_seconds_is_weighed_as_the_median_of_the_others(shop: Shop) -> None:
    for name, seconds in (("a", 1), ("b", 10), ("c", 100), ("d", None)):
        shop.put(name, seconds=seconds)
    worths = {d.name: d.worth for d in shop.collect(0, dry_run=True).removed}
    unknown = worths[key_of("d")]
    assert unknown is not None
    assert (unknown.seconds, unknown.known) == (10, False)


def test_bytes_that_artifacts_share_count_in_equal_parts(shop: Shop) -> None:
    shared = {"shared.bin": b"s" * 100_000}
    for name in ("first", "second"):
        shop.put(name, shared | {"own": name.encode()}, seconds=10)
    shop.put("alone", {"own.bin": b"a" * 60_000}, seconds=10)
    plan = shop.collect(0, dry_run=True)
    assert plan.removed[0].name == key_of("alone")
    assert all(50_000 < d.worth.bytes < 51_000 for d in plan.removed[1:] if d.worth)
    assert sorted(d.bytes > 100_000 for d in plan.removed[1:]) == [False, True]  # the last one frees them
    assert plan.after == 0


def test_bytes_that_stay_anyway_are_no_reason_to_lose_an_artifact(shop: Shop) -> None:
    shop.put("pinned", {"shared.bin": b"s" * 100_000})
    Maintenance(shop.store).pin(key_of("pinned"))
    shop.put("sharing", {"shared.bin": b"s" * 100_000, "own": b"o" * 100}, seconds=10)
    shop.put("alone", {"own.bin": b"a" * 5000}, seconds=10)
    plan = shop.collect(shop.bytes() - 5000)
    assert [d.name for d in plan.removed] == [key_of("alone")]
    assert plan.met


def test_copies_that_blobs_can_make_again_go_before_any_record(shop: Shop) -> None:
    mixed = shop.put("mixed", {"own.bin": b"o" * 9000, "run": b"r" * 5000})
    tree = shop.store.materialise(mixed).path
    plan = shop.collect(shop.bytes() - 1)
    assert [(d.kind, d.bytes) for d in plan.removed] == [("tree", 5000)]
    assert plan.after == shop.bytes()
    assert not tree.exists()
    assert read_tree(shop.store.materialise(mixed).path)["run"] == b"r" * 5000


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(shop: Shop) -> None:
    shop.store.add_root(shop.home / "link", shop.put("rooted"))
    shop.store.materialise(shop.put("other", {"run": b"r" * 5000}))
    write_files(shop.base / "blobs" / "sha256" / "00", {"0" * 64: b"named by nobody"})
    write_files(shop.base / "tmp" / "1.dead", {"lock": b"", "work/half": b"half an engine"})
    before = shop.snapshot()
    planned = shop.collect(0, dry_run=True)
    assert shop.snapshot() == before
    done = shop.collect(0)
    said = [[(d.kind, d.name, d.remove, d.reason, d.bytes) for d in plan.decisions] for plan in (planned, done)]
    assert said[0] == said[1]
    assert all(decision.reason for decision in done.decisions)
    assert (planned.before, planned.after) == (done.before, done.after)
    assert leftovers(shop.home / "store") == []


def test_a_store_that_is_not_there_is_not_made(shop: Shop) -> None:
    assert shop.collect(0).decisions == ()
    assert shop.collect(0, dry_run=True).decisions == ()
    assert not (shop.home / "store").exists()


def test_the_chance_of_a_use_grows_with_uses_and_shrinks_with_idle_days() -> None:
    ages = [0.0, DAY, 30 * DAY, 1000 * DAY]
    for age in ages:
        by_uses = [chance(uses, age, 0) for uses in (0, 1, 2, 10)]
        assert by_uses == sorted(by_uses)
        by_idle = [chance(3, 1000 * DAY, idle) for idle in ages]
        assert by_idle == sorted(by_idle, reverse=True)
        assert all(0 <= found <= 1 for found in (*by_uses, *by_idle))
    assert chance(0, 10 * DAY, 0) < chance(1, 10 * DAY, 0)
    assert chance(1, -5, -5) == chance(1, 0, 0)  # a clock that was set back
