"""What the store remembers beside artifacts: pins, roots and statistics, and who waits for whom."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.support import KEY, OTHER, publish, python, write_files
from trtstore import Invalid, Record, Store
from trtstore.disk import gate, locks
from trtstore.format.record import Attachment
from trtstore.index import usage
from trtstore.upkeep.maintenance import Maintenance

PATIENCE = 60.0  # seconds after which a test that hangs fails; none waits for it else


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", durability="fast")


@pytest.fixture
def upkeep(store: Store) -> Maintenance:
    return Maintenance(store)


@pytest.fixture
def record(store: Store, tmp_path: Path) -> Record:
    return publish(store, write_files(tmp_path / "out"))


def test_a_key_stays_pinned_until_it_is_unpinned(store: Store, upkeep: Maintenance) -> None:
    assert upkeep.pins() == {}
    assert upkeep.unpin(KEY) is False
    upkeep.pin(KEY, "for the demo")  # it need not be there yet
    upkeep.pin(OTHER)
    assert {key: pin.note for key, pin in upkeep.pins().items()} == {KEY: "for the demo", OTHER: ""}
    upkeep.pin(KEY, "for ever")
    assert upkeep.pins()[KEY].note == "for ever"
    assert upkeep.unpin(KEY) is True
    assert list(upkeep.pins()) == [OTHER]
    assert sorted(path.name for path in (store.root / "v1" / "pins").iterdir()) == [OTHER]


def test_a_note_too_long_for_a_pin_is_cut_and_what_is_no_key_is_refused(upkeep: Maintenance) -> None:
    upkeep.pin(KEY, "é" * 5000)
    assert upkeep.pins()[KEY].note == "é" * 1024
    with pytest.raises(Invalid, match="no key"):
        upkeep.pin("../" + KEY)
    with pytest.raises(Invalid, match="no key"):
        upkeep.unpin("..")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"note":1,"since":2.0}', "x" * 100_000])
def test_a_pin_counts_whatever_its_file_says(store: Store, upkeep: Maintenance, text: str) -> None:
    upkeep.pin(KEY)
    (store.root / "v1" / "pins" / KEY).write_text(text)
    (store.root / "v1" / "pins" / "note.txt").write_text("no key")
    assert {key: pin.note for key, pin in upkeep.pins().items()} == {KEY: ""}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_pin_that_is_no_file_counts_and_is_not_read(
    store: Store, upkeep: Maintenance, make: Callable[[Path], None]
) -> None:
    upkeep.pin(OTHER)
    make(store.root / "v1" / "pins" / KEY)
    assert set(upkeep.pins()) == {KEY, OTHER}


def test_a_pinned_artifact_is_kept_and_an_unpinned_one_goes(store: Store, upkeep: Maintenance, record: Record) -> None:
    upkeep.pin(KEY, "for the demo")
    plan = upkeep.collect(0, grace=0.0)
    assert [(d.name, d.reason) for d in plan.decisions if d.kind == "record"] == [(KEY, "pinned: for the demo")]
    assert store.lookup(KEY) == record
    upkeep.unpin(KEY)
    upkeep.collect(0, grace=0.0)
    assert store.lookup(KEY) is None


def test_a_root_lives_as_long_as_its_link_leads_to_a_tree(
    store: Store, upkeep: Maintenance, record: Record, tmp_path: Path
) -> None:
    digits, link = record.manifest.partition(":")[2], tmp_path / "link"
    store.add_root(link, record)
    (root,) = upkeep.roots()
    assert (root.link, root.tree) == (link, digits)
    tree = link.readlink()
    for target in (tmp_path / "out", tree.parent, tree / "sub", tree.with_name("0f"), tmp_path / OTHER):
        link.unlink()
        link.symlink_to(target)
        assert [root.tree for root in upkeep.roots()] == [None], target
    link.unlink()
    assert [root.tree for root in upkeep.roots()] == [None]
    link.mkdir()
    assert [root.tree for root in upkeep.roots()] == [None]
    link.rmdir()
    link.symlink_to(tree)  # a user may put the link back
    assert [root.tree for root in upkeep.roots()] == [digits]


def test_the_link_of_another_store_is_no_root_of_this_one(
    store: Store, upkeep: Maintenance, record: Record, tmp_path: Path
) -> None:
    store.add_root(tmp_path / "link", record)
    other = Store.open(tmp_path / "other", durability="fast")
    other.add_root(tmp_path / "link", publish(other, tmp_path / "out"))  # the user's link leads there now
    assert [root.tree for root in upkeep.roots()] == [None]
    assert [root.tree for root in Maintenance(other).roots()] == [record.manifest.partition(":")[2]]


def test_odd_entries_of_roots_are_passed_over(
    store: Store, upkeep: Maintenance, record: Record, tmp_path: Path
) -> None:
    store.add_root(tmp_path / "link", record)
    roots = store.root / "v1" / "roots"
    (roots / "note.txt").write_text("no root")
    (roots / ("0" * 64)).write_text("no link")
    (roots / ("1" * 64)).mkdir()
    (roots / "short").symlink_to(tmp_path / "link")
    (roots / ("2" * 64)).symlink_to("relative")
    assert {root.link: root.tree is None for root in upkeep.roots()} == {
        tmp_path / "link": False,
        Path("relative"): True,
    }
    upkeep.collect(grace=0.0)
    assert {path.name for path in roots.iterdir()} >= {"note.txt", "0" * 64, "1" * 64, "short"}
    assert [root.link for root in upkeep.roots()] == [tmp_path / "link"]


def test_uses_are_counted_and_go_with_the_artifact(store: Store, upkeep: Maintenance, tmp_path: Path) -> None:
    publish(store, write_files(tmp_path / "out"), seconds=12.3456)
    assert store.use(OTHER) is None
    for _ in range(3):
        assert store.use(KEY) is not None
    assert store.lookup(KEY) is not None  # a look is no use
    assert {key: count for key, (count, _) in usage.hits(store.index).items()} == {KEY: 3}
    assert usage.build_seconds(store.index) == {KEY: 12.346}
    assert upkeep.collect(0, grace=0.0).removed
    assert usage.hits(store.index) == {}
    assert usage.build_seconds(store.index) == {}


@pytest.mark.parametrize("value", [None, [], ["x"], [-1], [True], "text", {"n": 1}])
def test_statistics_of_another_shape_count_as_none(store: Store, value: object) -> None:
    store.index.put("hits", KEY, value)  # type: ignore[arg-type]
    store.index.put("build", KEY, value)  # type: ignore[arg-type]
    assert usage.hits(store.index).get(KEY, (0, 0.0))[0] == 0
    assert usage.build_seconds(store.index) == {}
    usage.hit(store.index, KEY)
    assert usage.hits(store.index)[KEY][0] == 1


@pytest.mark.parametrize(
    ("run", "seconds"),
    [
        ({"startedOn": "2026-01-01T00:00:00Z", "finishedOn": "2026-01-01T00:01:30Z"}, 90.0),
        ({"startedOn": "2026-01-01T00:00:00Z", "finishedOn": "2025-01-01T00:00:00Z"}, 0.0),
        ({"startedOn": "2026-01-01T00:00:00Z"}, None),
        ({"startedOn": 7, "finishedOn": "soon"}, None),
        ([], None),
    ],
)
def test_a_record_says_what_its_build_took_where_it_has_provenance(run: object, seconds: float | None) -> None:
    facts = {"runDetails": {"metadata": run}}
    made = Record(KEY, "sha256:" + KEY, 1, 1, {}, dict[str, Attachment](), "p", facts)
    assert usage.stated_seconds(made) == seconds


def test_a_remover_that_waits_lets_nobody_new_in_before_it(store: Store) -> None:
    order: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def add(name: str) -> None:
        with gate.adding(store._layout):
            order.append(name)
            inside.set()
            assert leave.wait(PATIENCE)

    def remove() -> None:
        with gate.removing(store._layout, who="the remover"):
            order.append("remover")

    first = threading.Thread(target=add, args=("first",))
    first.start()
    assert inside.wait(PATIENCE)
    remover = threading.Thread(target=remove)
    remover.start()
    while (fd := locks.try_exclusive(store._layout.lock("turn"))) is not None:
        os.close(fd)  # the remover has not come yet
        time.sleep(0.01)
    second = threading.Thread(target=add, args=("second",))
    second.start()
    leave.set()
    for thread in (first, remover, second):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert order == ["first", "remover", "second"]


ADDER = """
import sys
from pathlib import Path
from trtstore.disk import gate
from trtstore.disk.layout import Layout
layout, stop = Layout(Path(sys.argv[1])), Path(sys.argv[2])
print("ready", flush=True)
while not stop.exists():
    with gate.adding(layout):
        pass
"""


def test_a_remover_gets_in_among_many_processes_that_add(store: Store, tmp_path: Path) -> None:
    adders = [python(ADDER, store.root, tmp_path / "stop") for _ in range(6)]
    try:
        for adder in adders:
            assert adder.stdout is not None
            assert adder.stdout.readline() == "ready\n"
        remover = threading.Thread(target=lambda: [remove_once(store) for _ in range(5)], daemon=True)
        remover.start()
        remover.join(PATIENCE)
        assert not remover.is_alive()
        assert [adder.poll() for adder in adders] == [None] * 6  # they were at it all the time
    finally:
        (tmp_path / "stop").touch()
    assert [adder.wait(timeout=PATIENCE) for adder in adders] == [0] * 6


def remove_once(store: Store) -> None:
    with gate.removing(store._layout, who="the remover"):
        pass
