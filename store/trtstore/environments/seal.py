"""Whether an environment is still what was made: by a seal over names, sizes, times and inodes, or by its bytes.

The seal catches whatever any user but root does to a file: a change of bytes, name, mode or links sets its ctime, which
nobody can set back. It rests on the owner: so what another user may write is named, from the store's root down.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trtstore.disk.hashing import OnBytes, ignore_bytes
from trtstore.disk.layout import MAX_PREFIX, Layout, read_bounded
from trtstore.disk.owners import other_writer
from trtstore.environments.environment import ABOUT, CONTENTS, Environment, verify_environment
from trtstore.errors import Invalid, Malformed, as_store_failures
from trtstore.format import canonical_json

SEAL = "seal.json"
_MAX_SEAL = 4096  # bytes


@dataclass(frozen=True)
class Standing:
    """How an environment stands, in sentences: who else may write to it, and what is not as it was made."""

    open: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()


def look(environment: Environment, layout: Layout, *, always: bool, on_bytes: OnBytes = ignore_bytes) -> Standing:
    """Every byte is read if the seal is broken, or with `always`; none if others may write. Raises StoreFailure"""
    with as_store_failures(environment.path, reading=True):
        try:
            now, others = _seal(environment, layout)
            if others:
                return Standing(open=tuple(others))
            if not always and now == _sealed(environment.path):
                return Standing()
            wrong = verify_environment(environment, on_bytes)
            if not wrong and _seal(environment, layout)[0] != now:
                wrong = [f"{environment.path} changes while it is read"]
        except Invalid as odd:
            return Standing(altered=(odd.message,))
    if wrong:
        return Standing(altered=tuple(wrong))
    _put(environment.path, now)
    return Standing()


def close(environment: Environment, layout: Layout) -> None:
    """Seal an environment that was just made. Raises NotReadable, StoreFailure."""
    with as_store_failures(environment.path, reading=True):
        _put(environment.path, _seal(environment, layout)[0])


def _seal(environment: Environment, layout: Layout) -> tuple[str, list[str]]:
    """The seal of what is there, and who else may write to it or above it, up to the store's root.

    Raises Invalid for what is neither a file nor a folder, OSError.
    """
    hasher, others = hashlib.sha256(), _Others(layout)
    above = [path for path in environment.path.parents if path.is_relative_to(layout.root)]
    for path in (*reversed(above), environment.path, environment.local):
        with suppress(FileNotFoundError):
            others.look(path, status := path.lstat())
            if stat.S_ISLNK(status.st_mode):
                raise Invalid(f"{path.name} is a symbolic link")
    for path in (environment.path / ABOUT, environment.path / CONTENTS):
        hasher.update(_line(path.name, status := path.lstat()))
        others.look(path, status)
    todo = [("", environment.content.lstat(), os.fspath(environment.content))]
    while todo:
        name, status, folder = todo.pop()
        if len(name) > MAX_PREFIX:
            raise Invalid(f"the folders in {environment.content} are nested too deeply")
        hasher.update(_line(f"{name}/", status))
        others.look(folder, status)
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
        for entry in entries:
            inner, status = f"{name}/{entry.name}", entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                todo.append((inner, status, entry.path))
                continue
            if not stat.S_ISREG(status.st_mode):
                kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
                raise Invalid(f"{inner.lstrip('/')} is {kind}")
            hasher.update(_line(inner, status))
            others.look(entry.path, status)
    return hasher.hexdigest(), others.found


class _Others:
    """Collects who else may write."""

    def __init__(self, layout: Layout) -> None:
        self.found: list[str] = []
        shared = layout.shared  # with a group, by the user's own word
        self._group = layout.root.stat().st_gid if shared else None

    def look(self, path: Path | str, status: os.stat_result) -> None:
        if stat.S_ISLNK(status.st_mode):  # whose mode says nothing
            return
        who = other_writer(status, self._group)
        if who is not None:
            self.found.append(f"{who} may write to {path}")


def _line(name: str, of: os.stat_result) -> bytes:
    numbers = (of.st_mode, of.st_uid, of.st_size, of.st_mtime_ns, of.st_ctime_ns, of.st_ino)
    size = (-1,) if stat.S_ISDIR(of.st_mode) else ()  # of a folder it says nothing, and differs by file system
    return f"{name!r} {numbers} {size}\n".encode(errors="surrogateescape")


def _sealed(home: Path) -> str | None:
    raw = read_bounded(home / SEAL, _MAX_SEAL)
    try:
        seal = None if raw is None else canonical_json.parse(raw, SEAL)
    except Malformed:
        return None
    said = seal.get("seal") if isinstance(seal, dict) else None
    return said if isinstance(said, str) else None


def _put(home: Path, said: str) -> None:
    """Keep a seal, where the store can be written to."""
    new = home / f"{SEAL}.{os.getpid()}.{secrets.token_hex(4)}"
    with suppress(OSError):
        try:
            new.write_text(json.dumps({"schema": 1, "seal": said}), encoding="utf-8")
            new.chmod(0o644)
            new.rename(home / SEAL)
        finally:
            new.unlink(missing_ok=True)
