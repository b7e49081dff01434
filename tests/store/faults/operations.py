"""What a store is asked to do while faults befall it: one entry in OPERATIONS is one more operation under test."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.store.support import KEY, OTHER, PREDICATE_TYPE, write_files
from trtstore import Record, Store
from trtstore.disk.layout import STAMP
from trtstore.exchange import bundle
from trtstore.format.digest import hash_bytes
from trtstore.upkeep.maintenance import Maintenance

RUN = "a1" * 32
LATER = "77" * 32
LOG = b"what the compiler said\n" * 20

#: The files of each artifact, by its key: whoever finds a key finds these bytes, or nothing. Names in bin/ are
#: executable. The artifacts share blobs.
ARTIFACTS: Mapping[str, Mapping[str, bytes]] = {
    OTHER: {"config.json": b"{}", "old.bin": b"old" * 2000},
    KEY: {"engine.bin": b"engine" * 1000, "sub/config.json": b"{}", "sub/empty": b""},
    RUN: {"bin/run": b"#!/bin/sh\n" * 50, "old.bin": b"old" * 2000},
    LATER: {"engine.bin": b"engine" * 1000, "later": b"later"},
}


class World:
    """A folder with a store, the folders to publish in it, and a user's link."""

    def __init__(self, home: Path, uncounted: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        self.home = home
        self.store = Store.open(home / "store")
        self.link = home / "link"
        self.log = home / "log"
        self.uncounted = uncounted  # for what the test itself does in the middle of an operation

    @property
    def base(self) -> Path:
        return self.store.root / "v1"

    def folder(self, key: str) -> Path:
        return self.home / "out" / key

    def blob(self, data: bytes) -> Path:
        blobs = (self.base / "blobs").rglob("*")
        return next(path for path in blobs if path.is_file() and path.read_bytes() == data)

    def publish(self, key: str, folder: Path | None = None, **more: object) -> Record:
        facts = {"predicate_type": PREDICATE_TYPE, "predicate": {}, "labels": {"key": key}} | more
        return self.store.publish(key, folder or self.folder(key), **facts)

    def record(self, key: str) -> Record:
        record = self.store.lookup(key)
        assert record is not None, f"{key[:4]}… is not there"
        return record

    def materialise(self, key: str) -> Path:
        return self.store.materialise(self.record(key)).path


def create(home: Path) -> World:
    """A world whose store has one artifact, materialised, with a root and a row in its index."""
    world = World(home)
    for key in ARTIFACTS:
        write_artifact(world.folder(key), ARTIFACTS[key])
    world.log.write_bytes(LOG)
    world.store.add_root(home / "kept", world.publish(OTHER))
    return world


def write_artifact(folder: Path, files: Mapping[str, bytes]) -> Path:
    write_files(folder, files)
    for name in files:
        if name.startswith("bin/"):
            (folder / name).chmod(0o755)
    return folder


def read_artifact(folder: Path) -> dict[str, bytes]:
    """The files below `folder`; those that are executable without being in bin/, or the other way, say so."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(folder))
            right = bool(path.stat().st_mode & 0o100) == name.startswith("bin/")
            found[name if right else f"{name} (wrong mode)"] = path.read_bytes()
    return found


def nothing(_world: World) -> None:
    """Nothing to prepare, or nothing to verify."""


@dataclass(frozen=True)
class Operation:
    """`act` is what faults befall, in a world that `prepare` completed; `verify` asserts that it did its work.

    Keys that are usable before stay usable, but those that the operation `may_remove`. `again` is what ends the work
    of one that was cut short. Faults befall every call but those on the index, whose failures never matter; with
    `index` on it too, and then one in `every`, for SQLite makes hundreds.
    """

    name: str
    act: Callable[[World], object]
    prepare: Callable[[World], object] = nothing
    verify: Callable[[World], object] = nothing
    may_remove: tuple[str, ...] = ()
    again: Callable[[World], object] = nothing
    index: bool = False
    every: int = 1

    def __str__(self) -> str:
        return self.name


def publish_from_scratch(world: World) -> None:
    with world.store.scratch() as work:
        with world.uncounted():
            write_artifact(work / "out", ARTIFACTS[KEY])
        world.publish(KEY, work / "out")


def publish_with_log(world: World) -> None:
    world.publish(KEY, attachments={"log": world.log})


def change_a_blob(world: World) -> None:
    world.publish(KEY)
    blob = world.blob(ARTIFACTS[KEY]["engine.bin"])
    blob.chmod(0o644)
    blob.write_bytes(ARTIFACTS[KEY]["engine.bin"][::-1])


def cut_a_record(world: World) -> None:
    world.publish(KEY)
    record = world.base / "records" / KEY[:2] / KEY
    record.unlink()
    record.write_bytes(b"{")


def change_a_tree(world: World) -> None:
    world.publish(KEY)
    write_files(world.materialise(KEY), {"another": b"not of this artifact"})


def lose_times(world: World) -> None:
    world.publish(KEY)
    world.blob(ARTIFACTS[KEY]["engine.bin"]).touch()


def leave_a_dead_scratch(world: World) -> None:
    write_files(world.base / "tmp" / "1.dead", {"lock": b"", "work/sub/half": b"half an engine"})


def build_under_the_lock(world: World) -> None:
    with world.store.building(KEY, who="a test"):
        publish_from_scratch(world)


def put_a_row(world: World) -> None:
    world.store.index.put("test", "row", ["value"])


def put_one_row(world: World) -> None:
    world.store.index.put("test", "one", 1)


def add_root(world: World) -> None:
    world.store.add_root(world.link, world.record(KEY))


def root_another(world: World) -> None:
    world.publish(KEY)
    world.store.add_root(world.link, world.record(OTHER))


def published(world: World) -> None:
    assert read_artifact(world.materialise(KEY)) == ARTIFACTS[KEY]


def published_with_log(world: World) -> None:
    published(world)
    path = world.store.blob_path(world.record(KEY).attachments["log"].digest)
    assert path is not None
    assert path.read_bytes() == LOG


def tree_is(key: str) -> Callable[[World], None]:
    def verify(world: World) -> None:
        digits = world.record(key).manifest.removeprefix("sha256:")
        assert read_artifact(world.base / "trees" / digits) == ARTIFACTS[key]

    return verify


def rooted(world: World) -> None:
    assert read_artifact(world.link) == ARTIFACTS[KEY]
    assert any(entry.readlink() == world.link for entry in (world.base / "roots").iterdir())


def use(world: World) -> None:
    assert world.store.use(KEY) is not None, "it is not there"


def use_and_verify(world: World) -> None:
    assert world.store.use(KEY, verify="always") is not None, "it is not there"


def read(world: World) -> None:
    with world.store.reading(world.record(KEY)) as made, world.uncounted():
        assert made.path.is_dir()


def publish_two(world: World) -> None:
    world.materialise(world.publish(KEY).key)
    world.publish(RUN)
    leave_a_dead_scratch(world)
    write_files(world.base / "blobs" / "sha256" / "00", {"0" * 64: b"named by nobody"})


def collect_all(world: World) -> None:
    """Everything but the rooted artifact goes."""
    Maintenance(world.store).collect(0, grace=0)


def collected(world: World) -> None:
    assert sorted(world.store.keys()) == [OTHER]
    assert read_artifact(world.home / "kept") == ARTIFACTS[OTHER]
    # What a collection leaves, the next one takes.
    Maintenance(world.store).collect(0, grace=0)
    blobs = [path for path in (world.base / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == len(ARTIFACTS[OTHER]) + 1


def verify_all(world: World) -> None:
    Maintenance(world.store).verify()


def spoil(world: World) -> None:
    """A blob with other bytes and the times that a store gives; and its tree, which has it by another name."""
    world.publish(KEY)
    world.materialise(KEY)
    change_a_blob(world)
    blob = world.base / "blobs" / "sha256" / hash_bytes(ARTIFACTS[KEY]["engine.bin"])[:2]
    blob /= hash_bytes(ARTIFACTS[KEY]["engine.bin"])
    os.utime(blob, (STAMP, STAMP))
    blob.chmod(0o444)


def healed(world: World) -> None:
    assert world.store.lookup(KEY) is None
    world.publish(KEY)
    published(world)


def pin(world: World) -> None:
    Maintenance(world.store).pin(KEY, "a test")


def pinned(world: World) -> None:
    assert [*Maintenance(world.store).pins()] == [KEY]


def pack(world: World) -> None:
    world.publish(KEY)
    with (world.home / "bundle").open("wb") as file:
        bundle.export_to(world.store, [KEY], file)
    record = world.base / "records" / KEY[:2] / KEY
    record.unlink()
    world.blob(ARTIFACTS[KEY]["engine.bin"]).unlink()


def unpack(world: World) -> None:
    with world.uncounted():
        data = (world.home / "bundle").read_bytes()
    list(bundle.import_from(world.store, io.BytesIO(data)))


def row_is_right_or_absent(world: World) -> None:
    assert world.store.index.get("test", "row") in (["value"], None)


#: One line, and its act and verify above, for each thing that a store can be asked to do.
OPERATIONS = (
    Operation("publish a folder", lambda w: w.publish(KEY), verify=published),
    Operation("publish from scratch", publish_from_scratch, verify=published),
    Operation("publish with an attachment", publish_with_log, verify=published_with_log),
    Operation("publish what is there", lambda w: w.publish(KEY), lambda w: w.publish(KEY), published),
    Operation("publish over a changed blob", lambda w: w.publish(KEY), change_a_blob, published),
    Operation("publish over a cut record", lambda w: w.publish(KEY), cut_a_record, published),
    Operation("publish after a crash", lambda w: w.publish(KEY), leave_a_dead_scratch, published),
    Operation("build and publish under the lock", build_under_the_lock, verify=published),
    Operation("look up a blob without its time", lambda w: w.store.lookup(KEY), lose_times, published),
    Operation("materialise by links", lambda w: w.materialise(KEY), lambda w: w.publish(KEY), tree_is(KEY)),
    Operation("materialise a copy", lambda w: w.materialise(RUN), lambda w: w.publish(RUN), tree_is(RUN)),
    Operation("materialise over a changed tree", lambda w: w.materialise(KEY), change_a_tree, tree_is(KEY)),
    Operation("add a root", add_root, lambda w: w.publish(KEY), rooted),
    Operation("lead a root elsewhere", add_root, root_another, rooted),
    Operation("use", use, lambda w: w.publish(KEY), published),
    Operation("use and verify", use_and_verify, lambda w: w.publish(KEY), published),
    Operation("read", read, lambda w: w.publish(KEY), tree_is(KEY)),
    Operation("collect", collect_all, publish_two, collected, may_remove=(KEY, RUN)),
    Operation("verify what is sound", verify_all, lambda w: w.materialise(w.publish(KEY).key), published),
    Operation("verify what is spoilt", verify_all, spoil, healed, (KEY,), verify_all),
    Operation("pin", pin, verify=pinned),
    Operation("import a bundle", unpack, pack, published),
    Operation("put the first row", put_a_row, verify=row_is_right_or_absent, index=True, every=7),
    Operation("put another row", put_a_row, put_one_row, row_is_right_or_absent, index=True, every=7),
)


def write_a_record_in_place(world: World) -> None:
    place = world.base / "records" / KEY[:2] / KEY
    envelope = place.read_bytes()
    place.unlink()
    with place.open("wb", buffering=0) as file:
        file.write(envelope[:100])
        file.write(envelope[100:])
    place.chmod(0o444)


#: What no store may do; the suite must find it out.
CARELESS = (Operation("write a record in place", write_a_record_in_place, lambda w: w.publish(KEY), published),)
