"""Whether a database is one that diskcache made and nobody else changed: no trigger, view or column of another."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import diskcache
from diskcache.core import DEFAULT_SETTINGS, METADATA

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
            if set(opened.execute(_OBJECTS).fetchall()) != _expected():
                return False  # before anything is asked of a table that may be a view without an end
            settings = dict(opened.execute("SELECT key, value FROM Settings").fetchall())
    except sqlite3.OperationalError as error:
        # Busy or read-only is no fault of the database; no such table is, and so is text that does not decode,
        # for which sqlite3 gives no code.
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR:
            raise
        return False
    except (sqlite3.DatabaseError, UnicodeDecodeError):  # the latter where text is cut within a character
        return False
    return _are_diskcaches(settings)


def connect(database: Path, mode: str, busy: float) -> sqlite3.Connection:
    """`database`, opened in `mode` ("ro" or "rw") and never created. Raises sqlite3.Error."""
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode={mode}", uri=True, timeout=busy)


class _Blank(diskcache.Cache):  # type: ignore[misc]  # diskcache ships no types
    """A cache that is made in memory. Its folder is one where no file can be made, should diskcache try."""

    def __init__(self) -> None:
        self._opened = sqlite3.connect(":memory:", isolation_level=None)
        super().__init__("/proc/self", eviction_policy="none")

    @property
    def _con(self) -> sqlite3.Connection:
        return self._opened


@cache
def _expected() -> set[tuple[str, str, str, str | None]]:
    """The schema that the installed version of diskcache makes: one, made anew without a disk, says so in 1 ms."""
    blank = _Blank()
    with closing(blank._con) as opened:
        return set(opened.execute(_OBJECTS).fetchall())


def _are_diskcaches(settings: dict[Any, Any]) -> bool:
    known = {**DEFAULT_SETTINGS, **METADATA}
    return all(
        name in known and (isinstance(value, int | float) or str(value).isidentifier() or value is None)
        for name, value in settings.items()
    )
