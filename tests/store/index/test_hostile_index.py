"""An index that somebody prepared: rows, triggers, views and links in it execute nothing and touch nothing outside."""

from __future__ import annotations

import os
import pickle
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.index.test_index import Bomb
from tests.store.support import python, write_files
from trtstore import Index

#: Uses the index as a build does; opening or removing anything below `outside`, or running a program, is said.
USER = """
import os, sys
from pathlib import Path
from trtstore import Index
outside = os.path.realpath(sys.argv[2])
def hook(event, arguments):
    texts = [os.fsdecode(a) for a in arguments[:2] if isinstance(a, (str, bytes)) and 0 < len(a) < 4000]
    paths = [os.path.realpath(text) for text in texts]
    if event.startswith(("pickle.", "ctypes.", "os.system", "os.exec", "subprocess.", "sqlite3.load_extension")):
        print("executed", event)
    if event.startswith(("open", "os.", "shutil.")) and any(p.startswith(outside) for p in paths):
        print("touched", event, paths)
sys.addaudithook(hook)
index = Index(Path(sys.argv[1]))
for _ in range(2):
    index.get("t", "k")
    index.put("t", "k", "again")
    index.put("t", "other", "again")
print("value", index.get("t", "k"))
"""

TRIGGER = "CREATE TRIGGER planted AFTER {} ON Cache BEGIN {}; END"
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Index(tmp_path / "v1" / "index").put("t", "k", "good")
    write_files(tmp_path / "outside", {"x": pickle.dumps(Bomb(tmp_path / "exploded"))})
    return tmp_path / "v1" / "index"


def plant(folder: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "cache.db")) as database:
        database.execute(sql, values)
        database.commit()


def said(folder: Path) -> list[str]:
    """What a process that uses the index had to say; it must end soon, whatever the index holds."""
    outside = folder.parents[1] / "outside"
    before = sorted(path.name for path in outside.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", USER, str(folder), str(outside)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in outside.iterdir()) == before
    assert not (folder.parents[1] / "exploded").exists()
    return done.stdout.splitlines()


ROWS: dict[str, tuple[str, tuple[object, ...]]] = {
    "a file below": ("mode = 2, filename = 'x', value = NULL", ()),
    "a file above": ("mode = 2, filename = '../../outside/x', value = NULL", ()),
    "a pickle in a file": ("mode = 4, filename = '../../outside/x', value = NULL", ()),
    "a value and a file": ("filename = '../../outside/x'", ()),
    "ten megabytes": ("value = ?", ('"' + "x" * 10_000_000 + '"',)),
    "ten megabytes of blob": ("value = zeroblob(10000000)", ()),
    "NULL": ("value = NULL", ()),
    "a blob": ("value = ?", (b'"good"',)),
    "a key as blob": ("key = CAST(key AS BLOB)", ()),
    "a key that is not raw": ("raw = 0", ()),
    "times that are text": ("expire_time = 'never', store_time = 'x', access_time = x'00'", ()),
    "a time long ago": ("expire_time = 1.0", ()),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_planted_row_executes_nothing_and_leads_nowhere(folder: Path, row: str) -> None:
    change, values = ROWS[row]
    plant(folder, f"UPDATE Cache SET {change}", *values)  # noqa: S608  # one of ROWS
    assert said(folder) == ["value again"]


def test_a_pickle_in_a_row_is_not_unpickled(folder: Path) -> None:
    plant(folder, "UPDATE Cache SET mode = 4, value = ?", pickle.dumps(Bomb(folder.parents[1] / "exploded")))
    assert said(folder) == ["value again"]


def test_an_absolute_file_of_a_row_is_neither_read_nor_removed(folder: Path) -> None:
    plant(
        folder,
        "UPDATE Cache SET mode = 4, filename = ?",
        str((folder.parents[1] / "outside" / "x").absolute()),
    )
    assert said(folder) == ["value again"]


@pytest.mark.parametrize(
    "sql",
    [
        TRIGGER.format("INSERT", "DELETE FROM Cache"),
        TRIGGER.format("UPDATE", "DELETE FROM Cache"),
        TRIGGER.format("INSERT", "SELECT load_extension('/outside/x')"),
        TRIGGER.format("INSERT", "SELECT RAISE(ABORT, 'no')"),
        TRIGGER.format("INSERT", "UPDATE Settings SET value = '../elsewhere' WHERE key = 'disk_directory'"),
        TRIGGER.format("INSERT", "INSERT INTO Cache (key) VALUES ('more')"),
    ],
)
def test_a_planted_trigger_reaches_nothing_but_its_own_database(folder: Path, sql: str) -> None:
    plant(folder, sql)
    words = said(folder)
    assert len(words) == 1  # nothing executed, nothing touched
    assert words[0] in ("value again", "value good", "value None")


VIEW = (
    "CREATE VIEW Cache AS SELECT 1 AS rowid, 't:k' AS key, 1 AS raw, NULL AS expire_time, NULL AS tag, 1 AS mode, "
    "NULL AS filename, '\"planted\"' AS value, 0 AS store_time, 0 AS access_time, 0 AS access_count, 0 AS size"
)


def test_an_index_with_a_trigger_of_somebody_elses_is_made_anew(folder: Path) -> None:
    # One that never ends would hold up every build.
    plant(folder, TRIGGER.format("INSERT", "DELETE FROM Cache"))
    assert said(folder) == ["value again"]
    with closing(sqlite3.connect(folder / "cache.db")) as database:
        assert database.execute("SELECT * FROM sqlite_master WHERE name = 'planted'").fetchall() == []


def test_an_index_whose_table_is_a_view_is_made_anew(folder: Path) -> None:
    plant(folder, "DROP TABLE Cache")
    plant(folder, VIEW)
    assert said(folder) == ["value again"]


@pytest.mark.parametrize(
    "changes",
    [
        ["CREATE VIEW planted AS SELECT 1"],
        ["CREATE TABLE planted (value)"],
        ["CREATE INDEX planted ON Cache (value)"],
        ["ALTER TABLE Cache ADD COLUMN planted"],
        ["ALTER TABLE Cache DROP COLUMN store_time"],
        ["DROP TRIGGER Settings_size_update"],
        ["DROP INDEX Cache_key_raw"],
        [
            "DROP TABLE Settings",
            f"CREATE VIEW Settings AS {ENDLESS.replace('count(*)', 'x AS key, x AS value')}",
        ],
    ],
    ids=lambda changes: changes[0],
)
def test_an_index_with_another_schema_than_diskcaches_is_made_anew(folder: Path, changes: list[str]) -> None:
    for sql in changes:
        plant(folder, sql)
    assert said(folder) == ["value again"]


def test_a_view_in_place_of_the_table_executes_nothing(folder: Path) -> None:
    plant(folder, "DROP TABLE Cache")
    plant(folder, VIEW)
    assert len(said(folder)) == 1


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    write_files(path, {"inner": b"x"})


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        made.bind(f"/proc/self/fd/{folder}/{path.name}")  # a socket's path has at most 107 bytes
        os.close(folder)


def make_dead_link(path: Path) -> None:
    path.symlink_to("/nowhere")


@pytest.mark.parametrize("make", [make_fifo, make_folder, make_socket, make_dead_link])
@pytest.mark.parametrize("name", ["cache.db", "cache.db-journal", "cache.db-wal", "cache.db-shm", "lock"])
def test_an_index_with_a_special_file_is_made_anew_and_nobody_hangs(
    folder: Path, name: str, make: Callable[[Path], None]
) -> None:
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    assert said(folder) == ["value again"]
    assert all(stat.S_ISREG(path.lstat().st_mode) for path in folder.iterdir())


def test_a_fifo_that_comes_while_the_index_is_open_is_not_waited_for(folder: Path) -> None:
    index = Index(folder)
    assert index.get("t", "k") == "good"
    (folder / "cache.db-journal").unlink(missing_ok=True)
    os.mkfifo(folder / "cache.db-journal")
    assert index.get("t", "k") is None
    index.put("t", "k", "more")
    index.close()
    assert Index(folder).get("t", "k") in (None, "good")


HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1] + "/cache.db", isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_database_that_a_stopped_process_holds_is_waited_for_once(folder: Path) -> None:
    holder = python(HOLD, folder)
    assert holder.stdout is not None
    holder.stdout.readline()
    index = Index(folder)
    started = time.monotonic()
    for number in range(20):
        index.put("t", str(number), number)
        assert index.get("t", str(number)) is None
    assert time.monotonic() - started < 60  # each wait takes five seconds
    holder.communicate()


@pytest.mark.parametrize("name", ["cache.db", "lock", "cache.db-journal", "cache.db-wal"])
def test_a_link_in_the_index_is_not_followed(folder: Path, name: str) -> None:
    target = folder.parents[1] / "outside" / "x"
    before = target.read_bytes(), target.stat().st_mtime_ns
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    said(folder)  # SQLite may look at what is no journal of its own; it may not change it
    assert (target.read_bytes(), target.stat().st_mtime_ns) == before
