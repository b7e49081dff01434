"""The headers of a commit's weight files, remembered on disk beside `commit`: a commit never changes.

Kept as <folder>/<repository>/<commit>.headers.json, so that a second plan of a model makes no request. A file
that cannot be read is as if absent.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from trtbuild import untrusted
from trtbuild.formats.weight_file import TensorInfo
from trtbuild.sources.base import Json
from trtbuild.sources.hub.commit import Commit, read

_SCHEMA = 1
_MOST_BYTES = 256 << 20
_MOST = 2**63  # of a dimension


def remember(folder: Path, commit: Commit, files: Mapping[str, Mapping[str, TensorInfo]]) -> None:
    """Save them for `recall`. If the folder cannot be written, the next time is slower."""
    path = _path(folder, commit)
    rows = {
        file: {name: [entry.kind, list(entry.shape)] for name, entry in entries.items()}
        for file, entries in files.items()
    }
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump({"schema": _SCHEMA, "files": rows}, stream)
        Path(name).replace(path)


def recall(folder: Path, commit: Commit, names: Collection[str]) -> Mapping[str, Mapping[str, TensorInfo]] | None:
    """The headers of the files `names` as they were remembered, or None when one of them was not."""
    try:
        value = untrusted.parse(read(_path(folder, commit), _MOST_BYTES), limit=_MOST_BYTES)
        if value["schema"] != _SCHEMA:
            return None
        return {file: {name: _entry(row) for name, row in value["files"][file].items()} for file in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def forget(folder: Path, commit: Commit) -> None:
    """They are not what the files hold."""
    with suppress(OSError):
        _path(folder, commit).unlink(missing_ok=True)


def _entry(row: Json) -> TensorInfo:
    kind, shape = row
    if not isinstance(kind, str) or not all(type(size) is int and 0 <= size < _MOST for size in shape):
        raise ValueError(f"{row!r} is no tensor")
    return TensorInfo(kind, tuple(shape))


def _path(folder: Path, commit: Commit) -> Path:
    return folder / commit.repo.replace("/", "--") / f"{commit.sha}.headers.json"
