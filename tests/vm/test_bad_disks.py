"""Blocks that cannot be read, and cuts of the power, below a store: in the machine that `boot` starts."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.support import KEY, OTHER, publish, read_tree, write_files
from tests.vm import devices
from trtstore import Store
from trtstore.errors import StoreFailure
from trtstore.exchange import bundle
from trtstore.exchange.layered import Layered
from trtstore.upkeep.maintenance import Maintenance

pytestmark = pytest.mark.skipif(
    "TRTBUILD_TEST_VM" not in os.environ, reason="its devices are those of a machine of its own"
)

#: How many moments the power is cut at.
CUTS = int(os.environ.get("TRTBUILD_POWER_CUTS", "6"))
ENGINE = os.urandom(20 * devices.BLOCK)
FILES = {"engine.bin": ENGINE, "run": b"#!/bin/sh\n" + ENGINE[:9000]}
SOUND = {"other.bin": os.urandom(70_000)}


class Shelf:
    """A store on a disk of its own, with an artifact that will be spoiled and one that will not."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.place, self.image = home / "disk", home / "image"
        self.heard: list[str] = []
        self.verity = False
        self.place.mkdir()
        write_files(home / KEY, FILES)
        (home / KEY / "run").chmod(0o755)
        write_files(home / OTHER, SOUND)
        devices.make(self.image)

    @contextmanager
    def opened(self, name: str = "disk/store") -> Iterator[Store]:
        """A store that is closed at the end, so that the disk can be unmounted."""
        store = Store.open(self.home / name, verity=self.verity)
        try:
            yield store
        finally:
            store.close()

    def publish(self, store: Store, key: str = KEY) -> None:
        publish(store, self.home / key, key)

    def use(self, store: Store, key: str = KEY) -> dict[str, bytes] | None:
        record = store.use(key, on_problem=self.heard.append, verify="always")
        return None if record is None else read_tree(store.materialise(record).path)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def _blob(store: Store, name: str) -> Path:
    record = store.lookup(KEY)
    assert record is not None
    named = {entry.path: entry.sha256 for entry in store.manifest(record).entries}
    return store._layout.blob(named.get(name) or record.manifest.partition(":")[2])


PLACES: dict[str, Callable[[Store], Path]] = {
    "blob": lambda store: _blob(store, "engine.bin"),
    "manifest": lambda store: _blob(store, "the manifest"),
    "record": lambda store: store._layout.record(KEY),
    "copy in a tree": lambda store: next(store._layout.trees.rglob("run")),
    "index": lambda store: next(store._layout.index.glob("*.db")),
}


def hit(shelf: Shelf, store: Store) -> None:
    assert shelf.use(store) in (None, FILES)


def publish_again(shelf: Shelf, store: Store) -> None:
    shelf.publish(store)


def verify(shelf: Shelf, store: Store) -> None:
    assert all(KEY in finding.keys or finding.kind == "tree" for finding in Maintenance(store).verify()), shelf


def collect(shelf: Shelf, store: Store) -> None:
    assert [decision.name for decision in Maintenance(store).collect(None, grace=0).removed] == [], shelf


def export(shelf: Shelf, store: Store) -> None:
    file = io.BytesIO()
    bundle.export_to(store, [KEY], file)
    file.seek(0)
    with shelf.opened("elsewhere-by-bundle") as other:
        list(bundle.import_from(other, file))
        assert shelf.use(other) == FILES


def fetch(shelf: Shelf, store: Store) -> None:
    with shelf.opened("elsewhere") as other:
        found = Layered(other, [store]).lookup(KEY)
        assert found is None or shelf.use(other) == FILES


OPERATIONS = [hit, publish_again, verify, collect, export, fetch]


@pytest.mark.parametrize("place", PLACES)
def test_a_block_that_cannot_be_read_gives_one_error_or_a_miss_and_a_publish_mends_it(shelf: Shelf, place: str) -> None:
    with devices.mounted(shelf.image, shelf.place), shelf.opened() as store:
        for key in (KEY, OTHER):
            shelf.publish(store, key)
            assert shelf.use(store, key)
        path = PLACES[place](store)
        store.close()
        bad = devices.blocks(path)[:1]
    spoiled = shelf.home / "spoiled"
    for operation in OPERATIONS:
        devices.copy(shelf.image, spoiled)
        shelf.heard.clear()
        with devices.mounted(spoiled, shelf.place, bad), shelf.opened() as store:
            with pytest.raises(OSError, match="Input/output error"):
                path.read_bytes()
            said = "done"
            try:
                operation(shelf, store)
            except StoreFailure as failure:
                said = f"{failure.message} ({failure.hint})"
            print(f"{place}: {operation.__name__}: {said}", *dict.fromkeys(shelf.heard), sep="\n    ")
            assert shelf.use(store, OTHER) == SOUND
            if place != "index":
                Maintenance(store).verify()
            shelf.publish(store)
            assert shelf.use(store) == FILES
            assert Maintenance(store).verify() == []


def _life(shelf: Shelf) -> None:
    """What a store does in a day; each `mark` says what must be there from then on."""
    with shelf.opened() as store:
        shelf.publish(store, OTHER)
        devices.mark(OTHER)
        shelf.publish(store)
        devices.mark(KEY)
        for key in (KEY, OTHER):
            assert shelf.use(store, key)


@pytest.mark.parametrize("verity", [False, True], ids=["plain", "fs-verity"])
def test_after_a_power_cut_at_any_write_what_was_published_is_there_and_the_rest_is_whole_or_absent(
    shelf: Shelf, verity: bool
) -> None:
    log, work = shelf.home / "log", shelf.home / "work"
    log.touch()
    os.truncate(log, 64 << 20)
    shelf.verity = verity
    devices.make(shelf.image)
    devices.copy(shelf.image, work)
    with devices.recorded(work, log, shelf.place):
        _life(shelf)
    done = devices.writes(log)
    points = range(1, len(done) + 1, max(1, len(done) // CUTS))
    for until in points:
        devices.replay(shelf.image, done[:until], work)
        promised = {write.mark for write in done[:until]} & {KEY, OTHER}
        with devices.mounted(work, shelf.place), shelf.opened() as store:
            for key, files in ((KEY, FILES), (OTHER, SOUND)):
                found = shelf.use(store, key)
                assert found == files or (found is None and key not in promised), (until, key, shelf.heard)
            assert Maintenance(store).verify() == []
            shelf.publish(store)
            assert shelf.use(store) == FILES
    print(f"{len(done)} writes, the power cut after each of {len(points)} of them")
