"""All records at a glance: as fresh as the folders, parsed once each, and nothing lost with what was remembered."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.store.support import KEY, OTHER, publish, write_files
from trtstore import Record, Store
from trtstore.upkeep.catalog import SPLIT, Summary
from trtstore.upkeep.maintenance import Maintenance


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", durability="fast")


@pytest.fixture
def upkeep(store: Store) -> Maintenance:
    return Maintenance(store)


@pytest.fixture
def record(store: Store, tmp_path: Path) -> Record:
    return publish(store, write_files(tmp_path / "out"))


def listed(upkeep: Maintenance) -> tuple[dict[str, Summary], int]:
    """The catalog by key, and how many records were parsed for it; both ways to ask say the same."""
    told: list[int] = []
    found = {s.key: s for s, _ in upkeep.catalog.named(told.append)}
    quick = {s.key: s for s in upkeep.catalog.summaries()}
    # Use is exact in the one that looks at each file, and only that one reads manifests.
    assert {key: s._replace(used=s.stored) for key, s in found.items()} == quick
    return found, (told or [0])[-1]


def test_a_record_is_parsed_once_and_again_when_it_is_another(
    store: Store, upkeep: Maintenance, record: Record, tmp_path: Path
) -> None:
    publish(store, write_files(tmp_path / "other", {"a": b"a"}), OTHER, labels={"model": "tiny"})
    found, parsed = listed(upkeep)
    assert (set(found), parsed) == ({KEY, OTHER}, 2)
    assert found[OTHER].labels == {"model": "tiny"}
    assert found[KEY].manifest == record.manifest.partition(":")[2]
    assert (found[KEY].bytes, found[KEY].files) == (record.bytes, record.files)
    assert {s.key: len(blobs) for s, blobs in upkeep.catalog.named()} == {KEY: 3, OTHER: 2}
    assert listed(upkeep) == (found, 0)
    assert listed(Maintenance(Store.open(store.root))) == (found, 0)  # another process
    place = store.root / "v1" / "records" / OTHER[:2] / OTHER
    place.unlink()
    publish(store, tmp_path / "other", OTHER, labels={"model": "large"})
    found, parsed = listed(upkeep)
    assert (found[OTHER].labels, parsed) == ({"model": "large"}, 1)
    shutil.copyfile(store.root / "v1" / "records" / KEY[:2] / KEY, place.with_name(OTHER[:-1] + "0"))
    found, parsed = listed(upkeep)
    assert found[OTHER[:-1] + "0"].manifest == ""  # another key's record is unusable


@pytest.mark.usefixtures("record")
def test_what_is_remembered_of_a_record_goes_with_it(store: Store, upkeep: Maintenance) -> None:
    near = KEY[:-1] + "0"  # of the same row
    publish(store, store.root.parent / "out", near)
    assert set(listed(upkeep)[0]) == {KEY, near}
    for key, left in ((near, {KEY}), (KEY, set[str]())):
        (store.root / "v1" / "records" / key[:2] / key).unlink()
        assert set(listed(upkeep)[0]) == left
        for table in ("catalog", "references"):
            assert set(store.index.get(table, KEY[:2])["rows"]) == left


def test_without_its_index_a_store_lists_the_same(store: Store, upkeep: Maintenance, record: Record) -> None:
    before, _ = listed(upkeep)
    store.close()
    shutil.rmtree(store.root / "v1" / "index")
    again = Maintenance(Store.open(store.root))
    assert listed(again) == (before, 1)
    assert listed(again) == (before, 0)
    assert store.lookup(KEY) == record


@pytest.mark.parametrize("row", [7, [], {KEY: 1}, {KEY: [[0, 0, 0], 1]}, {KEY: [1, 2, 3]}])
def test_a_row_of_another_shape_is_read_again(store: Store, upkeep: Maintenance, record: Record, row: object) -> None:
    before, _ = listed(upkeep)
    store.index.put("catalog", KEY[:2], row)  # type: ignore[arg-type]
    store.index.put("references", KEY[:2], row)  # type: ignore[arg-type]
    assert listed(upkeep) == (before, 1)
    assert before[KEY].bytes == record.bytes


def test_a_crowded_shard_is_listed_whole(store: Store, upkeep: Maintenance, record: Record) -> None:
    keys = [f"aa{number:02x}" + "0" * 60 for number in range(256)]
    assert len(keys) > SPLIT
    for key in keys:
        publish(store, store.root.parent / "out", key)
    found, parsed = listed(upkeep)
    assert (set(found), parsed) == ({KEY, *keys}, 257)
    assert {summary.manifest for summary in found.values()} == {record.manifest.partition(":")[2]}
    assert listed(upkeep) == (found, 0)
    assert len(store.index.get("references", "aaf")["rows"]) == 16  # its rows are split by the third digit


def test_a_listing_sees_what_came_and_went_and_looks_at_no_file_where_nothing_did(
    store: Store, upkeep: Maintenance, record: Record
) -> None:
    shard = store.root / "v1" / "records" / KEY[:2]
    listed(upkeep)
    # A folder that changed just now is looked at each time: its time stamp may not show the next change.
    near = KEY[:-1] + "0"
    publish(store, store.root.parent / "out", near)
    assert set(listed(upkeep)[0]) == {KEY, near}
    (shard / near).unlink()
    assert set(listed(upkeep)[0]) == {KEY}
    os.utime(shard, (1_000_000_000, 1_000_000_000))
    assert [s.bytes for s in upkeep.catalog.summaries()] == [record.bytes]
    # From now on the folder's time answers: a record that changes in place is seen by those who read it alone.
    (shard / KEY).chmod(0o644)
    (shard / KEY).write_bytes(b"{}")
    assert [s.bytes for s in upkeep.catalog.summaries()] == [record.bytes]
    assert [s.manifest for s, _ in upkeep.catalog.named()] == [""]
    assert store.lookup(KEY, on_problem=lambda _: None) is None
