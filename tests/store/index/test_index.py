"""The index saves time and can do nothing else: no planted row is executed or followed, and none fails a build."""

from __future__ import annotations

import hashlib
import os
import pickle
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.store.disks import mounted
from tests.store.support import python, write_files
from trtstore import Corrupt, Index, Invalid, StoreFailure, hash_files
from trtstore.index.index import _sum, _text
from trtstore.index.index_schema import _expected, connect


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "v1" / "index"


def plant(folder: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(folder / "cache.db") as database:
        database.execute(sql, values)
    database.close()


def test_what_is_put_is_there_for_another_process(folder: Path) -> None:
    Index(folder).put("last-use", "a key", {"at": 1.5, "n": [1, None, "é"]})
    assert Index(folder).get("last-use", "a key") == {"at": 1.5, "n": [1, None, "é"]}
    assert Index(folder).get("other", "a key") is None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    code = (
        "import sys; from pathlib import Path; from trtstore import Index; "
        "print(Index(Path(sys.argv[1])).get('last-use', 'a key')['at'])"
    )
    assert python(code, folder).communicate()[0] == "1.5\n"


def test_get_creates_nothing(folder: Path) -> None:
    assert Index(folder).get("last-use", "a key") is None
    assert not folder.parent.exists()


@pytest.mark.parametrize("mode", [1, 2, 3, 4, 5, "x", None])
def test_a_planted_row_is_a_miss_and_nothing_is_executed(folder: Path, tmp_path: Path, mode: object) -> None:
    Index(folder).put("t", "k", "good")
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    plant(folder, "UPDATE Cache SET mode = ?, value = ?", mode, bomb)
    assert Index(folder).get("t", "k") is None
    assert not (tmp_path / "exploded").exists()
    Index(folder).put("t", "k", "again")
    assert Index(folder).get("t", "k") == "again"


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
def test_a_row_that_names_a_file_is_a_miss_and_the_file_is_neither_read_nor_removed(
    folder: Path, tmp_path: Path, mode: int
) -> None:
    Index(folder).put("t", "k", "good")
    outside = tmp_path / "v1" / "x"
    outside.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    plant(folder, "UPDATE Cache SET mode = ?, filename = '../x', value = NULL", mode)
    assert Index(folder).get("t", "k") is None
    Index(folder).put("t", "k", "again")  # diskcache removes the file of the row that it replaces
    assert outside.exists()
    assert not (tmp_path / "exploded").exists()
    assert Index(folder).get("t", "k") == "again"


NO_TEXT = [b"\xff\xfe", 7, 1.5, None]
NO_JSON = ["", "{", "NaN?", "[" * 100_000, '"' + "x" * (1 << 20) + '"']


def check_missed(folder: Path, value: object) -> None:
    Index(folder).put("t", "k", "good")
    plant(folder, "UPDATE Cache SET value = ?", value)
    assert Index(folder).get("t", "k") is None
    assert Index(folder).items("t") == {}


@pytest.mark.parametrize("value", [*NO_TEXT, *NO_JSON], ids=lambda value: repr(value)[:20])
def test_a_row_that_is_no_json_text_is_a_miss(folder: Path, value: object) -> None:
    check_missed(folder, value)


@pytest.mark.parametrize("text", NO_JSON, ids=lambda value: value[:20])
def test_a_row_with_a_right_checksum_that_is_no_json_is_a_miss(folder: Path, text: str) -> None:
    check_missed(folder, _sum("t:k", text) + text)


def test_a_row_whose_checksum_is_that_of_another_row_is_a_miss(folder: Path) -> None:
    index = Index(folder)
    index.put("t", "k", "5e" * 32)
    index.put("t", "other", "0f" * 32)
    plant(folder, "UPDATE Cache SET value = (SELECT value FROM Cache WHERE key = 't:other') WHERE key = 't:k'")
    assert Index(folder).get("t", "k") is None
    assert Index(folder).items("t") == {"other": "0f" * 32}
    index.update("t", "k", lambda old: [old])
    assert Index(folder).get("t", "k") == [None]


def test_the_schema_that_is_expected_is_the_one_that_diskcache_makes(folder: Path) -> None:
    # Else every process would make the index anew.
    Index(folder).put("t", "k", 1)
    inode = (folder / "cache.db").stat().st_ino
    with closing(connect(folder / "cache.db", "ro", 1.0)) as database:
        assert set(database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")) == _expected()
    assert Index(folder).get("t", "k") == 1
    assert (folder / "cache.db").stat().st_ino == inode


def test_a_get_writes_nothing_and_another_version_s_settings_are_put_right(folder: Path) -> None:
    """diskcache itself writes each setting at each opening, and waits for the disk."""
    Index(folder).put("t", "k", 1)
    database = folder / "cache.db"
    before = database.stat().st_mtime_ns
    assert Index(folder).get("t", "k") == 1
    assert database.stat().st_mtime_ns == before
    plant(folder, "UPDATE Settings SET value = 7 WHERE key = 'sqlite_cache_size'")
    plant(folder, "DELETE FROM Settings WHERE key = 'cull_limit'")
    for _ in range(2):
        assert Index(folder).get("t", "k") == 1
        with closing(connect(database, "ro", 1.0)) as opened:
            found = dict(opened.execute("SELECT key, value FROM Settings"))
        assert (found["sqlite_cache_size"], found["cull_limit"]) == (2**13, 0)


def test_a_hundred_thousand_rows_are_read_at_once(folder: Path) -> None:
    index = Index(folder)

    def fill(cache: Any) -> None:
        with cache.transact():
            for number in range(100_000):
                cache.set(f"t:{number}", _text(f"t:{number}", number))

    index._with_cache(fill, create=True)
    assert index.items("t") == {str(number): number for number in range(100_000)}


def test_a_row_of_broken_utf8_is_a_miss(folder: Path) -> None:
    Index(folder).put("t", "k", "good")
    plant(folder, "UPDATE Cache SET value = CAST(x'fffe' AS TEXT)")
    assert Index(folder).get("t", "k") is None


@pytest.mark.parametrize(
    "setting",
    [
        ("_directory", "../elsewhere"),
        ("get", "x"),
        ("disk_min_file_size", "x"),
        ("disk_directory", "/tmp"),  # noqa: S108  # a planted value, never a path that is used
        ("sqlite_cache_size", "1; DROP TABLE Cache"),
        ("eviction_policy", "least-recently-used"),
        ("statistics", 1),
    ],
    ids=str,
)
def test_a_planted_setting_leads_nowhere(folder: Path, setting: tuple[str, object]) -> None:
    Index(folder).put("t", "k", "good")
    plant(folder, "INSERT OR REPLACE INTO Settings VALUES (?, ?)", *setting)
    before = set(folder.parent.iterdir())
    index = Index(folder)
    assert index.get("t", "k") in (None, "good")
    index.put("t", "k", "again")
    assert index.get("t", "k") == "again"
    assert set(folder.parent.iterdir()) == before


def garbage(database: Path) -> None:
    database.write_bytes(b"no database" * 1000)


def empty(database: Path) -> None:
    database.write_bytes(b"")


def no_table(database: Path) -> None:
    plant(database.parent, "DROP TABLE Cache")


def no_column(database: Path) -> None:
    plant(database.parent, "ALTER TABLE Cache DROP COLUMN mode")


def broken_settings(database: Path) -> None:
    plant(database.parent, "UPDATE Settings SET value = CAST(x'fffe' AS TEXT) WHERE key = 'count'")


def a_folder(database: Path) -> None:
    database.unlink()
    write_files(database)


def a_link(database: Path) -> None:
    outside = database.parents[2] / "outside"
    outside.write_bytes(b"keep")
    database.unlink()
    database.symlink_to(outside)


@pytest.mark.parametrize("spoil", [garbage, empty, no_table, no_column, broken_settings, a_folder, a_link])
def test_a_broken_database_is_made_anew(folder: Path, spoil: Callable[[Path], None]) -> None:
    Index(folder).put("t", "k", 1)
    spoil(folder / "cache.db")
    index = Index(folder)
    assert index.get("t", "k") is None
    index.put("t", "k", 2)
    assert index.get("t", "k") == 2
    outside = folder.parents[1] / "outside"
    assert not outside.exists() or outside.read_bytes() == b"keep"


def test_a_database_that_breaks_while_it_is_open_is_made_anew(folder: Path) -> None:
    index = Index(folder)
    for number in range(200):
        index.put("t", str(number), "x" * 500)
    data = bytearray((folder / "cache.db").read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    (folder / "cache.db").write_bytes(data)
    other = Index(folder)
    assert [other.get("t", str(number)) for number in range(3)] == [None] * 3
    other.put("t", "k", 2)
    assert other.get("t", "k") == 2


def test_an_index_that_cannot_be_written_reads_as_empty(folder: Path, tmp_path: Path) -> None:
    folder.parent.mkdir()
    with mounted(folder.parent, "-t", "tmpfs", "-o", "ro", "tmpfs"):
        index = Index(folder)
        index.put("t", "k", 1)
        assert index.get("t", "k") is None
        file = tmp_path / "weights"
        file.write_bytes(b"weights")
        assert index.file_digest(file) == hashlib.sha256(b"weights").hexdigest()


def test_an_index_folder_that_is_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.parent.mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    folder.symlink_to(tmp_path / "elsewhere")
    index = Index(folder)
    index.put("t", "k", 1)
    assert index.get("t", "k") is None
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755


def test_eight_processes_that_open_an_absent_index_lose_nothing(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trtstore import Index\n"
        "for n in range(5): Index(Path(sys.argv[1])).put('t', sys.argv[2] + str(n), n)"
    )
    processes = [python(code, folder, letter) for letter in "abcdefgh"]
    assert [process.wait(timeout=60) for process in processes] == [0] * 8
    index = Index(folder)
    assert [index.get("t", f"{letter}{n}") for letter in "abcdefgh" for n in range(5)] == [*range(5)] * 8


def test_what_is_no_json_is_the_callers_mistake(folder: Path) -> None:
    index = Index(folder)
    with pytest.raises(TypeError):
        index.put("t", "k", {1, 2})
    with pytest.raises(ValueError, match="JSON"):
        index.put("t", "k", float("nan"))
    with pytest.raises(ValueError, match="table"):
        index.put("../t", "k", 1)


def old(path: Path, data: bytes) -> Path:
    """A file that has not changed for a while, as far as its times say; ctime cannot be set, so wait for it."""
    path.write_bytes(data)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def read_bytes_of(index: Index, path: Path) -> tuple[str, int]:
    """(digest, how many times the file was reported in chunks): 1 for a memo, more for a file of many chunks."""
    counts: list[int] = []
    return index.file_digest(path, on_bytes=counts.append), len(counts)


@pytest.mark.slow
def test_a_digest_is_remembered_until_the_file_changes(folder: Path, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    file = old(tmp_path / "weights", data)
    digest = hashlib.sha256(data).hexdigest()
    assert read_bytes_of(Index(folder), file) == (digest, 3)
    assert read_bytes_of(Index(folder), file) == (digest, 3)  # its ctime is too fresh to be trusted
    time.sleep(2.1)
    assert read_bytes_of(Index(folder), file) == (digest, 3)
    assert read_bytes_of(Index(folder), file) == (digest, 1)
    other = os.urandom(3 << 20)
    old(file, other)  # the same size and mtime: the ctime differs
    assert read_bytes_of(Index(folder), file) == (hashlib.sha256(other).hexdigest(), 3)


def test_files_are_hashed_in_order_with_progress(folder: Path, tmp_path: Path) -> None:
    contents = [os.urandom(size) for size in (0, 1, 3_000_000, 5)]
    paths = [tmp_path / str(number) for number in range(4)]
    for path, data in zip(paths, contents, strict=True):
        path.write_bytes(data)
    seen: list[tuple[int, int]] = []
    digests = hash_files(paths, Index(folder), lambda done, total: seen.append((done, total)))
    assert digests == [hashlib.sha256(data).hexdigest() for data in contents]
    assert seen[-1] == (3_000_006, 3_000_006)
    assert seen == sorted(seen)
    assert hash_files([], Index(folder)) == []


def test_a_file_that_cannot_be_hashed_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreFailure, match="absent"):
        Index(folder).file_digest(tmp_path / "absent")
    with pytest.raises(Invalid, match="no regular file"):
        Index(folder).file_digest(tmp_path)
    good = old(tmp_path / "good", b"x" * 3_000_000)
    with pytest.raises(StoreFailure, match="absent"):
        hash_files([good, tmp_path / "absent"], Index(folder))


def test_a_file_that_grows_while_it_is_read_is_refused(folder: Path, tmp_path: Path) -> None:
    file = old(tmp_path / "weights", b"x" * 3_000_000)

    def write_more(_count: int) -> None:
        with file.open("ab") as handle:
            handle.write(b"y")

    with pytest.raises(Corrupt, match="weights"):
        Index(folder).file_digest(file, on_bytes=write_more)
