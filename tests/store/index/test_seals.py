"""Bytes that were changed behind their times are read before they are used, and what nobody touched is not."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.support import KEY, OTHER, publish, python, read_tree, write_files
from trtstore import Corrupt, Record, Store
from trtstore.exchange import bundle
from trtstore.format.digest import hash_bytes
from trtstore.upkeep.maintenance import Maintenance

BIG = b"weights!" * 20_000
FILES = {"engine.bin": BIG, "sub/config.json": b"{}"}

_opened: list[str] | None = None


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event == "open":
        _opened.append(str(arguments[0]))


sys.addaudithook(_hear)


@contextmanager
def opened(store: Store, digits: str) -> Iterator[list[str]]:
    """Names that were opened meanwhile and hold this blob: itself, and files of trees that are named as in FILES."""
    global _opened  # a hook cannot be taken away again
    _opened, found = [], list[str]()
    try:
        yield found
    finally:
        wanted = (digits, "engine.bin", "run")
        found += [path for path in _opened if str(store.root) in path and path.endswith(wanted)]
        _opened = None


class Shelf:
    """A store with one artifact, and its tree."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.heard: list[str] = []
        self.store = Store.open(home / "store", durability="fast")
        self.record = publish(self.store, write_files(home / "out", FILES))
        self.tree = self.store.materialise(self.record).path
        self.digits = hash_bytes(BIG)
        self.blob = self.store._layout.blob(self.digits)

    def again(self) -> Store:
        """The store as another process opens it: with no memory but the index."""
        self.store.close()
        self.store = Store.open(self.home / "store", durability="fast")
        return self.store

    def use(self, key: str = KEY) -> Record | None:
        return self.again().use(key, on_problem=self.heard.append)

    def reads(self, key: str = KEY) -> list[str]:
        """What a hit reads of the large blob."""
        store = self.again()
        with opened(store, self.digits) as found:
            record = store.use(key)
            assert record is not None
            store.materialise(record)
        return found


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def edit(path: Path, place: int = 100) -> None:
    """Change one byte in place, and put mode and time back."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    path.chmod(before.st_mode & 0o777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def replace(path: Path) -> None:
    """Put another file of the same size, mode and time in its place."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    edit(other)
    other.replace(path)


def edit_by_the_tree(shelf: Shelf) -> None:
    edit(shelf.tree / "engine.bin")


def edit_the_blob(shelf: Shelf) -> None:
    edit(shelf.blob)


def replace_the_blob(shelf: Shelf) -> None:
    replace(shelf.blob)


def edit_a_small_file(shelf: Shelf) -> None:
    edit(shelf.tree / "sub" / "config.json", 0)


def edit_without_an_index(shelf: Shelf) -> None:
    shelf.store.close()
    shutil.rmtree(shelf.store._layout.index)
    edit(shelf.blob)


EDITS = [edit_by_the_tree, edit_the_blob, replace_the_blob, edit_a_small_file, edit_without_an_index]


@pytest.mark.parametrize("spoil", EDITS)
def test_a_use_finds_bytes_that_were_changed_and_dated_back(shelf: Shelf, spoil: Callable[[Shelf], None]) -> None:
    spoil(shelf)
    assert shelf.use() is None
    assert shelf.heard
    assert any((shelf.store._layout.quarantine).iterdir())
    again = publish(shelf.store, shelf.home / "out")
    assert again == shelf.use() == shelf.record
    assert read_tree(shelf.store.materialise(again).path) == FILES


@pytest.mark.parametrize("spoil", EDITS)
def test_no_folder_is_handed_out_with_such_bytes(shelf: Shelf, spoil: Callable[[Shelf], None]) -> None:
    spoil(shelf)
    with pytest.raises(Corrupt):
        shelf.again().materialise(shelf.record)
    assert shelf.store.lookup(KEY, on_problem=lambda _: None) is None  # quarantined: the next build replaces it
    publish(shelf.store, shelf.home / "out")
    with shelf.store.reading(shelf.record) as made:
        assert read_tree(made.path) == FILES


@pytest.mark.parametrize("spoil", EDITS)
def test_a_publish_replaces_them(shelf: Shelf, spoil: Callable[[Shelf], None]) -> None:
    spoil(shelf)
    shelf.again()
    publish(shelf.store, shelf.home / "out")
    assert read_tree(shelf.store.materialise(shelf.record).path) == FILES
    assert Maintenance(shelf.store).verify() == []


@pytest.mark.parametrize("spoil", EDITS)
def test_an_import_replaces_them(shelf: Shelf, spoil: Callable[[Shelf], None]) -> None:
    file = io.BytesIO()
    bundle.export_to(shelf.store, [KEY], file)
    spoil(shelf)
    file.seek(0)
    list(bundle.import_from(shelf.again(), file))
    assert read_tree(shelf.store.materialise(shelf.record).path) == FILES
    assert Maintenance(shelf.store).verify() == []


def test_an_export_refuses_them(shelf: Shelf) -> None:
    edit(shelf.blob)
    with pytest.raises(Corrupt):
        bundle.export_to(shelf.store, [KEY], io.BytesIO())


def test_a_copy_in_a_tree_that_was_changed_and_dated_back_is_made_anew(shelf: Shelf) -> None:
    out = write_files(shelf.home / "program", {"run": BIG})
    (out / "run").chmod(0o755)
    record = publish(shelf.store, out, OTHER)  # an executable file is a copy of its blob
    copy = shelf.store.materialise(record).path / "run"
    edit(copy)
    assert shelf.use(OTHER) == record  # the blob is as it was
    assert read_tree(shelf.store.materialise(record).path) == {"run": BIG}
    assert shelf.reads(OTHER) == []


def test_a_hit_reads_nothing_of_what_nobody_touched(shelf: Shelf) -> None:
    assert shelf.reads() == []


def test_a_hit_adds_no_row(shelf: Shelf) -> None:
    shelf.use()

    def rows() -> dict[str, object]:
        return {table: shelf.store.index.items(table) for table in ("seal", "sealed", "sealed-tree")}

    before = rows()
    shelf.reads()
    assert rows() == before


def lose_the_index(shelf: Shelf) -> None:
    shelf.store.close()
    shutil.rmtree(shelf.store._layout.index)


def change_the_mode(shelf: Shelf) -> None:
    shelf.blob.chmod(0o644)


def link_elsewhere(shelf: Shelf) -> None:
    os.link(shelf.blob, shelf.home / "elsewhere")


def copy_the_store(shelf: Shelf) -> None:
    shelf.store.close()
    shelf.store.root.rename(shelf.home / "before")
    shutil.copytree(shelf.home / "before", shelf.store.root, symlinks=True)


@pytest.mark.parametrize("touch", [lose_the_index, change_the_mode, link_elsewhere, copy_the_store])
def test_what_was_touched_and_is_right_is_read_once(shelf: Shelf, touch: Callable[[Shelf], None]) -> None:
    touch(shelf)
    assert shelf.reads() != []
    assert shelf.reads() == []
    assert read_tree(shelf.store.materialise(shelf.record).path) == FILES


def test_the_stores_own_links_break_no_seal(shelf: Shelf) -> None:
    other = publish(shelf.store, write_files(shelf.home / "other", {"engine.bin": BIG, "b": b"b"}), OTHER)
    assert shelf.reads() == []
    shelf.again().materialise(other)
    assert shelf.reads() == shelf.reads(OTHER) == []
    publish(shelf.again(), shelf.home / "out")
    assert shelf.reads() == shelf.reads(OTHER) == []
    file = io.BytesIO()
    bundle.export_to(shelf.store, [KEY], file)
    file.seek(0)
    list(bundle.import_from(shelf.again(), file))
    assert shelf.reads() == shelf.reads(OTHER) == []
    Maintenance(shelf.again()).pin(KEY)
    Maintenance(shelf.store).collect(0, grace=0)  # takes a tree whose file was a link to a blob that stays
    assert [*shelf.store.keys()] == [KEY]
    assert shelf.reads() == []


def test_rows_go_with_what_they_are_about(shelf: Shelf) -> None:
    Maintenance(shelf.store).collect(0, grace=0)
    for table in ("seal", "sealed", "sealed-tree"):
        assert shelf.store.index.items(table) == {}


MATERIALISE = """
import sys
from pathlib import Path
from trtstore import Store
store = Store.open(Path(sys.argv[1]), durability="fast")
for key in sys.argv[2:]:
    store.materialise(store.use(key))
"""


def test_many_that_link_and_seal_at_once_end_with_sound_seals(shelf: Shelf) -> None:
    keys = [hash_bytes(b"%d" % number) for number in range(6)]
    for key in keys:
        publish(shelf.store, write_files(shelf.home / key, {"engine.bin": BIG, "key": key.encode()}), key)
    orders = [keys, keys[::-1], keys[3:] + keys[:3]]
    running = [python(MATERIALISE, shelf.store.root, *order) for order in orders]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    for key in keys:
        shelf.reads(key)  # at most once more
    assert [shelf.reads(key) for key in keys] == [[]] * len(keys)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_read_by_each_command_and_copied_for_loading(shelf: Shelf) -> None:
    os.chown(shelf.blob, 12345, 12345)
    shutil.rmtree(shelf.tree)
    assert shelf.reads() != []
    assert shelf.reads() != []
    loaded = shelf.store.materialise(shelf.record).path / "engine.bin"
    assert loaded.stat().st_uid == os.geteuid()
    assert not loaded.samefile(shelf.blob)
    edit(shelf.blob)
    assert read_tree(shelf.tree) == FILES
