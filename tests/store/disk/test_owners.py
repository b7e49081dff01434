"""A store that others may write to is refused, with the command that mends it; no umask makes one that they may."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.support import FILES, KEY, publish, read_tree, write_files
from trtstore import Exposed, Invalid, Store
from trtstore.transfer.readonly import ReadOnly
from trtstore.upkeep.maintenance import Maintenance

OTHER = 12345  # a user, and a group that nobody is in
FOLDERS = [
    "",
    "v1",
    "v1/blobs",
    "v1/blobs/sha256",
    "v1/records",
    "v1/trees",
    "v1/roots",
    "v1/pins",
    "v1/pending",
]
FOLDERS += ["v1/revoked", "v1/quarantine", "v1/locks", "v1/tmp", "v1/partial", "v1/toolchains", "v1/hints"]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = Store.open(tmp_path / "store", durability="fast")
    store.materialise(publish(store, write_files(tmp_path / "out")))
    for name in FOLDERS:
        (tmp_path / "store" / name).mkdir(exist_ok=True)
    return tmp_path / "store"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_everybody_may_write_to_is_refused_and_named(root: Path, name: str) -> None:
    (root / name).chmod(0o777)
    with pytest.raises(Exposed) as refused:
        Store.open(root)
    assert str(root / name) in refused.value.message
    assert refused.value.hint is not None
    mend = refused.value.hint.split("#")[0].split(";")[0]
    subprocess.run(mend, shell=True, check=True)  # noqa: S602  # what a user would type
    assert Store.open(root).lookup(KEY) is not None


@as_root
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_another_user_is_refused_and_named(root: Path, name: str) -> None:
    os.chown(root / name, OTHER, -1)
    with pytest.raises(Exposed) as refused:
        Store.open(root)
    assert str(root / name) in refused.value.message


def test_a_record_that_others_may_have_put_there_is_no_hit(root: Path) -> None:
    """Names of blobs tell their bytes; what a record says rests on who may write to its own folder."""
    store = Store.open(root)
    shard = store._layout.record(KEY).parent
    shard.chmod(0o777)
    for look in (store.lookup, store.use):
        with pytest.raises(Exposed, match=re.escape(str(shard))):
            look(KEY)
    shard.chmod(0o755)
    assert store.use(KEY) is not None


@as_root
def test_a_record_of_another_user_is_a_miss_and_is_replaced(root: Path, tmp_path: Path) -> None:
    store = Store.open(root)
    os.chown(store._layout.record(KEY), OTHER, -1)
    told: list[str] = []
    assert store.lookup(KEY, on_problem=told.append) is None
    assert store.use(KEY, on_problem=told.append) is None
    assert "belongs to" in told[0]
    publish(store, write_files(tmp_path / "again"))
    assert store.use(KEY) is not None


def test_a_folder_above_that_lets_others_swap_the_store_is_refused(root: Path) -> None:
    root.parent.chmod(0o777)
    with pytest.raises(Exposed, match="above the store"):
        Store.open(root)
    root.parent.chmod(0o1777)  # as /tmp: nobody can rename what is another's
    assert Store.open(root).lookup(KEY) is not None


def test_an_absent_store_below_a_folder_of_everybodys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(Exposed):
        Store.open(tmp_path / "open" / "store")


@as_root
def test_a_folder_that_another_user_made_first_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o1777)
    store = Store.open(tmp_path / "open" / "store")
    (tmp_path / "open" / "store").mkdir()
    os.chown(tmp_path / "open" / "store", OTHER, OTHER)
    with pytest.raises(Exposed):
        publish(store, write_files(tmp_path / "out"))
    (tmp_path / "open" / "store" / "v1").mkdir()
    os.chown(tmp_path / "open" / "store" / "v1", OTHER, OTHER)
    with pytest.raises(Exposed):
        publish(store, write_files(tmp_path / "out"))


def test_nobody_is_trusted_by_a_group_of_their_own_alone(root: Path) -> None:
    if os.geteuid() == 0:
        os.chown(root / "v1", -1, 1)  # daemon: a group that others may be put into
        (root / "v1").chmod(0o775)
        with pytest.raises(Exposed, match="the group"):
            Store.open(root)
        os.chown(root / "v1", -1, 0)
    (root / "v1").chmod(0o775)  # the user's own group, as a umask of 002 makes it
    if os.geteuid() == 0:
        assert Store.open(root).lookup(KEY) is not None


def share(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        os.chown(path, -1, 1)
        if path.is_dir():
            path.chmod(0o2775)
    (root / "v1" / "index").chmod(0o700)


@as_root
def test_a_store_may_be_shared_with_its_group_by_an_option_and_no_further(root: Path) -> None:
    share(root)
    with pytest.raises(Exposed, match="the group"):
        Store.open(root)
    before = os.umask(0o022)
    try:
        store = Store.open(root, shared_with="group")
        assert store.lookup(KEY) is not None
        made = publish(store, write_files(root.parent / "more", {"a/b": b"b"}), "77" * 32)
        tree = store.materialise(made).path
        assert [(path.stat().st_mode & 0o7777, path.stat().st_gid) for path in (tree, tree / "a")] == [(0o2775, 1)] * 2
        assert (root / "v1" / f"index-{os.geteuid()}").stat().st_mode & 0o777 == 0o700
        Maintenance(store).pin(KEY)
        assert (root / "v1" / "pins" / KEY).stat().st_mode & 0o777 == 0o664
        (root / "v1" / "records").chmod(0o2777)
        with pytest.raises(Exposed, match="everybody"):
            Store.open(root, shared_with="group")
        (root / "v1" / "records").chmod(0o2775)
        os.chown(root / "v1" / "records", -1, OTHER)
        Store.open(root, shared_with="group")
        os.chown(root / "v1" / "records", -1, 2)  # another group than the store's
        with pytest.raises(Exposed, match="the group"):
            Store.open(root, shared_with="group")
    finally:
        os.umask(before)


@as_root
def test_what_a_member_of_the_group_changed_is_never_loaded(root: Path) -> None:
    share(root)
    before = os.umask(0o022)
    try:
        store = Store.open(root, shared_with="group")
        record = store.use(KEY)
        assert record is not None
        engine = next(
            path for path in (root / "v1" / "blobs").rglob("*") if path.is_file() and path.stat().st_size > 5000
        )
        times = engine.stat()
        data = engine.read_bytes()
        engine.unlink()
        engine.write_bytes(data[::-1])
        engine.chmod(0o444)
        os.chown(engine, OTHER, 1)
        os.utime(engine, ns=(times.st_atime_ns, times.st_mtime_ns))
        heard: list[str] = []
        assert Store.open(root, shared_with="group").use(KEY, on_problem=heard.append) is None
        assert heard
        publish(store, write_files(root.parent / "out"))
        assert read_tree(store.materialise(record).path) == FILES
    finally:
        os.umask(before)


@as_root
def test_a_link_of_another_user_is_not_taken_for_ones_own(root: Path) -> None:
    store = Store.open(root)
    record = store.lookup(KEY)
    assert record is not None
    place = root.parent / "tmp"
    place.mkdir()
    place.chmod(0o1777)
    link = place / "engine"
    link.symlink_to(store.materialise(record).path)  # right now, and elsewhere as soon as its owner likes
    os.lchown(link, OTHER, OTHER)
    with pytest.raises(Invalid, match="another user"):
        store.add_root(link, record)
    assert link.lstat().st_uid == OTHER
    assert [path.name for path in place.iterdir()] == ["engine"]
    store.add_root(place / "mine", record)
    assert read_tree((place / "mine").resolve()) == FILES


def test_an_other_store_is_read_where_its_owner_is_known_and_refused_where_everybody_writes(
    root: Path,
) -> None:
    if os.geteuid() == 0:
        for path in root.rglob("*"):
            os.chown(path, OTHER, OTHER)
    assert ReadOnly.open(root).lookup(KEY) is not None  # the user named it
    (root / "v1" / "records").chmod(0o777)
    with pytest.raises(Exposed, match="everybody may write"):
        ReadOnly.open(root)


MAKE = """
import os, sys
from pathlib import Path
from trtstore import Store
os.umask(int(sys.argv[1], 8))
store = Store.open(Path(sys.argv[2]), durability="fast")
store.index.put("t", "k", 1)  # may be the first that is made
record = store.publish("5e" * 32, Path(sys.argv[3]), labels={}, predicate={}, predicate_type="https://example.org/x")
store.materialise(record)
"""


@pytest.mark.parametrize(("mask", "wanted"), [("000", 0o755), ("022", 0o755), ("002", 0o755), ("077", 0o700)])
def test_no_umask_makes_a_folder_that_others_may_write_to(tmp_path: Path, mask: str, wanted: int) -> None:
    out, root = write_files(tmp_path / "out"), tmp_path / "store"
    subprocess.run([sys.executable, "-c", MAKE, mask, root, out], check=True)
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    modes = {path: path.stat().st_mode & 0o777 for path in folders if path.name != "index"}
    assert modes == dict.fromkeys(modes, wanted)
    assert (root / "v1" / "index").stat().st_mode & 0o777 == 0o700
    files = [
        path for path in root.rglob("*") if path.is_file() and "index" not in path.parts and "locks" not in path.parts
    ]
    assert not [path for path in files if path.stat().st_mode & 0o022]


def test_the_command_says_so_and_ends_with_exit_code_4(root: Path) -> None:
    (root / "v1").chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-m", "trtstore", "ls", "--store", str(root)], capture_output=True, text=True
    )
    assert done.returncode == 4
    assert f"everybody may write to {root / 'v1'}" in done.stderr
    assert f"hint: chmod -R go-w {root}" in done.stderr
