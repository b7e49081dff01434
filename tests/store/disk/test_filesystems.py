"""A store's whole life on ext4, tmpfs, xfs and btrfs: the same promises, each by the best way that the disk has."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.store.disks import make_image, mounted
from tests.store.support import FILES, KEY, OTHER, leftovers, publish, read_tree, write_files
from trtstore import NoSpace, NotWritable, Store

SCRIPT = b"#!/bin/sh\necho alive\n"


@dataclass(frozen=True)
class Disk:
    """A file system of its own: its kind, and where it is mounted."""

    kind: str
    path: Path

    @property
    def shares_blocks(self) -> bool:
        return self.kind in ("xfs", "btrfs")


@pytest.fixture(params=["ext4", "tmpfs", "xfs", "btrfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    kind, path = request.param, tmp_path / "disk"
    path.mkdir()
    if kind == "tmpfs":
        options = ["-t", "tmpfs", "-o", "size=64m", "tmpfs"]
    else:
        options = ["-t", kind, "-o", "loop", str(make_image(kind, tmp_path / "image"))]
    with mounted(path, *options):
        yield Disk(kind, path)


def blobs_of(store: Store) -> dict[str, int]:
    """The inode of each blob, by its digits."""
    folder = store.root / "v1" / "blobs" / "sha256"
    return {path.name: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def fill(path: Path) -> None:
    """Leave one megabyte free: enough to begin with, and not to end."""
    with path.open("wb") as file:
        size = 0
        try:
            while True:
                os.posix_fallocate(file.fileno(), size, 1 << 20)
                size += 1 << 20
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
        file.truncate(size - (1 << 20))
        os.fsync(file.fileno())
    os.sync()  # btrfs gives room back when it commits


def test_an_artifact_comes_back_by_the_best_way_there_is(disk: Disk, tmp_path: Path) -> None:
    store = Store.open(disk.path / "store")
    folder = write_files(tmp_path / "out")
    record = publish(store, folder)
    assert store.lookup(KEY) == record
    made = store.materialise(record)
    assert made.method == ("reflink" if disk.shares_blocks else "hardlink")
    assert read_tree(made.path) == FILES
    blobs = set(blobs_of(store).values())
    linked = {path.stat().st_ino in blobs for path in made.path.rglob("*") if path.is_file()}
    assert linked == {not disk.shares_blocks}
    assert store.materialise(record).method == "present"
    assert leftovers(store.root) == []


def test_an_executable_file_stays_one_and_is_never_its_blobs_other_name(disk: Disk, tmp_path: Path) -> None:
    store = Store.open(disk.path / "store")
    folder = write_files(tmp_path / "out", {"run": SCRIPT})
    (folder / "run").chmod(0o755)
    made = store.materialise(publish(store, folder))
    assert made.method == ("reflink" if disk.shares_blocks else "copy")
    assert (made.path / "run").stat().st_ino not in blobs_of(store).values()
    assert subprocess.run([made.path / "run"], capture_output=True, check=True).stdout == b"alive\n"


def test_files_of_a_scratch_folder_are_taken_over_and_equal_ones_are_kept_once(disk: Disk) -> None:
    store = Store.open(disk.path / "store")
    with store.scratch() as work:
        folder = write_files(work / "out")
        inodes = {path.stat().st_ino for path in folder.rglob("*") if path.is_file()}
        publish(store, folder)
    before = blobs_of(store)
    assert inodes <= set(before.values())
    with store.scratch() as work:
        again = publish(store, write_files(work / "out"), OTHER)
    assert blobs_of(store) == before
    first = store.lookup(KEY)
    assert first is not None
    assert first.manifest == again.manifest


@pytest.mark.parametrize("private", [False, True], ids=["copied", "in scratch"])
def test_a_full_disk_is_one_error_that_leaves_nothing_half_made(disk: Disk, tmp_path: Path, private: bool) -> None:
    store = Store.open(disk.path / "store")
    kept = publish(store, write_files(tmp_path / "small"))
    big = write_files(tmp_path / "big", {f"{n}.bin": os.urandom(400_000) for n in range(8)})
    before = blobs_of(store)
    fill(disk.path / "filler")
    with pytest.raises(NoSpace):
        if private:
            with store.scratch() as work:
                publish(store, write_files(work / "out"), OTHER, attachments={p.name: p for p in big.iterdir()})
        else:
            publish(store, big, OTHER)
    assert blobs_of(store) == before
    assert leftovers(store.root) == []
    assert store.lookup(OTHER) is None
    assert store.lookup(KEY) == kept
    (disk.path / "filler").unlink()
    os.sync()
    assert read_tree(store.materialise(publish(store, big, OTHER)).path) == read_tree(big)


def test_a_disk_that_turned_read_only_is_read_and_not_written(disk: Disk, tmp_path: Path) -> None:
    store = Store.open(disk.path / "store")
    folder = write_files(tmp_path / "out")
    record = publish(store, folder)
    store.materialise(record)
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", disk.path], check=True)
    store = Store.open(disk.path / "store")
    assert store.lookup(KEY) == record
    made = store.materialise(record)
    assert (made.method, read_tree(made.path)) == ("present", FILES)
    store.index.put("table", "key", 1)
    with pytest.raises(NotWritable, match="store"):
        publish(store, folder, OTHER)
    subprocess.run(["mount", "-o", "remount,rw", disk.path], check=True)
    assert publish(store, folder, OTHER).manifest == record.manifest


def test_a_blob_with_other_bytes_is_seen_and_replaced(disk: Disk, tmp_path: Path) -> None:
    store = Store.open(disk.path / "store")
    folder = write_files(tmp_path / "out", {"engine.bin": FILES["engine.bin"]})
    record = publish(store, folder)
    (engine,) = (p for p in (store.root / "v1" / "blobs").rglob("*") if p.is_file() and p.stat().st_size == 6000)
    engine.chmod(0o644)
    with engine.open("r+b") as file:
        file.write(b"ENGINE")  # in place, at the same size
    problems: list[str] = []
    assert store.lookup(KEY, on_problem=problems.append) is None
    assert len(problems) == 1
    assert publish(store, folder) == store.lookup(KEY) == record
    assert read_tree(store.materialise(record).path) == read_tree(folder)


def test_who_writes_in_a_tree_spoils_a_shared_blob_visibly_and_a_reflinked_one_not(disk: Disk, tmp_path: Path) -> None:
    store = Store.open(disk.path / "store")
    folder = write_files(tmp_path / "out")
    record = publish(store, folder)
    spoilt = store.materialise(record).path / "engine.bin"
    spoilt.chmod(0o644)
    spoilt.write_bytes(b"x" * len(FILES["engine.bin"]))
    assert store.lookup(KEY, on_problem=str) == (record if disk.shares_blocks else None)
    made = store.materialise(publish(store, folder))
    assert made.method == ("reflink" if disk.shares_blocks else "hardlink")
    assert read_tree(made.path) == FILES


def test_roots_and_index_outlive_the_process(disk: Disk, tmp_path: Path) -> None:
    store = Store.open(disk.path / "store")
    store.add_root(tmp_path / "best", publish(store, write_files(tmp_path / "out")))
    store.index.put("table", "key", {"a": 1})
    assert read_tree(tmp_path / "best") == FILES
    (entry,) = (store.root / "v1" / "roots").iterdir()
    assert entry.readlink() == tmp_path / "best"
    assert Store.open(disk.path / "store").index.get("table", "key") == {"a": 1}
