"""A collection's bytes are those of the files, with or without an index, and what it leaves is whole for any store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.faults import memory
from tests.store.shop import Shop, key_of
from tests.store.support import write_files
from trtstore.format.digest import hash_bytes
from trtstore.upkeep.maintenance import Maintenance


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.mark.parametrize("index", ["with its index", "without"])
def test_bytes_before_and_after_are_those_of_the_files(shop: Shop, index: str) -> None:
    for number in range(4):
        files = {"shared": b"s" * 3000, "own": b"o" * number * 100, "run": b"r%d" % number * 900}
        shop.store.materialise(shop.put(f"tree {number}", files))
        shop.put(f"no tree {number}", {"own.bin": b"n" * (500 + number)})
    spoilt = next(p for p in (shop.base / "blobs").rglob("*") if p.is_file() and p.stat().st_size == 1800)
    spoilt.chmod(0o644)
    spoilt.write_bytes(b"x" * 1800)
    assert {finding.kind for finding in Maintenance(shop.store).verify()} == {"blob"}
    copied = shop.store.materialise(shop.put("copied", {"run": b"c" * 700})).path
    write_files(copied, {"stray": b"not of this artifact"})
    assert {finding.kind for finding in Maintenance(shop.store).verify([key_of("copied")])} == {"tree"}
    if index == "without":
        shutil.rmtree(shop.base / "index")
    for limit in (None, 15_000, 8000, 0):
        before = shop.bytes()
        plan = shop.collect(limit)
        assert (plan.before, plan.after) == (before, shop.bytes())
    assert {path.name.partition("-")[0] for path in (shop.base / "quarantine").iterdir()} == {"blob", "tree"}
    assert not plan.met  # what is quarantined stays for a week


def test_the_plan_is_the_same_without_the_index(shop: Shop) -> None:
    for number in range(6):
        files = {
            "own": b"o" * (100 + number * 500),
            "run": b"r" * number * 40,
            "shared": b"s" * (number % 2) * 700,
        }
        shop.store.materialise(shop.put(str(number), files))

    def plan() -> list[tuple[object, ...]]:
        decisions = shop.collect(2000, dry_run=True).decisions
        return [(d.kind, d.name, d.remove, d.bytes, d.worth and d.worth.bytes) for d in decisions]

    with_index = plan()
    shutil.rmtree(shop.base / "index")
    assert plan() == with_index == plan()
    assert any(remove for _, _, remove, *_ in with_index)


RECORDS = st.lists(
    st.tuples(st.sets(st.integers(0, 5), max_size=4), st.booleans(), st.sampled_from([None, 1.0, 50.0])),
    min_size=1,
    max_size=6,
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(RECORDS, st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)), st.integers(0, 5), st.integers(0, 40_000))
def test_whatever_the_store_what_is_left_is_usable_protected_or_within_the_limit(
    records: list[tuple[set[int], bool, float | None]],
    rooted: set[int],
    pinned: set[int],
    broken: int,
    limit: int,
) -> None:
    with memory.folder() as home:
        shop, names = Shop(home), [str(number) for number in range(len(records))]
        for name, (shared, materialised, seconds) in zip(names, records, strict=True):
            files = {f"shared{n}": b"%d" % n * 3000 for n in shared} | {
                "own": name.encode(),
                "run": b"r" * 2000,
            }
            record = shop.put(name, files, seconds=seconds)
            if materialised:
                shop.store.materialise(record)
            if int(name) in rooted:
                shop.store.add_root(home / name, record)
            if int(name) in pinned:
                Maintenance(shop.store).pin(record.key)
        lost = broken < len(records) and broken not in rooted and not records[broken][1]
        if lost:
            shop.store._layout.blob(hash_bytes(b"%d" % broken)).unlink()
        before = shop.bytes()
        plan = shop.collect(limit)
        assert (plan.before, plan.after) == (before, shop.bytes())
        protected = {n for n in names if int(n) in rooted | pinned and not (lost and int(n) == broken)}
        problems: list[str] = []
        left = {n for n in names if shop.store.lookup(key_of(n), on_problem=problems.append) is not None}
        assert problems == []
        assert protected <= left
        assert plan.after <= limit or left == protected
        assert shop.collect(limit).removed == []  # no unnamed blob, no tree that nothing leads to
