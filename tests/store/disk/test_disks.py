"""Disks as they are: full, read-only, without descriptors, without hard links between them."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.store.disks import mounted
from tests.store.support import FILES, KEY, OTHER, leftovers, publish, read_tree, write_files
from trtstore import NoSpace, NotReadable, NotWritable, Store, TooManyOpenFiles


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and path.parent.name != "locks")


@pytest.mark.parametrize("private", [False, True], ids=["copied", "in scratch"])
def test_a_full_disk_is_one_error_that_leaves_nothing_behind(tmp_path: Path, private: bool) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    big = write_files(tmp_path / "big", {f"{n}.bin": os.urandom(300_000) for n in range(8)})
    logs = {path.name: path for path in big.iterdir()}
    with mounted(root, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        store = Store.open(root)
        kept = publish(store, write_files(tmp_path / "small"))
        before = files_of(root)
        with pytest.raises(NoSpace) as failure:
            if private:
                with store.scratch() as work:
                    publish(store, write_files(work / "out", {"a": os.urandom(100_000)}), OTHER, attachments=logs)
            else:
                publish(store, big, OTHER)
        assert str(root) in failure.value.message
        assert failure.value.hint is not None
        assert files_of(root) == before
        assert leftovers(root) == []
        assert store.lookup(OTHER) is None
        assert store.lookup(KEY) == kept
        assert read_tree(store.materialise(kept).path) == FILES


def test_a_full_disk_while_a_tree_is_copied_leaves_no_half_tree(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    with mounted(root, "-t", "tmpfs", "-o", "size=3m", "tmpfs"):
        store = Store.open(root)
        folder = write_files(tmp_path / "out", {"run": os.urandom(2_000_000)})
        (folder / "run").chmod(0o755)  # an executable cannot be linked: a copy is needed, for which there is no room
        record = publish(store, folder)
        with pytest.raises(NoSpace):
            store.materialise(record)
        assert not (root / "v1" / "trees").exists() or list((root / "v1" / "trees").iterdir()) == []
        assert leftovers(root) == []


def test_a_read_only_store_is_read_and_refuses_to_be_written(tmp_path: Path) -> None:
    root = tmp_path / "store"
    writable = Store.open(root)
    record = publish(writable, write_files(tmp_path / "out"))
    other = publish(writable, write_files(tmp_path / "out2", {"a": b"a"}), OTHER)
    writable.materialise(record)
    with mounted(root, "--bind", str(root)):
        if subprocess.run(["mount", "-o", "remount,ro,bind", str(root)], check=False).returncode:
            pytest.skip("cannot make a read-only bind mount here")
        store = Store.open(root)
        found = store.lookup(KEY)
        assert found == record
        assert store.materialise(found).method == "present"
        store.index.put("t", "k", 1)
        for write in (
            lambda: publish(store, tmp_path / "out", "ab" * 32),
            lambda: store.materialise(other),
            lambda: store.add_root(tmp_path / "link", record),
            lambda: store.building(KEY, who="me").__enter__(),
            lambda: store.scratch().__enter__(),
        ):
            with pytest.raises(NotWritable) as failure:
                write()
            assert str(root) in failure.value.message
        assert not (tmp_path / "link").is_symlink()


def test_a_store_below_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store.open(tmp_path / "file" / "store")
    assert store.lookup(KEY) is None
    with pytest.raises(Exception, match="file/store"):
        publish(store, write_files(tmp_path / "out"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_permissions_are_errors_that_name_the_path(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(NotWritable, match="closed"):
        publish(Store.open(closed / "store"), write_files(tmp_path / "out"))
    (tmp_path / "out" / "engine.bin").chmod(0)
    with pytest.raises(NotReadable, match=r"engine\.bin"):
        publish(Store.open(tmp_path / "store"), tmp_path / "out")


def test_no_descriptor_left_is_one_error_that_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    folder = write_files(tmp_path / "out")
    publish(store, folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with pytest.raises(TooManyOpenFiles) as failure:
            while True:  # one descriptor less at each turn, so that each place has its turn to fail
                publish(store, folder, OTHER)
                shutil.rmtree(tmp_path / "store" / "v1" / "records" / OTHER[:2])
                taken.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    assert failure.value.hint is not None
    assert "ulimit" in failure.value.hint
    assert leftovers(store.root) == []
    assert store.lookup(OTHER) is None


def test_a_folder_on_another_disk_is_copied_in(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        store = Store.open(tmp_path / "store")
        record = publish(store, write_files(disk / "out"))
        assert read_tree(store.materialise(record).path) == FILES
