"""A verify finds every kind of damage and moves it out of the way; what is whole, or was put right, it leaves alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.disks import mounted
from tests.store.support import FILES, KEY, OTHER, publish, read_tree, write_files
from trtstore import NotWritable, Record, Store
from trtstore.content.verify import Finding
from trtstore.disk.layout import STAMP
from trtstore.format.digest import hash_bytes, hex_of
from trtstore.upkeep.maintenance import Maintenance

ENGINE = FILES["engine.bin"]
CONFIG = FILES["sub/config.json"]


class Shelf:
    """A store with one artifact and its tree of hard links, to be spoilt."""

    def __init__(self, home: Path) -> None:
        self.store = Store.open(home / "store", durability="fast")
        self.base = home / "store" / "v1"
        self.out = write_files(home / "out")
        self.record = self.publish()
        self.tree = self.store.materialise(self.record).path

    def publish(self) -> Record:
        return publish(self.store, self.out)

    def blob(self, data: bytes) -> Path:
        return self.store._layout.blob(hash_bytes(data))

    @property
    def manifest(self) -> Path:
        return self.store._layout.blob(hex_of(self.record.manifest))

    def part_tree(self) -> None:
        """Make the tree of copies, as on a file system that has no hard links."""
        for name, data in FILES.items():
            write_sealed(self.tree / name, data)

    def lookup(self) -> Record | None:
        return self.store.lookup(KEY, on_problem=lambda _: None)

    def verify(self) -> list[Finding]:
        return Maintenance(self.store).verify()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def write_sealed(path: Path, data: bytes) -> None:
    """A new file of that name, with the mode and time of one that nobody wrote to."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, (STAMP, STAMP))


def change_in_place(path: Path, data: bytes) -> None:
    """Write over the file, whatever other names it has, and hide it."""
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, (STAMP, STAMP))


def change_blob(shelf: Shelf) -> set[str]:
    change_in_place(shelf.blob(ENGINE), ENGINE[::-1])
    return {"blob", "tree"}  # the tree's file is the blob's other name


def change_blob_of_copies(shelf: Shelf) -> set[str]:
    shelf.part_tree()
    change_in_place(shelf.blob(ENGINE), ENGINE[::-1])
    return {"blob"}


def swap_blobs(shelf: Shelf) -> set[str]:
    one, two = shelf.blob(ENGINE), shelf.blob(CONFIG)
    one.rename(one.with_name("aside"))
    two.rename(one)
    one.with_name("aside").rename(two)
    return {"blob"}  # the files of the tree are right, and no blob's other names any more


def cut_blob(shelf: Shelf) -> set[str]:
    shelf.part_tree()
    change_in_place(shelf.blob(ENGINE), ENGINE[:-1])
    return {"blob"}


def change_manifest(shelf: Shelf) -> set[str]:
    change_in_place(shelf.manifest, shelf.manifest.read_bytes().replace(b"0644", b"0755"))
    return {"blob", "tree"}  # nothing vouches for the tree any more


def fold_blob(shelf: Shelf) -> set[str]:
    shelf.blob(ENGINE).unlink()
    shelf.blob(ENGINE).mkdir()
    return {"blob"}


def change_tree(shelf: Shelf) -> set[str]:
    write_sealed(shelf.tree / "engine.bin", ENGINE[::-1])
    return {"tree"}


def add_to_tree(shelf: Shelf) -> set[str]:
    (shelf.tree / "more").write_bytes(b"more")
    return {"tree"}


def take_from_tree(shelf: Shelf) -> set[str]:
    (shelf.tree / "sub" / "config.json").unlink()
    return {"tree"}


def link_in_tree(shelf: Shelf) -> set[str]:
    (shelf.tree / "engine.bin").unlink()
    (shelf.tree / "engine.bin").symlink_to(shelf.out / "engine.bin")
    return {"tree"}


def make_tree_executable(shelf: Shelf) -> set[str]:
    shelf.part_tree()
    (shelf.tree / "engine.bin").chmod(0o555)
    return {"tree"}


def make_tree_a_file(shelf: Shelf) -> set[str]:
    shutil.rmtree(shelf.tree)
    shelf.tree.write_bytes(b"no folder")
    return {"tree"}


def cut_record(shelf: Shelf) -> set[str]:
    place = shelf.store._layout.record(KEY)
    change_in_place(place, place.read_bytes()[:-2])
    return {"record"}


def lose_blob(shelf: Shelf) -> set[str]:
    shelf.blob(ENGINE).unlink()
    return {"blob"}


DAMAGES = [
    change_blob,
    change_blob_of_copies,
    swap_blobs,
    cut_blob,
    change_manifest,
    fold_blob,
    change_tree,
    add_to_tree,
    take_from_tree,
    link_in_tree,
    make_tree_executable,
    make_tree_a_file,
    cut_record,
    lose_blob,
]


def check_healed(shelf: Shelf) -> None:
    """The next build heals all: the artifact is there with its own bytes, and a verify has nothing to say."""
    record = shelf.publish()
    assert read_tree(shelf.store.materialise(record).path) == FILES
    assert shelf.verify() == []


@pytest.mark.parametrize("spoil", DAMAGES)
def test_a_verify_moves_what_is_damaged_away_and_the_next_build_heals(
    shelf: Shelf, spoil: Callable[[Shelf], set[str]]
) -> None:
    kinds = spoil(shelf)
    found = shelf.verify()
    assert {finding.kind for finding in found} == kinds
    for finding in found:
        assert not os.path.lexists(finding.path)
        assert finding.moved_to is None or os.path.lexists(finding.moved_to)
        assert (finding.moved_to is None) is (spoil is lose_blob)
    assert (shelf.lookup() is None) is (kinds != {"tree"})
    assert {f.path for f in shelf.verify() if f.moved_to is not None} == set()  # there is nothing more to move
    check_healed(shelf)


@pytest.mark.parametrize("spoil", DAMAGES)
def test_a_use_that_verifies_finds_the_damage_of_its_artifact(shelf: Shelf, spoil: Callable[[Shelf], set[str]]) -> None:
    kinds, heard = spoil(shelf), list[str]()
    found = shelf.store.use(KEY, verify="always", on_problem=heard.append)
    assert (found is None) is (kinds != {"tree"})  # a tree is made again from its blobs
    assert heard
    if found is not None:
        assert read_tree(shelf.store.materialise(found).path) == FILES
    check_healed(shelf)


def test_what_is_whole_stays_as_it_is(shelf: Shelf) -> None:
    def look() -> dict[Path, tuple[int, int, int]]:
        folders = [shelf.base / name for name in ("blobs", "records", "trees")]
        paths = [path for folder in folders for path in folder.rglob("*")]
        return {path: (s.st_ino, s.st_ctime_ns, s.st_mode) for path in paths for s in [path.lstat()]}

    before = look()
    assert shelf.verify() == []
    assert look() == before
    assert not (shelf.base / "quarantine").exists()


def test_only_the_damaged_artifact_is_lost(shelf: Shelf, tmp_path: Path) -> None:
    other = publish(shelf.store, write_files(tmp_path / "other", {"a": b"a", "b": CONFIG}), OTHER)
    shelf.store.materialise(other)
    change_blob(shelf)
    assert [finding.keys for finding in shelf.verify() if finding.kind == "blob"] == [(KEY,)]
    assert shelf.lookup() is None
    assert shelf.store.lookup(OTHER) == other
    assert shelf.store.materialise(other).method == "present"


def test_a_blob_that_is_put_right_between_the_look_and_the_move_stays(shelf: Shelf, tmp_path: Path) -> None:
    shelf.part_tree()
    change_in_place(shelf.blob(ENGINE), ENGINE[::-1])

    def repair(count: int) -> None:
        if count == len(ENGINE):  # the wrong bytes were just read
            write_sealed(tmp_path / "new", ENGINE)
            (tmp_path / "new").rename(shelf.blob(ENGINE))

    assert Maintenance(shelf.store).verify(on_bytes=repair) == []
    assert not list(shelf.base.glob("quarantine/*"))
    assert shelf.blob(ENGINE).read_bytes() == ENGINE
    assert shelf.lookup() == shelf.record
    assert shelf.verify() == []


def test_what_is_collected_while_a_verify_reads_is_no_damage(shelf: Shelf) -> None:
    collected: list[object] = []

    def collect(_count: int) -> None:
        if not collected:
            collected.append(Maintenance(shelf.store).collect(0, grace=0))

    assert Maintenance(shelf.store).verify(on_bytes=collect) == []
    assert collected
    assert shelf.lookup() is None


@pytest.mark.parametrize("verify", [Shelf.verify, lambda shelf: shelf.store.use(KEY, verify="always")])
def test_damage_in_a_store_that_cannot_be_written_is_an_error(
    tmp_path: Path, verify: Callable[[Shelf], object]
) -> None:
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "tmpfs"):
        shelf = Shelf(tmp_path / "disk")
        shelf.store.close()
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "disk"], check=True)
        assert shelf.verify() == []
        subprocess.run(["mount", "-o", "remount,rw", tmp_path / "disk"], check=True)
        change_blob(shelf)
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "disk"], check=True)
        with pytest.raises(NotWritable, match="cannot write to"):
            verify(shelf)


def test_a_tree_that_shares_a_damaged_blob_is_not_served_once_the_quarantine_is_emptied(shelf: Shelf) -> None:
    # Then its file is the only name of the wrong bytes, and has the time of a copy that nobody wrote to.
    if (shelf.tree / "engine.bin").stat().st_nlink == 1:
        pytest.skip("this file system shares blocks, and makes no hard links")
    change_blob(shelf)
    moved = {finding.kind for finding in shelf.verify() if finding.moved_to is not None}
    assert moved == {"blob", "tree"}
    shutil.rmtree(shelf.base / "quarantine")
    check_healed(shelf)


def test_the_trees_of_other_artifacts_that_share_the_damaged_blob_go_too(shelf: Shelf, tmp_path: Path) -> None:
    files = {"model.bin": ENGINE, "other": b"other"}
    other = publish(shelf.store, write_files(tmp_path / "other", files), OTHER)
    tree = shelf.store.materialise(other).path
    if (tree / "model.bin").stat().st_nlink == 1:
        pytest.skip("this file system shares blocks, and makes no hard links")
    change_blob(shelf)
    assert shelf.store.use(KEY, verify="always", on_problem=lambda _: None) is None
    assert not tree.exists()
    shutil.rmtree(shelf.base / "quarantine")
    check_healed(shelf)
    assert read_tree(shelf.store.materialise(other).path) == files
