"""Facts that can be had again, kept to save time: digests of files by their inode, last uses, statistics.

A diskcache (SQLite) in index/, mode 0700, of rows that are JSON text behind its checksum, and nothing else.
diskcache's own Disk and JSONDisk unpickle a row that says so, and open the file that a row names, so neither is used.
Nothing here can fail a build: a row that is not JSON, or not what was put, is a miss, a broken database is made anew,
an unwritable one reads as empty.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import diskcache
from diskcache.core import DBNAME, DEFAULT_SETTINGS, MODE_RAW

from trtstore.disk import locks
from trtstore.disk.hashing import HASHERS, OnBytes, hash_fd, ignore_bytes, in_threads
from trtstore.disk.layout import make_folders
from trtstore.errors import Corrupt, Invalid, StoreFailure, as_store_failures
from trtstore.format.canonical_json import Json
from trtstore.format.digest import is_hex
from trtstore.index import index_schema

BUSY = 5.0  # seconds to wait for another process's transaction
PAUSE = 60.0  # seconds without the index after such a wait failed
RACY = 2.0  # seconds: a file changed so lately may change again within its time stamp's grain
MAX_ROW = 1 << 20  # characters of a row: its checksum, then JSON
SUM = 16  # characters of a checksum: against flipped bits, not against a writer of the index

_SETTINGS = {
    **DEFAULT_SETTINGS,
    "eviction_policy": "none",
    "cull_limit": 0,
    "size_limit": 2**62,
    "sqlite_journal_mode": "truncate",  # WAL needs shared memory, which a network file system has not
}
_LOCK = "lock"
_FILES = (DBNAME, f"{DBNAME}-journal", f"{DBNAME}-wal", f"{DBNAME}-shm")
_TABLE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_T = TypeVar("_T")


class _TextDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache ships no types
    """Rows hold text inline, which `Index` reads as JSON; no row is unpickled and none leads to a file."""

    def put(self, key: Any) -> tuple[str, bool]:
        return str(key), True

    def get(self, key: Any, raw: Any) -> str:
        if not raw or type(key) is not str:
            raise OSError("this row's key is no text")
        return key

    def store(self, value: Any, read: bool, key: Any = None) -> tuple[int, int, None, str]:  # noqa: ARG002  # diskcache's signature
        return 0, MODE_RAW, None, str(value)

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> str:
        # diskcache takes an OSError for a value that is gone: a miss.
        if mode != MODE_RAW or filename is not None or type(value) is not str or read or len(value) > MAX_ROW:
            raise OSError("this row is no text")
        return value

    def filename(self, key: Any = None, value: Any = None) -> tuple[str, str]:  # noqa: ARG002  # diskcache's signature
        raise OSError("rows have no files")

    def remove(self, file_path: Any) -> None:
        """Rows have no files: what a tampered row names is not ours to remove."""


class Index:
    """The index in `folder`, opened at the first use; a `get` creates nothing on disk. Threads may share it.

    >>> store.index.put("example", "a", 1)
    >>> store.index.get("example", "a")
    1
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opening = threading.Lock()
        self._cache: Any = None
        self._unusable = False
        self._busy_until = -math.inf  # of the monotonic clock: until then there is no waiting for the database

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        with self._opening:
            if self._cache is not None:
                self._cache.close()
            self._cache = None

    def get(self, table: str, key: str) -> Json | None:
        """The value put under `key` in `table`, or None."""
        name = _name(table, key)
        return _value(name, self._with_cache(lambda cache: cache.get(name), create=False))

    def put(self, table: str, key: str, value: Json) -> None:
        """Keep `value`, if that is possible. Tables are named [a-z][a-z0-9-]*.

        Raises ValueError or TypeError for what is no JSON, or too long for a row: the caller's mistake.
        """
        name = _name(table, key)
        text = _text(name, value)
        self._with_cache(lambda cache: cache.set(name, text), create=True)

    def update(self, table: str, key: str, change: Callable[[Json | None], Json]) -> None:
        """Put what `change` makes of the present value (None where there is none), as one transaction."""

        def apply(cache: Any) -> None:
            with cache.transact():
                old = _value(name, cache.get(name))
                cache.set(name, _text(name, change(old)))

        name = _name(table, key)
        self._with_cache(apply, create=True)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What this thread puts before the end is one transaction: quicker than many, and others wait for its end."""
        stack = ExitStack()
        self._with_cache(lambda cache: stack.enter_context(cache.transact()), create=True)
        try:
            yield
        finally:
            try:
                stack.close()
            except (sqlite3.Error, diskcache.Timeout, OSError):
                self.close()  # the disk is full: let go of what was begun

    def items(self, table: str) -> dict[str, Json]:
        """Every row of `table` in one read; rows that are not what was put are passed over."""
        prefix = _name(table, "")

        def read(_cache: Any) -> list[tuple[str, str]]:
            with closing(index_schema.connect(self._folder / DBNAME, "ro", BUSY)) as opened:
                return opened.execute(
                    "SELECT key, value FROM Cache WHERE key >= ? AND key < ? AND raw = 1 AND mode = ? AND"
                    " filename IS NULL AND typeof(key) = 'text' AND typeof(value) = 'text' AND length(value) <= ?",
                    (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1), MODE_RAW, MAX_ROW),
                ).fetchall()

        rows = self._with_cache(read, create=False) or []
        values = {name.removeprefix(prefix): _value(name, text) for name, text in rows}
        return {key: value for key, value in values.items() if value is not None}

    def forget(self, table: str, keys: Iterable[str]) -> None:
        """Drop rows, where they are there."""
        names = [_name(table, key) for key in keys]

        def drop(cache: Any) -> None:
            with cache.transact():
                for name in names:
                    cache.delete(name)

        if names:
            self._with_cache(drop, create=False)

    def file_digest(self, path: Path, *, on_bytes: OnBytes = ignore_bytes) -> str:
        """The hex SHA-256 of a regular file, remembered by device, inode, size, mtime and ctime.

        Raises Invalid when it is no regular file, Corrupt when it changes meanwhile, NotReadable, StoreFailure.
        """
        with as_store_failures(path, reading=True):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return self._digest(fd, path, on_bytes)
            finally:
                os.close(fd)

    def known_digest(self, status: os.stat_result) -> str | None:
        """What `file_digest` remembers of the file with that stat, or None."""
        known = self.get("file-digest", _identity(status))
        return known if isinstance(known, str) and is_hex(known) else None

    def _digest(self, fd: int, path: Path, on_bytes: OnBytes) -> str:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise Invalid(f"{path} is no regular file")
        known = self.known_digest(before)
        if known is not None:
            on_bytes(before.st_size)
            return known
        digits, _ = hash_fd(fd, before.st_size, on_bytes=on_bytes)
        after = os.fstat(fd)
        if _identity(before) != _identity(after):
            raise Corrupt(f"{path} changed while it was read", "try again once nothing writes to it")
        if time.time() - max(after.st_mtime, after.st_ctime) > RACY:
            self.put("file-digest", _identity(after), digits)
        return digits

    def _with_cache(self, use: Callable[[Any], _T], *, create: bool) -> _T | None:
        if time.monotonic() < self._busy_until:
            return None
        cache = self._open(create=create)
        if cache is None:
            return None
        started = time.monotonic()
        try:
            _refuse_special(self._folder)  # SQLite opens them by itself, and a FIFO keeps it for ever
            return use(cache)
        except (sqlite3.OperationalError, diskcache.Timeout):  # busy, or read-only
            if time.monotonic() - started >= BUSY / 2:  # the holder of the database may have been stopped
                self._busy_until = time.monotonic() + PAUSE
        except sqlite3.DatabaseError:
            self._open(create=True, rebuild=True)
        except (OSError, ValueError, TypeError):
            pass  # a row of the wrong shape
        return None

    def _open(self, *, create: bool, rebuild: bool = False) -> Any:
        with self._opening:
            if self._unusable:
                return None
            if self._cache is not None and not rebuild:
                return self._cache
            try:
                if not create and not os.path.lexists(self._folder / DBNAME):
                    return None
                self._cache = _open_cache(self._folder, rebuild=rebuild)
            except (StoreFailure, OSError, sqlite3.Error, diskcache.Timeout, ValueError, TypeError):
                self._unusable, self._cache = True, None
            return self._cache


def _name(table: str, key: str) -> str:
    if _TABLE.fullmatch(table) is None:
        raise ValueError(f"{table!r} is no table's name")
    return f"{table}:{key}"


def _text(name: str, value: Json) -> str:
    """The text of the row `name`. Raises ValueError or TypeError for what is no JSON, or too long."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    if SUM + len(text) > MAX_ROW:
        raise ValueError(f"the value of {name} is longer than {MAX_ROW} characters")
    return _sum(name, text) + text


def _value(name: str, row: str | None) -> Json | None:
    try:
        if row is None or row[:SUM] != _sum(name, text := row[SUM:]):
            return None  # a wrong digest of a file would make a wrong key
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None


def _sum(name: str, text: str) -> str:
    # A name may hold a file's path, in whatever bytes that has.
    data = f"{name}\0{text}".encode(errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=SUM // 2).hexdigest()


def _identity(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _open_cache(folder: Path, *, rebuild: bool) -> Any:
    """The opened diskcache, made anew where `rebuild` or where what is there is not one."""
    with suppress(FileExistsError):
        make_folders(folder.parent)
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise OSError("the index belongs to somebody else")
    folder.chmod(0o700)
    # Alone: another process's half-made database must not be taken for a broken one.
    with suppress(FileNotFoundError):
        if not stat.S_ISREG((folder / _LOCK).lstat().st_mode):
            _remove(folder / _LOCK)
    with locks.exclusive(folder / _LOCK, keep=True, patience=BUSY):
        rebuild = rebuild or bool(_special(folder))
        settings = None if rebuild else index_schema.settings_of(folder / DBNAME, BUSY)
        if settings is None:
            for path in folder.glob(f"{DBNAME}*"):
                _remove(path)
            settings = index_schema.make(folder / DBNAME, _SETTINGS)
        if index_schema.says(settings, _SETTINGS):
            return index_schema.Made(folder, BUSY, _TextDisk, settings)
        return index_schema.Cache(folder, BUSY, _TextDisk, _SETTINGS)


def _special(folder: Path) -> list[Path]:
    """Those of the database's files, SQLite's own included, that are not regular files. Raises OSError."""
    special = []
    for name in _FILES:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(f"{folder}/{name}").st_mode):
                special.append(folder / name)
    return special


def _refuse_special(folder: Path) -> None:
    for path in _special(folder):
        raise OSError(f"{path} is no regular file")


def _remove(path: Path) -> None:
    path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)


def hash_files(paths: Sequence[Path], index: Index, on_progress: Callable[[int, int], None] | None = None) -> list[str]:
    """The hex SHA-256 of each path. Those that the index knows are not opened; the others are read side by side.

    `on_progress` is told (bytes read, bytes to be read), one call at a time, from any thread; never, where
    nothing is read. Raises as `Index.file_digest`.

    >>> [digits[:12] for digits in hash_files([Path("result/engine.bin")], store.index)]
    ['ed9f6f250686']
    """
    digests: dict[Path, str] = {}
    unknown: dict[Path, int] = {}
    for path in paths:
        with as_store_failures(path, reading=True):
            status = path.stat()
        known = index.known_digest(status)
        if known is None:
            unknown[path] = status.st_size
        else:
            digests[path] = known
    done, total = 0, sum(unknown.values())

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, total)

    # One file is one thread's: the largest first, so that none of them is begun when the others are at their end.
    order = sorted(unknown, key=lambda path: unknown[path], reverse=True)
    hashed = in_threads(lambda path, on_bytes: index.file_digest(path, on_bytes=on_bytes), order, tell, HASHERS)
    digests.update(zip(order, hashed, strict=True))
    return [digests[path] for path in paths]
