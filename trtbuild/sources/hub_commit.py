"""What one commit of a Hub repository holds, remembered on disk: a commit never changes.

Kept as <folder>/<repository>/<commit>.json, so that a model named by its commit has its identity, and hence
its keys, without a network. Losing the folder costs one request; a file that cannot be read is as if absent.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from trtbuild import foreign
from trtbuild.sources.base import Json, is_sha256

_SCHEMA = 1


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
        for file in self.files:
            if file.name == name:
                return file
        raise KeyError(name)


def remember(folder: Path, commit: Commit) -> None:
    """Write it down for `recall`; a folder that cannot be written is no error, only slower next time."""
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
        value = foreign.parse(foreign.read_bytes(_path(folder, repo, sha)))
        if value["schema"] != _SCHEMA:
            return None
        return checked(repo, sha, value["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def latest(folder: Path, repo: str) -> str | None:
    """The commit of `repo` that was remembered last, for a hint; None when there is none."""
    with suppress(OSError):
        known = [path for path in _path(folder, repo, "").parent.glob("*.json") if len(path.stem) == 40]
        if known:
            return max(known, key=lambda path: path.stat().st_mtime_ns).stem
    return None


def _path(folder: Path, repo: str, sha: str) -> Path:
    return folder / repo.replace("/", "--") / f"{sha}.json"


def checked(repo: str, sha: str, rows: Iterable[Json]) -> Commit:
    """A commit of rows as HubFile has them. Raises ValueError, KeyError or TypeError for what no Hub sends.

    The id becomes a file's name here and in the client's cache, so it must be one.
    """
    if not _is_git_id(sha):
        raise ValueError(f"{sha!r} is no commit")
    return Commit(repo, sha, tuple(sorted((_file(row) for row in rows), key=lambda file: file.name)))


def _is_git_id(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None


def _file(row: Json) -> HubFile:
    file = HubFile(row["name"], row["size"], row["sha256"], row["blob_id"])
    sound = isinstance(file.name, str) and type(file.size) is int and file.size >= 0
    sound = sound and (file.sha256 is None or is_sha256(file.sha256))
    if not sound or not (file.blob_id is None or _is_git_id(file.blob_id)):
        raise ValueError(f"{row!r} is no file of a commit")
    return file
