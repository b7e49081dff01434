"""What one commit of a Hub repository holds, remembered on disk: a commit never changes.

Kept as <folder>/<repository>/<commit>.json, so that a model named by its commit has its identity, and hence
its keys, without a network. Losing the folder costs one request; a file that cannot be read is as if absent.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from trtbuild import untrusted
from trtbuild.sources.base import Json, is_sha256

MOST_FILES = 100_000  # the most that the Hub advises for one repository
MOST_BYTES = 64 << 20  # of a list of that many
_MOST_SIZE = 2**53 - 1  # bytes of a file: what JSON's numbers hold exactly
_LONGEST = 1024  # bytes of a path
_LONGEST_PART = 255
_SCHEMA = 1
# Parts that are neither empty nor "." nor "..", without what no file is called on purpose.
_PART = r"(?!\.{1,2}(?:/|\Z))[^/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]+"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")


@dataclass(frozen=True)
class HubFile:
    """`size` in bytes; `sha256` of a file in the Hub's large storage, else None; `blob_id` is git's (sha1, hex)."""

    name: str
    size: int
    sha256: str | None
    blob_id: str | None


@dataclass(frozen=True)
class Commit:
    """The files of `repo` (org/name) at the commit `sha`, by name."""

    repo: str
    sha: str
    files: tuple[HubFile, ...]

    def file(self, name: str) -> HubFile:
        """Raises KeyError."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, HubFile]:
        return {file.name: file for file in self.files}


class Wrong(ValueError):
    """A list of files that no Hub sends; its text says why."""


def remember(folder: Path, commit: Commit) -> None:
    """Save it for `recall`. If the folder cannot be written, the next time is slower."""
    path = _path(folder, commit.repo, commit.sha)
    text = json.dumps({"schema": _SCHEMA, "files": [asdict(file) for file in commit.files]})
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(path)


def recall(folder: Path, repo: str, sha: str) -> Commit | None:
    """The commit as it was remembered, or None."""
    try:
        value = untrusted.parse(read(_path(folder, repo, sha), MOST_BYTES), limit=MOST_BYTES)
        if value["schema"] != _SCHEMA:
            return None
        return checked(repo, sha, value["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def read(path: Path, most: int) -> bytes:
    """The bytes of a plain file of at most `most`. Raises OSError, or ValueError for what is none."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not be waited for
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise ValueError(f"{path} is no file that was written here")
        return stream.read(most)


def latest(folder: Path, repo: str) -> str | None:
    """The commit of `repo` that was remembered last, for a hint; None when there is none."""
    with suppress(OSError):
        known = [path for path in _path(folder, repo, "").parent.glob("*.json") if is_git_id(path.stem)]
        if known:
            return max(known, key=lambda path: path.stat().st_mtime_ns).stem
    return None


def _path(folder: Path, repo: str, sha: str) -> Path:
    return folder / repo.replace("/", "--") / f"{sha}.json"


def checked(repo: str, sha: str, rows: Iterable[Json]) -> Commit:
    """A commit of rows as HubFile has them. Raises Wrong, KeyError, TypeError or AttributeError for what no Hub sends.

    The id and the names become paths here and in the client's cache, so they must be fit for it.
    """
    if not is_git_id(sha):
        raise Wrong(f"{sha!r} is no commit")
    files = tuple(sorted((_file(row) for row in rows), key=lambda file: file.name))
    if len(files) > MOST_FILES:
        raise Wrong(f"it lists {len(files)} files, and {MOST_FILES} are the most that are read")
    # In this order what lies in a folder follows what is called like it.
    ordered = sorted(file.name.replace("/", "\0") for file in files)
    for one, other in itertools.pairwise(ordered):
        if one == other or other.startswith(f"{one}\0"):
            name = one.replace("\0", "/")
            raise Wrong(f"it lists {_short(name)} twice" if one == other else f"{_short(name)} is a file and a folder")
    return Commit(repo, sha, files)


def is_git_id(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None


def is_name(text: str) -> bool:
    """Whether a path in a repository is also allowed for a file here."""
    if _NAME.fullmatch(text) is None:
        return False
    return len(text.encode()) <= _LONGEST and all(len(part.encode()) <= _LONGEST_PART for part in text.split("/"))


def _file(row: Json) -> HubFile:
    file = HubFile(row["name"], row["size"], row["sha256"], row["blob_id"])
    if not isinstance(file.name, str) or not is_name(file.name):
        raise Wrong(f"it lists a file by the name {_short(file.name)}")
    if type(file.size) is not int or not 0 <= file.size <= _MOST_SIZE:
        raise Wrong(f"{file.name!r} has the size {_short(file.size)}")
    for digest, is_one in ((file.sha256, is_sha256), (file.blob_id, is_git_id)):
        if digest is not None and not (isinstance(digest, str) and is_one(digest)):
            raise Wrong(f"{file.name!r} has the digest {_short(digest)}")
    return file


def _short(value: Json) -> str:
    """A stranger's value, for a message."""
    if type(value) is int and value.bit_length() > 64:  # Python writes no number of thousands of digits
        return f"a number of {value.bit_length()} bits"
    text = ascii(value) if isinstance(value, str | int | float) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:80]}…"
