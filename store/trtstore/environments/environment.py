"""One environment on the disk: its summary, and whether its bytes are those that were installed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtstore.disk.hashing import OnBytes, ignore_bytes, in_threads
from trtstore.disk.layout import read_bounded, walk
from trtstore.errors import Invalid, Malformed, as_store_failures
from trtstore.format import canonical_json

SCHEMA = 1
ABOUT, CONTENTS, FILES, LOCAL = "environment.json", "contents.json", "files", "local"
_MAX_ABOUT, _MAX_CONTENTS = 1 << 20, 1 << 28  # bytes


@dataclass(frozen=True)
class Environment:
    """A whole environment. `about` is its maker's own; `used` is in seconds since the epoch."""

    name: str
    path: Path
    about: Mapping[str, Any]
    bytes: int
    files: int
    used: float

    @property
    def title(self) -> str:
        """A short name for people."""
        title = self.about.get("title")
        return title if isinstance(title, str) and title.isprintable() else self.name

    @property
    def content(self) -> Path:
        """The folder of its files, which are read-only."""
        return self.path / FILES

    @property
    def local(self) -> Path:
        """A folder for what one machine needs to use it."""
        return self.path / LOCAL


def read(path: Path) -> Environment | None:
    """The whole environment at `path`, or None. Raises OSError."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(status.st_mode):
        return None
    raw = read_bounded(path / ABOUT, _MAX_ABOUT)
    try:
        summary = {} if raw is None else canonical_json.parse(raw, ABOUT)
    except Malformed:
        return None
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA:
        return None
    about, size, count = summary.get("about"), summary.get("bytes"), summary.get("files")
    if not isinstance(about, dict) or type(size) is not int or type(count) is not int:
        return None
    return Environment(path.name, path, about, size, count, status.st_mtime)


def list_files(files: Path, on_bytes: OnBytes = ignore_bytes) -> list[tuple[str, int, str]]:
    """(path, bytes, SHA-256) of each file. Raises Invalid for a symbolic link, OSError."""

    def digest(item: tuple[str, Path, os.stat_result], told: OnBytes) -> tuple[str, int, str]:
        name, path, _ = item
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            digits = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(fd).st_size
        told(size)
        return name, size, digits

    return in_threads(digest, list(walk(files)), on_bytes)


def verify_environment(environment: Environment, on_bytes: OnBytes = ignore_bytes) -> list[str]:
    """Read every byte; returns a sentence for each file that differs. Raises NotReadable, StoreFailure.

    >>> with store.environments.making("tools-1", who="an example") as work:
    ...     (work / "files").mkdir()
    ...     _ = (work / "files" / "tool.py").write_text("pass")
    ...     environment = store.environments.keep("tools-1", work / "files", {"title": "tools"})
    >>> verify_environment(environment)
    []
    """
    with as_store_failures(environment.path, reading=True):
        wanted = _contents(environment.path)
        if wanted is None:
            return [f"{CONTENTS} cannot be read"]
        try:
            there = {name: (size, digits) for name, size, digits in list_files(environment.content, on_bytes)}
        except Invalid as trouble:
            return [trouble.message]
    wrong = [f"{name} is not there" for name in sorted(wanted.keys() - there.keys())]
    wrong += [f"{name} was not installed" for name in sorted(there.keys() - wanted.keys())]
    return wrong + [
        f"{name} has other bytes" for name in sorted(wanted.keys() & there.keys()) if wanted[name] != there[name]
    ]


def _contents(path: Path) -> dict[str, tuple[int, str]] | None:
    raw = read_bounded(path / CONTENTS, _MAX_CONTENTS)
    try:
        contents = {} if raw is None else canonical_json.parse(raw, CONTENTS)
        listed = contents["files"] if isinstance(contents, dict) else None
        return {str(name): (int(size), str(digits)) for name, size, digits in listed or ()} or None
    except (Malformed, KeyError, TypeError, ValueError):
        return None
