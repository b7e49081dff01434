"""Every byte of what the store keeps, changed or cut off in turn: the same artifact or none, and a build mends it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.faults import memory
from tests.store.support import FILES, KEY, publish, read_tree, write_files
from trtstore import Index, Record, Store
from trtstore.disk.layout import STAMP

PLACES = 120  # of the index's database, which is a few pages of SQLite
VALUES = {f"key-{number}": "5e" * 32 for number in range(20)}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: what is spoilt here is what programs read, and no disk needs to hear of thousands of writes."""
    with memory.folder() as folder:
        yield folder


class Shelf:
    """A store with one artifact, whose files a test spoils and puts back."""

    def __init__(self, tmp_path: Path) -> None:
        self.store = Store.open(tmp_path / "store", durability="fast")
        self.folder = write_files(tmp_path / "out")
        log = tmp_path / "log"
        log.write_bytes(b"words")
        self.more = {"labels": {"model": "tiny"}, "predicate": {"n": 1.5}, "attachments": {"log": log}}
        self.record = self.publish()
        self.heard: list[str] = []

    def publish(self) -> Record:
        return publish(self.store, self.folder, **self.more)

    def lookup(self) -> Record | None:
        return self.store.lookup(KEY, on_problem=self.heard.append)

    @property
    def record_path(self) -> Path:
        return self.store.root / "v1" / "records" / KEY[:2] / KEY

    def blob_path(self, digest: str) -> Path:
        path = self.store.blob_path(digest)
        assert path is not None
        return path


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def spoil(path: Path, data: bytes) -> None:
    """Write `data` over the file, as a disk or a program might, and hide it: the mode and times stay."""
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, (STAMP, STAMP))


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


def artifact(record: Record) -> tuple[object, ...]:
    return (
        record.key,
        record.manifest,
        record.bytes,
        record.files,
        sorted(record.attachments.values(), key=str),
    )


def check_same_or_healed(shelf: Shelf) -> bool:
    """Whether the spoilt store still had the artifact; it has in any case after one more publish."""
    found = shelf.lookup()
    if found is None:
        assert shelf.publish() == shelf.record
        assert shelf.lookup() == shelf.record
        return False
    assert artifact(found) == artifact(shelf.record)
    return True


def every_third(data: bytes) -> range:
    """Places for what builds again at each; another run begins elsewhere."""
    return range(random.randrange(3), len(data), 3)  # dice, no secret


def test_a_record_with_any_bit_flipped_is_the_same_artifact_or_none(shelf: Shelf) -> None:
    data = shelf.record_path.read_bytes()
    misses = 0
    for place in range(len(data)):
        for bit in range(8):
            spoil(shelf.record_path, flipped(data, place, bit))
            found = shelf.lookup()
            misses += found is None
            # A record is unsigned, so its words for people may differ; what it leads to may not.
            assert found is None or artifact(found) == artifact(shelf.record)
    assert misses > 5 * len(data)


def test_a_record_with_any_byte_changed_is_replaced_by_the_next_build(shelf: Shelf) -> None:
    data = shelf.record_path.read_bytes()
    kept = 0
    for place in every_third(data):
        spoil(shelf.record_path, flipped(data, place, place % 7))
        kept += check_same_or_healed(shelf)
    assert kept < len(data) / 6
    spoil(shelf.record_path, data)
    assert read_tree(shelf.store.materialise(shelf.record).path) == FILES


def test_a_record_of_any_shorter_length_is_replaced_by_the_next_build(shelf: Shelf) -> None:
    data = shelf.record_path.read_bytes()
    for length in every_third(data):
        spoil(shelf.record_path, data[:length])
        assert not check_same_or_healed(shelf)


def test_a_manifest_with_any_bit_flipped_is_a_miss_and_is_replaced(shelf: Shelf) -> None:
    path = shelf.blob_path(shelf.record.manifest)
    data = path.read_bytes()
    for place in range(len(data)):
        for bit in range(8):
            spoil(path, flipped(data, place, bit))
            assert shelf.lookup() is None
    heal_by_deletion(shelf, path, data)


def test_a_manifest_of_any_shorter_length_is_a_miss_and_is_replaced(shelf: Shelf) -> None:
    path = shelf.blob_path(shelf.record.manifest)
    data = path.read_bytes()
    for length in range(len(data)):
        spoil(path, data[:length])
        assert not check_same_or_healed(shelf)
        assert path.read_bytes() == data


def heal_by_deletion(shelf: Shelf, path: Path, data: bytes) -> None:
    path.unlink()
    assert not check_same_or_healed(shelf)
    assert path.read_bytes() == data


def test_a_manifest_of_the_right_size_and_times_with_other_bytes_is_replaced_by_the_next_build(
    shelf: Shelf,
) -> None:
    path = shelf.blob_path(shelf.record.manifest)
    data = path.read_bytes()
    for place in every_third(data):
        spoil(path, flipped(data, place, place % 8))
        assert not check_same_or_healed(shelf)
        assert path.read_bytes() == data


def test_a_blob_with_other_times_is_seen_and_replaced_at_any_byte(shelf: Shelf) -> None:
    path = shelf.blob_path(f"sha256:{sha_of(FILES['engine.bin'])}")
    for place in range(0, len(FILES["engine.bin"]), 40):
        spoil(path, flipped(FILES["engine.bin"], place, place % 8))
        os.utime(path)
        assert not check_same_or_healed(shelf)
        assert path.read_bytes() == FILES["engine.bin"]


def test_a_blob_of_any_shorter_length_is_seen_whatever_its_times_say(shelf: Shelf) -> None:
    path = shelf.blob_path(f"sha256:{sha_of(FILES['engine.bin'])}")
    for length in range(0, len(FILES["engine.bin"]), 40):
        spoil(path, FILES["engine.bin"][:length])
        assert not check_same_or_healed(shelf)
        assert path.read_bytes() == FILES["engine.bin"]


def test_a_right_blob_with_other_times_is_healed_by_a_lookup(shelf: Shelf) -> None:
    path = shelf.blob_path(f"sha256:{sha_of(FILES['engine.bin'])}")
    os.utime(path)
    assert shelf.lookup() == shelf.record
    assert path.stat().st_mtime == STAMP
    assert shelf.heard == []


def test_swapped_blobs_of_one_size_are_seen_by_their_times_and_only_by_those(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", durability="fast")
    record = publish(store, write_files(tmp_path / "out", {"a": b"aaaa", "b": b"bbbb"}))
    first, second = (store.blob_path(f"sha256:{sha_of(data)}") for data in (b"aaaa", b"bbbb"))
    assert first is not None
    assert second is not None
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    # Nothing but reading the bytes tells: a lookup reads none, by design, and a verify does.
    assert store.lookup(KEY) == record
    os.utime(first)
    heard: list[str] = []
    assert store.lookup(KEY, on_problem=heard.append) is None
    os.utime(second)
    assert publish(store, tmp_path / "out") == record
    assert (first.read_bytes(), second.read_bytes()) == (b"aaaa", b"bbbb")


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A sound index's database, kept aside."""
    index = Index(tmp_path / "sound")
    for key, value in VALUES.items():
        index.put("t", key, value)
    return tmp_path / "sound" / "cache.db"


def planted(tmp_path: Path, data: bytes) -> Path:
    folder = tmp_path / "planted"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    (folder / "cache.db").write_bytes(data)
    return folder


def read(folder: Path) -> list[object]:
    index = Index(folder)
    return [index.get("t", key) for key in VALUES]


def takes_rows(folder: Path) -> bool:
    index = Index(folder)
    for _ in range(2):  # the first may be what finds the damage
        index.put("t", "new", 1)
    return Index(folder).get("t", "new") == 1


def test_an_index_with_any_bit_flipped_fails_nothing(tmp_path: Path, database: Path) -> None:
    data = database.read_bytes()
    for number in range(PLACES):
        place = number * len(data) // PLACES
        folder = planted(tmp_path, flipped(data, place, number % 8))
        assert len(read(folder)) == len(VALUES)
        takes_rows(folder)


def test_an_index_with_any_bit_flipped_takes_new_rows(tmp_path: Path, database: Path) -> None:
    data = database.read_bytes()
    deaf = []
    for number in range(PLACES):
        place = number * len(data) // PLACES
        if not takes_rows(planted(tmp_path, flipped(data, place, number % 8))):
            deaf.append(place)
    assert deaf == []


def test_an_index_whose_words_are_no_text_takes_new_rows(tmp_path: Path, database: Path) -> None:
    """What sqlite3 raises differs: by the place, as text or as a value."""
    data = database.read_bytes()
    start = data.index(b"CREATE INDEX Cache_expire_time")
    for place in range(start, start + 60):
        assert takes_rows(planted(tmp_path, flipped(data, place, 7)))


def test_an_index_whose_columns_have_other_names_takes_new_rows(tmp_path: Path, database: Path) -> None:
    data = database.read_bytes().replace(b"access_count INTEGER", b"accexs_count INTEGER")
    assert data != database.read_bytes()
    assert takes_rows(planted(tmp_path, data))


def test_an_index_of_any_shorter_length_is_read_right_or_as_empty(tmp_path: Path, database: Path) -> None:
    data = database.read_bytes()
    for number in range(PLACES // 3):
        found = read(planted(tmp_path, data[: number * 3 * len(data) // PLACES]))
        assert set(found) <= {None, "5e" * 32}


def test_an_index_row_with_a_bit_flipped_is_right_or_a_miss(tmp_path: Path, database: Path) -> None:
    data = database.read_bytes()
    start = data.index(json.dumps(VALUES["key-7"]).encode())
    for place in range(start, start + 66):
        found = read(planted(tmp_path, flipped(data, place, 0)))
        assert set(found) <= {None, "5e" * 32}
