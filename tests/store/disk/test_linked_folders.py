"""A folder of the store that is a link to elsewhere: nobody writes, collects or verifies, and nothing there changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.support import FILES, KEY, OTHER, publish, read_tree, write_files
from tests.store.test_hostile_folders import snapshot
from trtstore import Corrupt, Invalid, Store
from trtstore.content.verify import total_bytes
from trtstore.exchange.layered import Layered
from trtstore.transfer.readonly import ReadOnly
from trtstore.upkeep.maintenance import Maintenance

FOLDERS = [
    "blobs",
    "blobs/sha256",
    "blobs/sha256/*",
    "records",
    "records/*",
    "trees",
    "roots",
    "pins",
    "quarantine",
    "locks",
    "tmp",
    "index",
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One with something in each folder that a collection or a verify would take away."""
    made = Store.open(tmp_path / "store", durability="fast")
    record = publish(made, write_files(tmp_path / "out"))
    made.add_root(tmp_path / "link", record)
    (tmp_path / "link").unlink()
    publish(made, write_files(tmp_path / "other", {"a": b"a"}), OTHER)
    Maintenance(made).pin(OTHER, "for the test")
    made.index.put("t", "k", 1)
    base = made.root / "v1"
    blob = next(path for path in (base / "blobs").rglob("*") if path.is_file() and path.read_bytes() == b"a")
    blob.chmod(0o644)
    blob.write_bytes(b"b")
    (base / "quarantine").mkdir()
    (base / "quarantine" / "old").write_bytes(b"")
    (base / "tmp" / "dead").mkdir()
    (base / "locks" / f"build-{OTHER}").write_bytes(b"")
    made.close()
    return made


def lead_away(store: Store, name: str, outside: Path) -> list[Path]:
    """Move the folders to `outside`, each with a link in its place; returns the links."""
    outside.mkdir()
    folders = sorted((store.root / "v1").glob(name))
    for folder in folders:
        folder.rename(outside / folder.name)
        folder.symlink_to(outside / folder.name)
    assert folders
    return folders


UPKEEP: dict[str, Callable[[Store], object]] = {
    "collect": lambda store: Maintenance(store).collect(0, grace=0.0),
    "plan": lambda store: Maintenance(store).collect(0, grace=0.0, dry_run=True),
    "verify": lambda store: Maintenance(store).verify(),
    "verify one": lambda store: Maintenance(store).verify([KEY]),
    "total": lambda store: total_bytes(store._layout),
}


@pytest.mark.parametrize("does", UPKEEP)
@pytest.mark.parametrize("name", FOLDERS)
def test_upkeep_refuses_a_store_with_a_linked_folder_and_changes_nothing(
    store: Store, tmp_path: Path, name: str, does: str
) -> None:
    links = lead_away(store, name, tmp_path / "outside")
    before = snapshot(tmp_path / "outside"), snapshot(tmp_path / "store")
    with pytest.raises(Invalid, match="is a symbolic link") as caught:
        UPKEEP[does](store)
    assert any(str(link) in caught.value.message for link in links)
    assert "remove the link" in str(caught.value.hint)
    assert (snapshot(tmp_path / "outside"), snapshot(tmp_path / "store")) == before


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", "blobs/sha256/*", "records", "records/*"])
def test_a_record_behind_a_link_is_a_miss_that_is_told(store: Store, tmp_path: Path, name: str) -> None:
    lead_away(store, name, tmp_path / "outside")
    for reader in (store, ReadOnly.open(store.root)):
        heard: list[str] = []
        assert reader.lookup(KEY, on_problem=heard.append) is None
        (words,) = heard
        assert "is a symbolic link" in words
        with pytest.raises(Corrupt, match="is a symbolic link"):
            reader.envelope(KEY) if name.startswith("records") else reader.manifest(manifest_of(store, name))


def manifest_of(store: Store, name: str):
    """The record, read while the folders are where they belong."""
    links = sorted((store.root / "v1").glob(name))
    targets = [link.readlink() for link in links]
    for link, target in zip(links, targets, strict=True):
        link.unlink()
        target.rename(link)
    record = store.lookup(KEY)
    for link, target in zip(links, targets, strict=True):
        link.rename(target)
        link.symlink_to(target)
    assert record is not None
    return record


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", "records", "locks", "tmp"])
def test_a_build_into_a_store_with_a_linked_folder_is_one_error_that_names_it(
    store: Store, tmp_path: Path, name: str
) -> None:
    (link,) = lead_away(store, name, tmp_path / "outside")
    before = snapshot(tmp_path / "outside")
    with pytest.raises(Invalid, match=f"{link} is a symbolic link"):
        publish(store, tmp_path / "out", "77" * 32)
    assert snapshot(tmp_path / "outside") == before


USES: dict[str, Callable[[Store, Path], object]] = {
    "trees": lambda store, home: store.add_root(home / "new", publish(store, home / "out")),
    "roots": lambda store, home: store.add_root(home / "new", publish(store, home / "out")),
    "pins": lambda store, _: Maintenance(store).pin(KEY),
}


@pytest.mark.parametrize("name", USES)
def test_what_writes_behind_a_link_is_one_error_that_names_it(store: Store, tmp_path: Path, name: str) -> None:
    (link,) = lead_away(store, name, tmp_path / "outside")
    before = snapshot(tmp_path / "outside")
    with pytest.raises(Invalid, match=f"{link} is a symbolic link"):
        USES[name](store, tmp_path)
    assert snapshot(tmp_path / "outside") == before
    assert not os.path.lexists(tmp_path / "new")


def test_lists_do_not_look_behind_a_link(store: Store, tmp_path: Path) -> None:
    upkeep = Maintenance(store)
    for name, listing in (
        ("records", lambda: list(store.keys())),
        ("roots", upkeep.roots),
        ("pins", upkeep.pins),
    ):
        (link,) = lead_away(store, name, tmp_path / name)
        with pytest.raises(Invalid, match=f"{link} is a symbolic link"):
            listing()
    with pytest.raises(Invalid, match="pins is a symbolic link"):
        upkeep.unpin(OTHER)
    assert (tmp_path / "pins" / "pins" / OTHER).exists()


def test_a_layered_store_says_that_its_own_folder_is_a_link(store: Store, tmp_path: Path) -> None:
    # Not "passed over": the other store is whole, and this one cannot take anything.
    other = Store.open(tmp_path / "upstream", durability="fast")
    publish(other, tmp_path / "out", "77" * 32)
    lead_away(store, "blobs", tmp_path / "outside")
    with pytest.raises(Invalid, match="blobs is a symbolic link"):
        Layered(store, [other]).lookup("77" * 32)


@pytest.mark.parametrize("link", ["store", "store/v1"])
def test_the_root_and_the_folder_of_the_format_may_be_links(tmp_path: Path, link: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "elsewhere")
    store = Store.open(tmp_path / "store", durability="fast")
    record = publish(store, write_files(tmp_path / "out"))
    assert store.lookup(KEY) == record
    store.add_root(tmp_path / "link", record)
    assert read_tree(tmp_path / "link") == FILES
    upkeep = Maintenance(store)
    assert upkeep.verify() == []
    (root,) = upkeep.roots()
    assert root.tree == record.manifest.partition(":")[2]
    assert [decision.kind for decision in upkeep.collect(0, grace=0.0).removed] == []
    (tmp_path / "link").unlink()
    assert "record" in {decision.kind for decision in upkeep.collect(0, grace=0.0).removed}
