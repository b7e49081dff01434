"""One process and its store: publish, look up, materialise, roots, and what is refused."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.support import FILES, KEY, OTHER, leftovers, publish, read_tree, write_files
from trtstore import Corrupt, Invalid, Store, StoreFailure, folder_manifest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "out")


def test_an_absent_store_reads_as_empty_and_is_not_created(store: Store) -> None:
    assert store.lookup(KEY) is None
    assert store.blob_path("sha256:" + "0" * 64) is None
    assert store.index.get("last-use", KEY) is None
    assert not store.root.exists()


def test_what_is_published_is_looked_up_and_materialised(store: Store, folder: Path, tmp_path: Path) -> None:
    (folder / "run").write_bytes(b"#!/bin/sh\n")
    (folder / "run").chmod(0o700)
    (tmp_path / "log").write_text("built\n")
    record = publish(
        store,
        folder,
        predicate={"inputs": ("a", "b"), "seconds": 1.5},
        labels={"model": "tiny"},
        attachments={"log": tmp_path / "log"},
    )
    assert store.lookup(KEY) == record
    assert (record.files, record.bytes) == (3, 6012)
    assert record.predicate == {"inputs": ["a", "b"], "seconds": 1.5}
    log = store.blob_path(record.attachments["log"].digest)
    assert log is not None
    assert log.read_text() == "built\n"

    made = store.materialise(record)
    assert made.method in ("reflink", "hardlink", "copy")
    assert read_tree(made.path) == {**FILES, "run": b"#!/bin/sh\n"}
    assert stat.S_IMODE((made.path / "run").stat().st_mode) == 0o555
    assert stat.S_IMODE((made.path / "engine.bin").stat().st_mode) == 0o444
    assert made.path.name == record.manifest.removeprefix("sha256:")
    assert store.materialise(record) == made.__class__(made.path, "present", pytest.approx(0, abs=1))
    assert leftovers(store.root) == []


def test_a_second_key_with_the_same_files_shares_every_byte(store: Store, folder: Path) -> None:
    first, second = publish(store, folder), publish(store, folder, OTHER)
    assert first.manifest == second.manifest
    blobs = [path for path in (store.root / "v1" / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == len(FILES) + 1


def test_the_first_record_of_a_key_stays(store: Store, folder: Path, tmp_path: Path) -> None:
    first = publish(store, folder)
    again = publish(store, write_files(tmp_path / "other", {"engine.bin": b"another"}))
    assert again == first == store.lookup(KEY)


def test_the_producer_cannot_change_the_store_later(store: Store, folder: Path) -> None:
    record = publish(store, folder)
    (folder / "engine.bin").write_bytes(b"spoilt")
    assert read_tree(store.materialise(record).path) == FILES


def test_a_scratch_folder_is_private_taken_over_without_a_copy_and_gone_afterwards(store: Store) -> None:
    with store.scratch() as work:
        assert stat.S_IMODE(work.stat().st_mode) == 0o700
        out = write_files(work / "out")
        inode = (out / "engine.bin").stat().st_ino
        record = publish(store, out)
    assert not work.exists()
    engine = store.materialise(record).path / "engine.bin"
    blobs = {path.stat().st_ino for path in (store.root / "v1" / "blobs").rglob("*") if path.is_file()}
    assert inode in blobs
    assert engine.read_bytes() == FILES["engine.bin"]


def test_a_scratch_folder_can_be_published_twice(store: Store) -> None:
    with store.scratch() as work:
        out = write_files(work / "out")
        (out / "run").write_bytes(b"#!/bin/sh")
        (out / "run").chmod(0o755)
        assert publish(store, out).manifest == publish(store, out, OTHER).manifest
        assert os.access(out / "run", os.X_OK)


def test_a_file_in_scratch_that_has_another_name_outside_is_copied(store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "weights.bin"
    mine.write_bytes(b"weights")
    with store.scratch() as work:
        (work / "out").mkdir()
        (work / "out" / "weights.bin").hardlink_to(mine)
        record = publish(store, work / "out")
    mine.write_bytes(b"edited!")  # still ours to write, mode and time untouched
    assert read_tree(store.materialise(record).path) == {"weights.bin": b"weights"}


def test_empty_folders_are_not_kept_and_empty_files_are(store: Store, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "out", {"empty": b""})
    (folder / "nothing").mkdir()
    assert read_tree(store.materialise(publish(store, folder)).path) == {"empty": b""}


def test_the_digest_of_a_folder_is_that_of_its_artifact(store: Store, folder: Path) -> None:
    assert folder_manifest(folder, store.index).digest == publish(store, folder).manifest


def spoil_bytes(tree: Path) -> None:
    file = tree / "engine.bin"
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[::-1])


def spoil_size(tree: Path) -> None:
    (tree / "engine.bin").unlink()
    (tree / "engine.bin").write_bytes(b"")


def spoil_absent(tree: Path) -> None:
    (tree / "sub" / "config.json").unlink()


def spoil_extra(tree: Path) -> None:
    (tree / "tokenizer.json").write_text("{}")


def spoil_link(tree: Path) -> None:
    (tree / "engine.bin").unlink()
    (tree / "engine.bin").symlink_to("/etc/hostname")


def spoil_mode(tree: Path) -> None:
    data = (tree / "sub" / "config.json").read_bytes()
    (tree / "sub" / "config.json").unlink()
    (tree / "sub" / "config.json").write_bytes(data)
    (tree / "sub" / "config.json").chmod(0o755)


def spoil_all(tree: Path) -> None:
    subprocess.run(["rm", "-rf", tree], check=True)
    tree.symlink_to("/etc")


@pytest.mark.parametrize(
    "spoil", [spoil_bytes, spoil_size, spoil_absent, spoil_extra, spoil_link, spoil_mode, spoil_all]
)
def test_a_spoilt_tree_is_made_anew(store: Store, folder: Path, spoil) -> None:
    record = publish(store, folder)
    tree = store.materialise(record).path
    spoil(tree)
    made = store.materialise(record)
    assert made.method != "present"
    assert read_tree(made.path) == FILES
    assert not made.path.is_symlink()
    assert leftovers(store.root) == []


def test_a_blob_that_was_written_to_in_place_is_seen_and_replaced(store: Store, folder: Path) -> None:
    record = publish(store, folder)
    engine = store.materialise(record).path / "engine.bin"
    engine.chmod(0o644)
    with engine.open("r+b") as file:  # of the same size: where the tree is a hard link this is the blob itself
        file.write(b"E")
    blobs = [path for path in (store.root / "v1" / "blobs").rglob("*") if path.is_file()]
    spoilt = [path for path in blobs if path.read_bytes().startswith(b"Engine")]
    problems: list[str] = []
    found = store.lookup(KEY, on_problem=problems.append)
    if spoilt:
        assert found is None
        assert "was written to after it was stored" in problems[0]
        with pytest.raises(Corrupt):
            store.materialise(record)
    assert publish(store, folder).manifest == record.manifest
    assert read_tree(store.materialise(record).path) == FILES


def test_a_store_copied_without_times_is_hashed_once_and_used(store: Store, folder: Path, tmp_path: Path) -> None:
    record = publish(store, folder)
    subprocess.run(["cp", "-r", store.root, tmp_path / "copy"], check=True)
    copy = Store.open(tmp_path / "copy")
    assert copy.lookup(KEY) == record
    for entry in (
        "engine.bin",
        "sub/config.json",
    ):  # the manifest's own blob is hashed at every look-up anyway
        digest = f"sha256:{hashlib.sha256(FILES[entry]).hexdigest()}"
        blob = copy.blob_path(digest)
        assert blob is not None
        assert blob.stat().st_mtime == 315_619_200


def test_a_root_is_a_link_and_an_entry_that_names_it(store: Store, folder: Path, tmp_path: Path) -> None:
    record = publish(store, folder)
    link = tmp_path / "engine"
    store.add_root(link, record)
    store.add_root(link, record)
    assert link.readlink() == store.materialise(record).path
    (entry,) = (store.root / "v1" / "roots").iterdir()
    assert entry.readlink() == link
    assert read_tree(link) == FILES
    other = publish(store, write_files(tmp_path / "other", {"engine.bin": b"another"}), OTHER)
    store.add_root(link, other)
    assert read_tree(link) == {"engine.bin": b"another"}
    assert len(list((store.root / "v1" / "roots").iterdir())) == 1


@pytest.mark.parametrize("what", ["file", "folder", "link", "no parent"])
def test_a_root_replaces_nothing_of_the_user_s(store: Store, folder: Path, tmp_path: Path, what: str) -> None:
    record = publish(store, folder)
    link = tmp_path / "mine"
    if what == "file":
        link.write_text("mine")
    elif what == "folder":
        link.mkdir()
    elif what == "link":
        link.symlink_to(tmp_path)
    else:
        link = tmp_path / "absent" / "mine"
    before = link.readlink() if link.is_symlink() else None
    with pytest.raises(Invalid, match="mine"):
        store.add_root(link, record)
    assert (link.readlink() if link.is_symlink() else None) == before
    assert not (store.root / "v1" / "roots").exists()


@pytest.mark.parametrize("key", ["", "5E" * 32, "5e" * 31, "../" * 21 + "a", "5e" * 32 + "\n"])
def test_what_is_no_key_is_refused(store: Store, folder: Path, key: str) -> None:
    with pytest.raises(Invalid):
        store.lookup(key)
    with pytest.raises(Invalid):
        publish(store, folder, key)
    with pytest.raises(Invalid), store.building(key, who="me"):
        pass
    assert not store.root.exists()


def test_what_cannot_be_an_artifact_is_refused_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    link = write_files(tmp_path / "link")
    (link / "weights").symlink_to("/etc/hostname")
    pipe = write_files(tmp_path / "pipe")
    os.mkfifo(pipe / "pipe")
    empty = tmp_path / "empty"
    empty.mkdir()
    case = write_files(tmp_path / "case", {"a": b"", "A": b""})
    name = write_files(tmp_path / "name", {"a\nb": b""})
    undecodable = tmp_path / "undecodable"
    undecodable.mkdir()
    Path(os.fsdecode(os.fsencode(undecodable) + b"/\xff")).write_bytes(b"")
    file = tmp_path / "file"
    file.write_bytes(b"")
    for folder in (link, pipe, empty, case, name, undecodable, file):
        with pytest.raises(Invalid) as failure:
            publish(store, folder)
        assert str(folder) in failure.value.message
    with pytest.raises(StoreFailure, match=r"cannot read .*absent: no such file"):
        publish(store, tmp_path / "absent")
    assert not (store.root / "v1" / "blobs").exists()
    assert leftovers(store.root) == []


@pytest.mark.parametrize(
    "more",
    [
        {"predicate": {"x": {1, 2}}},
        {"predicate": {"x": float("nan")}},
        {"predicate": {"x": 2**60}},
        {"predicate": {1: 2}},
        {"predicate": {"x": "\ud800"}},
        {"labels": {"a": 1}},
        {"labels": {"a\n": "b"}},
        {"predicate_type": ""},
    ],
    ids=str,
)
def test_facts_that_a_record_cannot_hold_are_refused_and_leave_nothing(store: Store, folder: Path, more) -> None:
    with pytest.raises(Invalid):
        publish(store, folder, **more)
    assert not (store.root / "v1" / "blobs").exists()
    assert leftovers(store.root) == []


def test_importing_the_store_is_quick_and_brings_no_heavy_module() -> None:
    code = "import sys, trtstore; print([m for m in ('numpy', 'asyncio', 'urllib.request') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
