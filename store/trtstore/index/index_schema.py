"""Databases of diskcache: a new one, and whether one has diskcache's own schema: no trigger, view or column of another.

diskcache writes each of its settings to the database whenever it opens it, a transaction and a wait for the disk for
each. `Made` opens a database that says them already, and `make` writes a new one, in one transaction.
"""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import diskcache
from diskcache.core import DEFAULT_SETTINGS, METADATA

_MISREAD = (AttributeError, TypeError, ValueError)
_OBJECTS = "SELECT type, name, tbl_name, sql FROM sqlite_master"


def settings_of(database: Path, busy: float) -> dict[str, Any] | None:
    """What its table Settings says; None unless its schema and settings are diskcache's own. Waits `busy` seconds.

    A trigger runs whatever SQL it holds at each write. diskcache sets an attribute of itself for each row of the
    table Settings, so one named _directory leads it elsewhere, and formats the sqlite_ ones into SQL.
    """
    try:
        if not stat.S_ISREG(database.lstat().st_mode):
            return None
    except FileNotFoundError:
        return None
    try:
        with closing(connect(database, "rw", busy)) as opened:
            if set(opened.execute(_OBJECTS).fetchall()) != _expected():
                return None  # before anything is asked of a table that may be a view without an end
            settings = dict(opened.execute("SELECT key, value FROM Settings").fetchall())
    except sqlite3.OperationalError as error:
        # Busy or read-only is no fault of the database; no such table is, and so is text that does not decode,
        # for which sqlite3 gives no code.
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR:
            raise
        return None
    except (sqlite3.DatabaseError, UnicodeDecodeError):  # the latter where text is cut within a character
        return None
    return settings if _are_diskcaches(settings) else None


def make(database: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write a database, where there is none, with the schema and no row. Returns its settings."""
    blank = _Blank(settings)
    with closing(blank._con) as made, closing(sqlite3.connect(database)) as target:
        made.backup(target)
        return dict(made.execute("SELECT key, value FROM Settings").fetchall())


def says(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a database with the settings `found` needs none of these, and nothing of diskcache's, written to it."""
    return stored.keys() == {*settings, *METADATA} and all(stored[name] == value for name, value in settings.items())


class Cache(diskcache.Cache):  # type: ignore[misc]  # diskcache ships no types
    """diskcache's, which reads its settings again for each connection, and takes each name for text.

    A disk may give other bytes this time: sqlite3.DatabaseError.
    """

    def __init__(self, folder: Path, busy: float, disk: type[diskcache.Disk], settings: Mapping[str, Any]) -> None:
        try:
            super().__init__(str(folder), timeout=busy, disk=disk, **settings)
        except _MISREAD as error:
            raise _misread(error) from error

    @property
    def _con(self) -> sqlite3.Connection:
        try:
            connection: sqlite3.Connection = super()._con
            return connection
        except _MISREAD as error:
            raise _misread(error) from error


class Made(Cache):
    """The opened database in `folder`, which says `settings`: what diskcache's own __init__ does, without a write."""

    def __init__(self, folder: Path, busy: float, disk: type[diskcache.Disk], settings: Mapping[str, Any]) -> None:
        self._directory, self._timeout = str(folder), busy
        self._local, self._txn_id = threading.local(), None
        of_disk = {name: value for name, value in settings.items() if name.startswith("disk_")}
        self._disk = disk(self._directory, **{name.removeprefix("disk_"): value for name, value in of_disk.items()})
        for name, value in settings.items():
            setattr(self, name, value)
        ((self._page_size,),) = self._sql("PRAGMA page_size").fetchall()


def _misread(error: Exception) -> sqlite3.DatabaseError:
    return sqlite3.DatabaseError(f"its settings cannot be read: {error}")


def connect(database: Path, mode: str, busy: float) -> sqlite3.Connection:
    """`database`, opened in `mode` ("ro" or "rw") and never created. Raises sqlite3.Error."""
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode={mode}", uri=True, timeout=busy)


class _Blank(diskcache.Cache):  # type: ignore[misc]  # diskcache ships no types
    """A cache that is made in memory. Its folder is one where no file can be made, should diskcache try."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._opened = sqlite3.connect(":memory:", isolation_level=None)
        super().__init__("/proc/self", **settings)

    @property
    def _con(self) -> sqlite3.Connection:
        return self._opened


@cache
def _expected() -> set[tuple[str, str, str, str | None]]:
    """The schema that the installed version of diskcache makes: one, made anew without a disk, says so in 1 ms."""
    blank = _Blank({"eviction_policy": "none"})
    with closing(blank._con) as opened:
        return set(opened.execute(_OBJECTS).fetchall())


def _are_diskcaches(settings: dict[Any, Any]) -> bool:
    known = {**DEFAULT_SETTINGS, **METADATA}
    return all(
        name in known and (isinstance(value, int | float) or str(value).isidentifier() or value is None)
        for name, value in settings.items()
    )
