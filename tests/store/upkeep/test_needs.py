"""A record that says what it needs: that is kept for as long as it is, and shown."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from trtstore import Store
from trtstore.format.labels import NEEDS
from trtstore.upkeep.maintenance import Maintenance

ENGINE, ONE, OTHER = "e0" * 32, "a1" * 32, "a2" * 32


def publish(store: Store, key: str, size: int, needs: str = "", seconds: float = 1.0) -> None:
    with store.scratch() as work:
        (work / "out").mkdir()
        (work / "out" / key[:4]).write_bytes(os.urandom(size))
        labels = {"model": key[:4], **({NEEDS: needs} if needs else {})}
        store.publish(key, work / "out", predicate_type="t", predicate={}, labels=labels, seconds=seconds)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A cheap engine that two dear results need."""
    store = Store.open(tmp_path / "store", durability="fast")
    publish(store, ENGINE, 400_000, seconds=0.01)
    for key in (ONE, OTHER):
        publish(store, key, 100_000, ENGINE, seconds=600.0)
    return store


def kept(store: Store, size: int) -> set[str]:
    Maintenance(store).collect(size, grace=0.0)
    return {key for key in (ENGINE, ONE, OTHER) if store.lookup(key) is not None}


def test_what_others_need_goes_after_them(store: Store) -> None:
    assert kept(store, 550_000) in ({ENGINE, OTHER}, {ENGINE, ONE})


def test_it_goes_when_nobody_needs_it_any_more(store: Store) -> None:
    assert kept(store, 0) == set()


def test_what_a_pinned_result_needs_stays(store: Store) -> None:
    Maintenance(store).pin(ONE, "release")
    assert kept(store, 0) == {ENGINE, ONE}


def test_what_a_rooted_result_needs_stays(store: Store, tmp_path: Path) -> None:
    record = store.lookup(OTHER)
    assert record is not None
    store.add_root(tmp_path / "link", record)
    assert kept(store, 0) == {ENGINE, OTHER}


def test_what_a_result_that_was_used_needs_stays(store: Store) -> None:
    time.sleep(1.1)
    assert store.use(ONE) is not None
    Maintenance(store).collect(0, grace=1.0)
    assert {key for key in (ENGINE, ONE, OTHER) if store.lookup(key) is not None} == {ENGINE, ONE}
