"""A store that may ask for fs-verity, on a kernel or file system that may not have it; tests/vm has those that do."""

from __future__ import annotations

from pathlib import Path

from tests.store.support import KEY, publish, read_tree, write_files
from trtstore import Store
from trtstore.disk import verity

FILES = {"engine.bin": b"weights!" * 20_000}


def test_it_is_silent_where_it_cannot_and_others_read_what_is_there(tmp_path: Path) -> None:
    with_it, without = Store.open(tmp_path / "store", verity=True), Store.open(tmp_path / "store")
    publish(with_it, write_files(tmp_path / "in", FILES))
    for store in (with_it, without, with_it):
        record = store.use(KEY)
        assert record is not None
        assert read_tree(store.materialise(record).path) == FILES


def test_a_digest_that_the_kernel_no_longer_has_breaks_the_seal(tmp_path: Path) -> None:
    """As after root took the file's flag away: the bytes are read, and the row is made anew."""
    store = Store.open(tmp_path / "store")
    publish(store, write_files(tmp_path / "in", FILES))
    record = store.use(KEY)
    assert record is not None
    store.index.put("sealed-verity", KEY, "another")
    assert store.use(KEY) is not None
    assert store.index.get("sealed-verity", KEY) != "another"


def test_what_is_no_file_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "none")
    assert not verity.enable(tmp_path / "link")
    assert not verity.enable(tmp_path / "none")
    assert verity.measured(tmp_path, tmp_path.lstat()) is None
