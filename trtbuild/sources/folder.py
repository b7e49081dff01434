"""A folder that a step reads beside the checkpoint: known by the content of its files, wherever it lies."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from trtbuild.errors import InputError
from trtbuild.sources.base import Digester, SourceFile, identity, local_path

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HUB = "hf://"
# The Hub's client takes longer to import than the rest of a cold start: hence a name, and no import here.
_DATASET = "trtbuild.sources.hub.dataset"
_fetched: dict[str, Path] = {}  # a branch may move: a process that planned with a file builds with it


def content(named: str, option: str, digester: Digester, *, file: bool = False) -> str:
    """`sha256:…` of the files below the folder `named`, which may be such a digest already: of one that is elsewhere.

    With `file` it may be one file, here or of the Hub: a folder with it alone, whatever it is called but for its
    ending. Names that begin with a dot are left out: downloads leave their notes there. Raises InputError.
    """
    if _DIGEST.fullmatch(named):
        return named
    folder = located(named, option, digester) if file else local_path(named)
    if file and folder.is_file():
        (digest,) = digester.file_digests([folder])
        return f"sha256:{identity([SourceFile('file' + folder.suffix, folder.stat().st_size, digest)])}"
    if not folder.is_dir():
        raise InputError(
            f"{named} is no folder{' and no file' if file else ''} here",
            option=option,
            hint="name a folder; one that is on another machine by its digest, sha256:…, as `trtbuild plan "
            "output=json` shows it there",
        )
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise InputError(f"the folder {named} is empty", option=option)
    digests = digester.file_digests(paths)
    files = [
        SourceFile(path.relative_to(folder).as_posix(), path.stat().st_size, digest)
        for path, digest in zip(paths, digests, strict=True)
    ]
    return f"sha256:{identity(files)}"


def located(named: str, option: str, digester: Digester) -> Path:
    """Where it lies on this machine; a file of a dataset on the Hub is downloaded. Raises InputError."""
    if not named.startswith(_HUB):
        return local_path(named)
    if named not in _fetched:
        _fetched[named] = importlib.import_module(_DATASET).fetch(named, option, digester)
    return _fetched[named]


def is_digest(named: str) -> bool:
    """Whether an option names a folder by its content alone."""
    return _DIGEST.fullmatch(named) is not None
