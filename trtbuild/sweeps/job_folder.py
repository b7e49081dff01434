"""The folder of a cluster's jobs on a disk that others use, too: who may change what lies in it, and what is believed.

submitit leaves there what a job is to run, and a job its answer. So the folder and all above it are such that nobody
but this user and root can put others in their place, and an answer is a small plain file of this user's.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.errors import BuildError, InputError

LARGEST = 16 << 20  # bytes of an answer: a document with some steps
_HINT = "name a folder of your own on a disk that the machines share: sweep.slurm.folder=/home/me/trtbuild-jobs"


def make_private(folder: Path) -> None:
    """Make `folder`, for this user alone. Raises InputError where others could replace it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = folder.parent.resolve()
        for each in (place, *place.parents):
            _check(each)
        folder.mkdir(mode=0o700)
    except OSError as failure:
        raise InputError(
            f"{folder} cannot be made: {failure.strerror}", option="sweep.slurm.folder", hint=_HINT
        ) from None


def _check(folder: Path) -> None:
    status = folder.stat()
    if status.st_uid not in (0, os.geteuid()):
        raise InputError(
            f"{folder} is another user's, who could change what jobs run",
            option="sweep.slurm.folder",
            hint=_HINT,
        )
    others = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid != _own_group())
    if others and not status.st_mode & stat.S_ISVTX:
        raise InputError(
            f"others may write in {folder}, and could change what jobs run",
            option="sweep.slurm.folder",
            hint=_HINT,
        )


def _own_group() -> int | None:
    """The group that is this user's alone, as many systems make one for each user; None where there is none."""
    try:
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        return None
    return user.pw_gid if user.pw_gid == user.pw_uid else None


def write(path: Path, text: str) -> None:
    """Whole or not at all, and for this user alone. Raises OSError."""
    written = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    written.rename(path)


def read(path: Path) -> Mapping[str, Any]:
    """The answer in a file that is there. Raises BuildError for one that no job of ours wrote."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status, home = os.fstat(descriptor), path.parent.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_uid != home.st_uid:
                raise BuildError(f"the job's answer is no file of this user's: {path}")
            if status.st_size > LARGEST:
                raise BuildError(f"the job's answer is larger than {LARGEST >> 20} MiB: {path}")
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                return parse(stream.read(LARGEST + 1).decode("utf-8", errors="replace"))
        finally:
            os.close(descriptor)
    except OSError as failure:
        raise BuildError(f"the job's answer cannot be read: {failure.strerror} ({path})") from None


def parse(text: str) -> Mapping[str, Any]:
    """{"code", "host", "started", "ended", "document"} as `job_entry.run` makes it. Raises BuildError."""
    try:
        told = untrusted.parse_object(text, limit=LARGEST)
    except untrusted.MalformedJson:
        told = {}
    kinds = {"code": (int,), "host": (str,), "started": (int, float), "ended": (int, float)}
    if not all(
        isinstance(told.get(name), kind) and not isinstance(told.get(name), bool) for name, kind in kinds.items()
    ):
        raise BuildError(f"the job's answer is not one of trtbuild's: {text[:80]!r}")
    return told
