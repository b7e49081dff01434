"""Environments that can be made again at any time: each a folder of toolchains/, whole or absent, and never altered.

An environment `<name>/` holds `environment.json` (what it is), `contents.json` (every file with its size and SHA-256),
`files/` (just those), `local/` (what one machine adds to use it, which its user checks) and `seal.json` (`seal`).
It is made in tmp/ and gets its name by one rename, so a killed maker leaves nothing here. Who uses it holds its folder
by flock, shared.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from trtstore.disk import gate, locks, scratch
from trtstore.disk.hashing import OnBytes, ignore_bytes
from trtstore.disk.layout import Layout, entries
from trtstore.environments import seal
from trtstore.environments.environment import (
    ABOUT,
    CONTENTS,
    FILES,
    LOCAL,
    SCHEMA,
    Environment,
    list_files,
    read,
)
from trtstore.environments.seal import Standing
from trtstore.errors import Busy, Invalid, StoreFailure, as_store_failures

_NAME = re.compile(r"[0-9a-z][0-9A-Za-z._-]{0,199}")
_FOLDER = 0o755


class Environments:
    """The environments of one store.

    >>> with store.environments.making("tools-1", who="an example") as work:
    ...     (work / "files").mkdir()
    ...     _ = (work / "files" / "tool.py").write_text("pass")
    ...     environment = store.environments.keep("tools-1", work / "files", {"title": "tools"})
    >>> with store.environments.using("tools-1") as environment:
    ...     environment.title
    'tools'
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def find(self, name: str) -> Environment | None:
        """The environment, if it is there and whole. Raises Invalid for a malformed name, NotReadable, StoreFailure."""
        with as_store_failures(self._layout.root, reading=True):
            return read(self._layout.own(self._layout.toolchains) / _checked(name))

    def all(self) -> list[Environment]:
        """Every whole environment, by name. Raises NotReadable, StoreFailure."""
        with as_store_failures(self._layout.root, reading=True):
            listed = entries(self._layout.own(self._layout.toolchains))
            environments = [read(path) for path in listed if _NAME.fullmatch(path.name)]
        return [one for one in environments if one is not None]

    @contextmanager
    def using(self, name: str) -> Iterator[Environment | None]:
        """As `find`; no collector takes it before the end, and it counts as used."""
        # A collection that has decided already is done after this; a later one sees the use.
        with gate.looking(self._layout), as_store_failures(self._layout.root, reading=True):
            environment = self.find(name)
            fd = None if environment is None else _hold(environment.path)
        if fd is None:
            yield None
            return
        try:
            yield environment
        finally:
            os.close(fd)

    @contextmanager
    def making(self, name: str, *, who: str, on_wait: locks.OnWait | None = None) -> Iterator[Path]:
        """Be the only one that makes `name`, in an empty folder that is gone at the end; others wait.

        Look for it again inside: the previous holder may have made it. Raises NotWritable, StoreFailure.
        """
        with as_store_failures(self._layout.root):
            self._layout.make(self._layout.locks)
        lock = self._layout.lock("toolchain", _checked(name))
        with locks.exclusive(lock, who=who, on_wait=on_wait):
            scratch.sweep(self._layout)
            with scratch.folder(self._layout) as work:
                yield work

    def keep(self, name: str, files: Path, about: Mapping[str, Any]) -> Environment:
        """Give the folder `files`, one below that of `making`, its place as the files of `name`.

        They become read-only. Raises Invalid for a symbolic link among them, NoSpace, NotWritable, StoreFailure.
        """
        place, home = self._layout.toolchains / _checked(name), files.with_name(f"{files.name}.whole")
        with as_store_failures(self._layout.root):
            (home / LOCAL).mkdir(parents=True)
            listed = list_files(files)
            for path, _, _ in listed:
                inner = files / path
                inner.chmod(0o555 if inner.stat().st_mode & stat.S_IXUSR else 0o444)
            files.rename(home / FILES)
            for folder in (home, home / LOCAL, *(Path(each) for each, _, _ in os.walk(home / FILES))):
                folder.chmod(_FOLDER)  # whatever the umask: no other user may add to it
            count, size = len(listed), sum(size for _, size, _ in listed)
            summary = {"schema": SCHEMA, "about": dict(about), "bytes": size, "files": count}
            (home / CONTENTS).write_text(json.dumps({"schema": SCHEMA, "files": listed}), encoding="utf-8")
            (home / ABOUT).write_text(json.dumps(summary), encoding="utf-8")
            for name in (CONTENTS, ABOUT):
                (home / name).chmod(0o444)
            if self._layout.durable:
                _sync_disk(home)
            self._layout.make(place.parent)
            with self._placed(home, place) as environment:
                seal.close(environment, self._layout)
                return replace(environment, used=environment.path.stat().st_mtime)  # the seal is a file in its folder

    @contextmanager
    def _placed(self, home: Path, place: Path) -> Iterator[Environment]:
        """The environment `home` under the name `place`, where no collector takes it before the end."""
        with gate.adding(self._layout):
            with suppress(FileNotFoundError):  # it has no readable `environment.json`
                place.rename(home.with_name("broken"))
            home.rename(place)
            environment, fd = read(place), _hold(place)  # while nobody removes
        try:
            self._layout.sync(place.parent)
            if environment is None:
                raise StoreFailure(f"{place} is gone as soon as it was made", "is somebody else removing it?")
            yield environment
        finally:
            if fd is not None:
                os.close(fd)

    def check(self, environment: Environment, *, always: bool, on_bytes: OnBytes = ignore_bytes) -> Standing:
        """Its standing. Every byte is read if the seal is broken, or with `always`. Raises StoreFailure."""
        return seal.look(environment, self._layout, always=always, on_bytes=on_bytes)

    def remove(self, name: str) -> bool:
        """Remove it; returns whether it was there. Raises Busy if it is in use, NotWritable, StoreFailure."""
        path = self._layout.own(self._layout.toolchains) / _checked(name)
        with (
            as_store_failures(self._layout.root),
            scratch.folder(self._layout) as bin_,
            gate.removing(self._layout, who=f"a removal of {name}, process {os.getpid()}"),
        ):
            try:
                fd = locks.folder(path, alone=True)
            except (FileNotFoundError, NotADirectoryError):
                return False
            if fd is None:
                raise Busy(f"{path} is in use", "wait until that is done")
            path.rename(bin_ / "gone")
            os.close(fd)
        return True


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Invalid(f"{name!r} is no name of an environment")
    return name


def _hold(path: Path) -> int | None:
    """A descriptor that keeps collectors from `path`, whose time is set to now."""
    try:
        fd = locks.folder(path, alone=False)
    except FileNotFoundError:
        return None
    if fd is not None:
        with suppress(OSError):  # a read-only store, which is not collected either
            now = time.time_ns()
            os.utime(path, ns=(now, now))
    return fd


def _sync_disk(folder: Path) -> None:
    """Bring all of a file system's bytes to the disk: one call, where a sync of each of 10 000 files takes a minute."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            done = ctypes.CDLL(None, use_errno=True).syncfs(fd)
        except (OSError, AttributeError):  # a libc without it
            os.sync()
            return
        if done:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(fd)
