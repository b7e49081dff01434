"""Links, pipes, devices and folders where the store expects files of its own: none is followed, and none hangs it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.support import FILES, KEY, leftovers, publish, read_tree, write_files
from trtstore import Record, Store
from trtstore.disk.layout import STAMP

#: A process that uses the store in every way, and says which paths below `outside` it opened or changed.
USER = """
import json, os, sys
from pathlib import Path
from trtstore import Store, StoreFailure

root, folder, outside = map(os.path.realpath, sys.argv[1:])
FOLLOW = {"os.listdir", "os.scandir", "os.chmod", "os.utime", "os.truncate"}
STAY = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
touched = []

def place(path, follow):
    path = os.path.abspath(os.fsdecode(path))
    folder, name = os.path.split(path)
    return os.path.realpath(path) if follow else os.path.join(os.path.realpath(folder), name)

def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        paths = [place(arguments[0], not arguments[2] & os.O_NOFOLLOW)]
    elif event in FOLLOW | STAY:
        paths = [place(path, event in FOLLOW) for path in arguments[:2] if isinstance(path, (str, bytes))]
    else:
        return
    touched.extend(f"{event} {path}" for path in paths if path == outside or path.startswith(outside + os.sep))

sys.addaudithook(hook)
store = Store.open(Path(root), durability="fast")
said = {}

def attempt(name, use):
    try:
        use()
        said[name] = "done"
    except StoreFailure as failure:
        said[name] = type(failure).__name__

def write():
    with store.building("5e" * 32, who="me"), store.scratch() as work:
        (work / "file").write_bytes(b"x")
    record = store.publish("5e" * 32, Path(folder), predicate_type="p", predicate={}, labels={})
    made = store.materialise(record)
    store.add_root(Path(folder).parent / "link", record)
    said["tree"] = sorted(path.name for path in made.path.rglob("*"))

attempt("lookup", lambda: said.update(found=store.lookup("5e" * 32, on_problem=lambda _: None) is not None))
attempt("index", lambda: (store.index.get("t", "k"), store.index.put("t", "k", 1)))
attempt("write", write)
print(json.dumps({"touched": touched, "said": said}))
"""


def use(store: Store, folder: Path, outside: Path) -> tuple[list[str], dict[str, object]]:
    """What a process that uses the store touched outside, and how each use ended. A hang is a failure."""
    done = subprocess.run(
        [sys.executable, "-c", USER, str(store.root), str(folder), str(outside)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return answer["touched"], answer["said"]


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Every name below `folder` with its inode, mode, time and bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(folder))] = (status.st_ino, status.st_mode, status.st_mtime_ns, data)
    return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.open(tmp_path / "store", durability="fast")
    record = publish(made, write_files(tmp_path / "out"))
    made.materialise(record)
    made.add_root(tmp_path / "link", record)
    made.index.put("t", "k", 1)
    return made


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return write_files(tmp_path / "outside", {"canary": b"not the store's", "work/file": b"nor this"})


def manifest_of(store: Store) -> Path:
    record = store.lookup(KEY)
    assert record is not None
    path = store.blob_path(record.manifest)
    assert path is not None
    return path


def engine_of(store: Store) -> Path:
    blobs = (store.root / "v1" / "blobs").rglob("*")
    return next(path for path in blobs if path.is_file() and path.read_bytes() == FILES["engine.bin"])


def record_of(store: Store) -> Path:
    return store.root / "v1" / "records" / KEY[:2] / KEY


FOLDERS = [
    "blobs",
    "blobs/sha256",
    "blobs/sha256/*",
    "records",
    "records/*",
    "trees",
    "tmp",
    "locks",
    "roots",
    "index",
]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_a_link_to_elsewhere_is_not_followed(store: Store, outside: Path, name: str) -> None:
    for folder in list((store.root / "v1").glob(name)):
        target = outside / folder.name
        folder.rename(target)
        folder.symlink_to(target)
    before = snapshot(outside)
    touched, _ = use(store, store.root.parent / "out", outside)
    assert touched == []
    assert snapshot(outside) == before


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_a_file_is_a_miss_or_one_error(store: Store, outside: Path, name: str) -> None:
    for folder in list((store.root / "v1").glob(name)):
        shutil.rmtree(folder)
        folder.write_bytes(b"no folder")
    touched, said = use(store, store.root.parent / "out", outside)
    assert touched == []
    assert said["index"] == "done"
    assert said.get("found", False) is (name in ("trees", "tmp", "locks", "roots", "index"))


def a_link(path: Path, outside: Path) -> None:
    shutil.copyfile(path, outside / "copy")
    path.unlink()
    path.symlink_to(outside / "copy")


def a_link_to_nothing(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(outside / "absent")


def a_pipe(path: Path, _outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_socket(path: Path, _outside: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as end:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path has at most 108 bytes
        try:
            end.bind(path.name[:90])
        finally:
            os.chdir(here)
    (path.parent / path.name[:90]).rename(path)


def a_device(path: Path, _outside: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("making a device node needs root")
    path.unlink()
    try:
        os.mknod(path, stat.S_IFCHR | 0o444, os.makedev(1, 5))  # /dev/zero
    except PermissionError as error:
        pytest.skip(f"no device node can be made here: {error}")


def a_folder(path: Path, _outside: Path) -> None:
    path.unlink()
    write_files(path)


ODD = [a_link, a_link_to_nothing, a_pipe, a_socket, a_device, a_folder]


def check_healed(store: Store, outside: Path, *, found: bool = False) -> None:
    before = snapshot(outside)
    touched, said = use(store, store.root.parent / "out", outside)
    assert touched == []
    assert snapshot(outside) == before
    assert said["lookup"] == "done"
    assert said["found"] is found
    assert said["write"] == "done"
    record = store.lookup(KEY)
    assert record is not None
    assert read_tree(store.materialise(record).path) == FILES


@pytest.mark.parametrize("plant", ODD)
def test_a_blob_that_is_no_file_is_replaced_by_the_next_build(
    store: Store, outside: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(engine_of(store), outside)
    check_healed(store, outside)


@pytest.mark.parametrize("plant", ODD)
def test_a_manifest_that_is_no_file_is_replaced_by_the_next_build(
    store: Store, outside: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(manifest_of(store), outside)
    check_healed(store, outside)


@pytest.mark.parametrize("plant", ODD)
def test_a_record_that_is_no_file_is_replaced_by_the_next_build(
    store: Store, outside: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(record_of(store), outside)
    check_healed(store, outside)


def tree_of(store: Store) -> tuple[Path, Record]:
    record = store.lookup(KEY)
    assert record is not None
    return store.materialise(record).path, record


def more_in_tree(tree: Path, _outside: Path) -> None:
    (tree / "more").write_bytes(b"more")


def link_in_tree(tree: Path, outside: Path) -> None:
    (tree / "engine.bin").unlink()
    (tree / "engine.bin").symlink_to(outside / "canary")


def folder_link_in_tree(tree: Path, outside: Path) -> None:
    (tree / "sub").rename(outside / "sub")
    (tree / "sub").symlink_to(outside / "sub")


def hard_link_in_tree(tree: Path, outside: Path) -> None:
    (outside / "engine").write_bytes(FILES["engine.bin"][::-1])
    (tree / "engine.bin").unlink()
    (tree / "engine.bin").hardlink_to(outside / "engine")


def pipe_in_tree(tree: Path, _outside: Path) -> None:
    (tree / "engine.bin").unlink()
    os.mkfifo(tree / "engine.bin")


def tree_is_a_link(tree: Path, outside: Path) -> None:
    shutil.copytree(tree, outside / "tree")
    shutil.rmtree(tree)
    tree.symlink_to(outside / "tree")


def tree_is_a_file(tree: Path, _outside: Path) -> None:
    shutil.rmtree(tree)
    tree.write_bytes(b"no folder")


@pytest.mark.parametrize(
    "plant",
    [
        more_in_tree,
        link_in_tree,
        folder_link_in_tree,
        hard_link_in_tree,
        pipe_in_tree,
        tree_is_a_link,
        tree_is_a_file,
    ],
)
def test_a_tree_with_something_else_in_it_is_made_anew(
    store: Store, outside: Path, plant: Callable[[Path, Path], None]
) -> None:
    tree, _ = tree_of(store)
    plant(tree, outside)
    check_healed(store, outside, found=True)
    assert not tree.is_symlink()


def test_what_a_sweep_finds_in_tmp_is_removed_and_nothing_behind_it(store: Store, outside: Path) -> None:
    tmp = store.root / "v1" / "tmp"
    (tmp / "dead").mkdir()
    (tmp / "dead" / "work").symlink_to(outside)
    (tmp / "dead" / "file").hardlink_to(outside / "canary")
    (tmp / "link").symlink_to(outside)
    os.mkfifo(tmp / "pipe")
    check_healed(store, outside, found=True)
    assert list(tmp.iterdir()) == []


def lock_of(store: Store) -> Path:
    return store.root / "v1" / "locks" / f"build-{KEY}"


@pytest.mark.parametrize("target", ["canary", "absent"])
def test_a_lock_that_is_a_link_is_one_error_and_is_not_followed(store: Store, outside: Path, target: str) -> None:
    lock_of(store).symlink_to(outside / target)
    before = snapshot(outside)
    touched, said = use(store, store.root.parent / "out", outside)
    assert touched == []
    assert snapshot(outside) == before
    assert said["found"] is True
    assert said["write"] == "StoreFailure"


@pytest.mark.parametrize("plant", [a_pipe, a_socket, a_device])
def test_a_lock_that_is_no_file_is_one_error_and_keeps_nobody_waiting(
    store: Store, outside: Path, plant: Callable[[Path, Path], None]
) -> None:
    lock_of(store).touch()
    plant(lock_of(store), outside)
    _, said = use(store, store.root.parent / "out", outside)
    assert said["found"] is True
    assert said["write"] in ("Invalid", "StoreFailure")
    lock_of(store).unlink()
    check_healed(store, outside, found=True)


def test_a_lock_that_is_another_files_second_name_does_not_overwrite_it(store: Store, outside: Path) -> None:
    lock_of(store).hardlink_to(outside / "canary")
    _, said = use(store, store.root.parent / "out", outside)
    assert (outside / "canary").read_bytes() == b"not the store's"
    assert said["found"] is True
    assert said["write"] == "Invalid"


def test_a_blob_that_is_another_files_second_name_leaves_that_as_it_is(store: Store, outside: Path) -> None:
    (outside / "engine").write_bytes(FILES["engine.bin"])
    blob = engine_of(store)
    blob.unlink()
    blob.hardlink_to(outside / "engine")
    before = snapshot(outside)
    touched, said = use(store, store.root.parent / "out", outside)
    assert touched == []
    assert said["found"] is True
    assert snapshot(outside) == before
    assert engine_of(store).stat().st_mtime == STAMP  # a copy has its name now, and is not hashed again


def test_a_copy_of_a_store_with_its_links_and_without_its_times_is_hashed_once(store: Store, tmp_path: Path) -> None:
    # The blob's other name is a file of its own tree here: no status tells that from somebody else's file.
    copied = ["cp", "-r", "--preserve=links,mode", "--no-dereference", store.root, tmp_path / "copy"]
    subprocess.run(copied, check=True)
    copy = Store.open(tmp_path / "copy", durability="fast")
    record = copy.lookup(KEY)
    assert record is not None
    stored = engine_of(copy).lstat()
    assert (stored.st_mtime, stat.S_IMODE(stored.st_mode)) == (STAMP, 0o444)
    assert read_tree(copy.materialise(record).path) == FILES
    assert copy.materialise(record).method == "present"
    assert copy.lookup(KEY) == record
    assert engine_of(copy).lstat().st_ino == stored.st_ino
    assert leftovers(copy.root) == []
