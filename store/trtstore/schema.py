"""Whether a database is one that diskcache made and nobody else changed: no trigger, view or column of another."""

from __future__ import annotations

import sqlite3
import stat
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import diskcache
from diskcache.core import DBNAME, DEFAULT_SETTINGS, METADATA

_OBJECTS = "SELECT type, name, tbl_name, sql FROM sqlite_master"


def is_sound(database: Path, busy: float) -> bool:
    """Whether diskcache may open it: its schema and settings are diskcache's own. Waits `busy` seconds for others.

    A trigger runs whatever SQL it holds at each write. diskcache sets an attribute of itself for each row of the
    table Settings, so one named _directory leads it elsewhere, and formats the sqlite_ ones into SQL.
    """
    try:
        if not stat.S_ISREG(database.lstat().st_mode):
            return False
    except FileNotFoundError:
        return True
    try:
        with closing(connect(database, "rw", busy)) as opened:
            if set(opened.execute(_OBJECTS).fetchall()) != _expected(database.parent):
                return False  # before anything is asked of a table that may be a view without an end
            settings = dict(opened.execute("SELECT key, value FROM Settings").fetchall())
    except sqlite3.OperationalError as error:
        # Busy or read-only is no fault of the database; no such table is, and so is text that does not decode,
        # for which sqlite3 gives no code.
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR:
            raise
        return False
    except sqlite3.DatabaseError:
        return False
    return _are_diskcaches(settings)


def connect(database: Path, mode: str, busy: float) -> sqlite3.Connection:
    """`database`, opened in `mode` ("ro" or "rw") and never created. Raises sqlite3.Error."""
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode={mode}", uri=True, timeout=busy)


@cache
def _expected(folder: Path) -> set[tuple[str, str, str, str | None]]:
    """The schema that the installed version of diskcache makes: one, made anew in `folder`, says so in 2 ms.

    In the index's own folder, which must have space for its journal anyway: /tmp may be full.
    """
    with (
        tempfile.TemporaryDirectory(prefix="new-", dir=folder) as inner,
        closing(diskcache.Cache(inner, eviction_policy="none", sqlite_journal_mode="off")),
        closing(connect(Path(inner) / DBNAME, "ro", 1.0)) as opened,
    ):
        return set(opened.execute(_OBJECTS).fetchall())


def _are_diskcaches(settings: dict[Any, Any]) -> bool:
    known = {**DEFAULT_SETTINGS, **METADATA}
    return all(
        name in known and (isinstance(value, int | float) or str(value).isidentifier() or value is None)
        for name, value in settings.items()
    )
