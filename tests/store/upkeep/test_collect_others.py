"""Collections beside others who build, read, root and pin, and collectors that are killed in the middle."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.store.beside import (
    BUILDER,
    COLLECTOR,
    KILLED,
    LATE_BUILDER,
    LATE_READER,
    LOOKER,
    PINNER,
    READER,
    ROOTER,
    SCRATCH,
    beside,
    tell,
)
from tests.store.shop import Shop, key_of
from tests.store.support import leftovers, python, read_tree
from trtstore.disk import locks
from trtstore.upkeep.decisions import EvictionPlan
from trtstore.upkeep.maintenance import Maintenance

InTheMiddle = Callable[[Callable[[], None]], None]
TICK = 0.05  # seconds: file times are those of the kernel's last tick


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def reason_of(plan: EvictionPlan, name: str) -> str:
    return next(decision.reason for decision in plan.decisions if decision.name == key_of(name))


@pytest.mark.parametrize("code", [BUILDER, SCRATCH], ids=["builder", "scratch"])
def test_what_was_used_since_the_oldest_running_build_began_stays(shop: Shop, code: str) -> None:
    for name in ("unused", "used"):
        shop.put(name)
    time.sleep(TICK)
    with beside(code, shop.store.root, key_of("being built")):
        time.sleep(TICK)
        shop.put("new")
        assert shop.store.use(key_of("used")) is not None
        plan = shop.collect(0)
        assert shop.left("unused", "used", "new") == ["used", "new"]
        assert reason_of(plan, "used") == "used since the oldest build that is still running began"
    shop.collect(0)
    assert shop.left("used", "new") == []


def test_what_is_being_built_again_stays(shop: Shop) -> None:
    shop.put("there already")
    time.sleep(TICK)
    with beside(BUILDER, shop.store.root, key_of("there already")):
        plan = shop.collect(0)
    assert reason_of(plan, "there already") == "it is being built"
    assert shop.left("there already") == ["there already"]


@pytest.mark.parametrize("name", ["linked.bin", "run"], ids=["by links", "by copy"])
def test_what_is_being_read_stays_and_goes_afterwards(shop: Shop, name: str) -> None:
    record = shop.put("read", {name: b"r" * 5000})
    tree = shop.store.materialise(record).path
    with beside(READER, shop.store.root, record.key):
        time.sleep(TICK)
        plan = shop.collect(0)
        assert read_tree(tree) == {name: b"r" * 5000}
        assert reason_of(plan, "read") == "it is being read"
        assert plan.after == shop.bytes() > 0
    assert shop.collect(0).after == shop.bytes() == 0
    assert not tree.exists()


@pytest.fixture(params=["while it looks", "once it has decided"])
def in_the_middle(request: pytest.FixtureRequest, shop: Shop) -> InTheMiddle:
    """A collection of everything that lets others act at one moment of it."""
    return partial(while_it_looks if request.param == "while it looks" else once_it_has_decided, shop)


def while_it_looks(shop: Shop, act: Callable[[], None]) -> None:
    """Without an index it parses the records twice, before it holds the gate and while it does, and says so."""
    shutil.rmtree(shop.base / "index", ignore_errors=True)
    (shop.base / "index").write_text("no folder, so no index")
    acted: list[int] = []

    def on_parsed(count: int) -> None:
        if not acted and locks.held_since(shop.base / "locks" / "store") is not None:
            acted.append(count)
            act()

    Maintenance(shop.store).collect(0, grace=0, on_parsed=on_parsed)
    assert acted


def once_it_has_decided(shop: Shop, act: Callable[[], None]) -> None:
    with beside(COLLECTOR, shop.store.root):
        act()


def test_a_root_that_is_made_while_a_collection_decides_never_leads_to_nothing(
    shop: Shop, in_the_middle: InTheMiddle
) -> None:
    record, link = shop.put("rooted"), shop.home / "link"
    shop.store.materialise(record)
    with beside(ROOTER, shop.store.root, record.key, link) as other:

        def act() -> None:
            tell(other)
            time.sleep(0.5)  # for a store that would not wait

        in_the_middle(act)
        other.communicate(timeout=60)
    if link.is_symlink():
        assert len(read_tree(link)) == 1
        shop.collect(0)
        assert len(read_tree(link)) == 1


def test_a_root_that_is_made_again_while_a_collection_decides_is_one_afterwards(
    shop: Shop, in_the_middle: InTheMiddle
) -> None:
    shop.put("rooted")
    link = shop.home / "link"
    shop.store.add_root(link, shop.put("rooted"))
    with beside(READER, shop.store.root, key_of("rooted")):
        link.unlink()  # a dead root: its entry may go
        with beside(ROOTER, shop.store.root, key_of("rooted"), link) as other:

            def act() -> None:
                tell(other)
                time.sleep(0.5)

            in_the_middle(act)
            other.communicate(timeout=60)
            assert other.returncode == 0
    shop.collect(0)
    assert len(read_tree(link)) == 1


def test_what_was_there_when_a_pin_returned_stays(shop: Shop, in_the_middle: InTheMiddle) -> None:
    shop.put("pinned")
    with beside(PINNER, shop.store.root, key_of("pinned")) as other:

        def act() -> None:
            tell(other)
            time.sleep(0.5)

        in_the_middle(act)
        said, _ = other.communicate(timeout=60)
    shop.collect(0)
    assert said.strip() == str(shop.left("pinned") == ["pinned"])


def test_what_a_builder_finds_under_its_lock_stays_until_it_has_read_it(shop: Shop, in_the_middle: InTheMiddle) -> None:
    record = shop.put("found")
    with beside(LATE_BUILDER, shop.store.root, record.key) as other:

        def act() -> None:
            tell(other)
            time.sleep(0.5)

        in_the_middle(act)
        said, _ = other.communicate(timeout=60)
    assert said.strip() in ("1", "a miss")


@pytest.mark.parametrize("name", ["linked.bin", "run"], ids=["by links", "by copy"])
def test_who_begins_to_read_while_a_collection_decides_reads_all_or_hears_that_it_is_gone(
    shop: Shop, name: str, in_the_middle: InTheMiddle
) -> None:
    record = shop.put("read", {name: b"r" * 5000, f"{name}2": b"2"})
    shop.store.materialise(record)
    with beside(LATE_READER, shop.store.root, record.key) as other:

        def act() -> None:
            tell(other)
            time.sleep(0.5)

        in_the_middle(act)
        said, _ = other.communicate(timeout=60)
    assert said.strip() in ("2", "gone")


@pytest.mark.parametrize("step", range(1, 9))
def test_a_collector_killed_at_any_step_leaves_whole_records_and_garbage_for_the_next(shop: Shop, step: int) -> None:
    for number in range(3):
        shop.store.materialise(shop.put(str(number), {"own.bin": b"%d" % number * 900, "shared": b"s" * 900}))
    collector = python(KILLED, shop.store.root, step)
    collector.communicate(timeout=60)
    assert collector.returncode == -signal.SIGKILL
    problems: list[str] = []
    for number in range(3):
        shop.store.lookup(key_of(str(number)), on_problem=problems.append)
    assert problems == []
    plan = shop.collect(0)
    assert plan.after == shop.bytes() == 0
    assert [*(shop.base / "trees").iterdir()] == []
    assert leftovers(shop.store.root) == []


def test_who_looks_up_what_is_collected_meanwhile_sees_a_plain_miss(shop: Shop) -> None:
    shop.put("looked up")
    with beside(LOOKER, shop.store.root, key_of("looked up")) as other:
        shop.collect(0)
        said, _ = other.communicate("go\n", timeout=60)
    assert said == "None\n"


def test_who_looks_up_what_is_replaced_meanwhile_sees_the_new_record(shop: Shop) -> None:
    shop.put("looked up")
    with beside(LOOKER, shop.store.root, key_of("looked up")) as other:
        shop.collect(0)
        record = shop.put("looked up", {"other.bin": b"another build"})
        said, _ = other.communicate("go\n", timeout=60)
    assert record.manifest in said
    assert len(said.splitlines()) == 1
