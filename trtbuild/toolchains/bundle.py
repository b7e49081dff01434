"""Toolchains as one file for a site without a network: a zip archive of locks and wheels, each of which is checked.

A file comes from anywhere, and its wheels run once they are installed: so just the locks that the reader knows already
count, or by name those of a stranger. Members are stored as they are, so none unpacks to more than the file holds.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trtbuild.errors import InputError
from trtbuild.toolchains import builtin, install, lock
from trtbuild.toolchains.lock import Lock
from trtbuild.toolchains.pythons import Python

_LOCK = re.compile(r"locks/([0-9a-f]{64})\.txt")
_WHEEL = re.compile(r"wheels/([A-Za-z0-9][A-Za-z0-9_.+!-]*\.whl)")
_MAX_LOCK = 16 << 20  # bytes
_TIME = (1980, 1, 2, 0, 0, 0)  # of every member: the same wheels give the same file
_OPTION = "toolchain import"
_MOST = 20_000  # members


@dataclass(frozen=True)
class Taken:
    """What a file holds: the locks, and the folder that its wheels were unpacked to."""

    locks: tuple[Lock, ...]
    wheels: Path


def write(locks: Sequence[Lock], python: Python, file: Path, work: Path, on_package: install.OnPackage) -> int:
    """Fetch the wheels of `locks` for `python` into `file`; returns how many. Raises InputError, OSError."""
    wheels = work / "wheels"
    wheels.mkdir()
    for toolchain in locks:
        inner = work / toolchain.digest
        inner.mkdir()
        install.download(toolchain, python, wheels, inner, on_package)
    part = file.with_name(f"{file.name}.part")
    try:
        with zipfile.ZipFile(part, "w") as archive:
            for toolchain in sorted(locks, key=lambda each: each.digest):
                archive.writestr(zipfile.ZipInfo(f"locks/{toolchain.digest}.txt", _TIME), toolchain.text)
            listed = sorted(wheels.iterdir())
            for wheel in listed:
                info = zipfile.ZipInfo(f"wheels/{wheel.name}", _TIME)
                info.file_size = wheel.stat().st_size
                with wheel.open("rb") as source, archive.open(info, "w") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    return len(listed)


def known(named: Sequence[str] | None) -> Callable[[Lock], bool]:
    """Which locks a file may hold: those that ship, and those at the paths that were `named`; None: any.

    Raises InputError.
    """
    if named is None:
        return lambda _: True
    digests = {lock.read(Path(each).expanduser(), "--lock").digest for each in named}
    return lambda found: found.digest in digests or builtin.of_digest(found.digest) is not None


def _regular(file: Path) -> Path:
    """`file`, unless it is a pipe or a device, which would be waited for. Raises InputError."""
    if file.exists() and not file.is_file():
        raise InputError(f"{file} is no regular file", option=_OPTION)
    return file


def read(file: Path, work: Path, may: Callable[[Lock], bool]) -> Taken:
    """Unpack `file` below `work`. `may` says whether a lock may be installed.

    Raises InputError where one may not, or a wheel is none of its locks', OSError.
    """
    wheels = work / "wheels"
    wheels.mkdir()
    locks: list[Lock] = []
    try:
        with zipfile.ZipFile(_regular(file)) as archive:
            names = _names(archive, file)
            for name in names:
                if match := _LOCK.fullmatch(name):
                    locks.append(_lock(archive, name, match[1], file))
            for stranger in (each for each in locks if not may(each)):
                raise InputError(
                    f"{file} holds the lock {stranger.digest[:12]}, which does not ship with this trtbuild",
                    option=_OPTION,
                    hint="name the lock that you know: --lock FILE.txt; or, if you trust who made this file: --trust",
                )
            hashes = {digits for found_lock in locks for pin in found_lock.pins for digits in pin.hashes}
            for name in names:
                if wheel := _WHEEL.fullmatch(name):
                    _unpack(archive, name, wheels / wheel[1], hashes, file)
                elif not _LOCK.fullmatch(name):
                    raise InputError(f"{file} holds {name!r}, which is no part of a toolchain", option=_OPTION)
    except FileNotFoundError:
        raise InputError(f"there is no file {file}", option=_OPTION) from None
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise InputError(f"{file} is not what `trtbuild toolchain export` writes: {error}", option=_OPTION) from None
    if not locks:
        raise InputError(f"{file} holds no toolchain", option=_OPTION)
    return Taken(tuple(locks), wheels)


def _names(archive: zipfile.ZipFile, file: Path) -> list[str]:
    """Of the members, each once, stored as it is. Raises InputError."""
    members = archive.infolist()
    names = [member.filename for member in members]
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise InputError(f"{file} holds {member.filename!r} compressed or encrypted", option=_OPTION)
    if len(names) > _MOST or len(set(names)) < len(names):
        raise InputError(f"{file} holds more than {_MOST} files, or one of them twice", option=_OPTION)
    return names


def _lock(archive: zipfile.ZipFile, name: str, digest: str, file: Path) -> Lock:
    if archive.getinfo(name).file_size > _MAX_LOCK:
        raise InputError(f"{name} in {file} is too large for a lock", option=_OPTION)
    parsed = lock.parse(archive.read(name).decode("utf-8", errors="replace"), _OPTION, digest[:12], f"{file}, {name}")
    if parsed.digest != digest:
        raise InputError(f"{name} in {file} is another lock than its name says", option=_OPTION)
    return parsed


def _unpack(archive: zipfile.ZipFile, name: str, target: Path, hashes: set[str], file: Path) -> None:
    hasher = hashlib.sha256()
    with archive.open(name) as source, target.open("xb") as out:
        while piece := source.read(1 << 20):
            hasher.update(piece)
            out.write(piece)
    if hasher.hexdigest() not in hashes:
        raise InputError(
            f"{target.name} in {file} is not the wheel that was locked: its sha256 is {hasher.hexdigest()}",
            option=_OPTION,
            hint="bring the file again; who trusts these bytes makes a lock of their own: `trtbuild toolchain lock`",
        )
