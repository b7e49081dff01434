"""A checkpoint on this machine: a folder of safetensors or GGUF, or one .gguf file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from trtbuild.errors import InputError
from trtbuild.sources import gguf_header, safetensors_header, select
from trtbuild.sources.base import Json, Progress, Request, SourceFile, local_path, parse_config
from trtbuild.sources.gguf_header import Header, Reader
from trtbuild.sources.sighting import Sighting, recheck, see
from trtbuild.tensor_header import Tensor

_T = TypeVar("_T")


def open_source(request: Request) -> LocalSource:
    """Raises InputError for a path that is neither a folder nor a GGUF file."""
    request.refuse_revision()
    path = local_path(request.source).absolute()
    if path.is_dir():
        return LocalSource(request, path, None)
    if not path.is_file():
        raise InputError(f"{path} is neither a folder nor a file", option=request.option)
    # By its name or by its first bytes: a cache keeps a GGUF under its digest, and a wrong file ending in
    # .gguf is told so.
    if path.suffix.lower() != ".gguf" and _head(path, 4, request.option) != b"GGUF":
        raise InputError(
            f"{path} is no .gguf file",
            option=request.option,
            hint="name the folder that holds the checkpoint",
        )
    return LocalSource(request, path.parent, path.name)


class LocalSource:
    """Files where they are: nothing is copied. Links are followed, as in the Hub's own cache."""

    def __init__(self, request: Request, folder: Path, gguf: str | None) -> None:
        self._request = request
        self._folder = folder
        self._gguf = gguf  # the one file that was named

    def describe(self) -> str:
        # Not where: a path would tell others of this machine, and the identity says what it was.
        return "folder" if self._gguf is None else "file"

    def files(self) -> tuple[SourceFile, ...]:
        return tuple(SourceFile(name, seen.size, seen.sha256) for name, seen in self._seen.items())

    def config(self) -> Mapping[str, Json] | None:
        if select.CONFIG not in self._paths:
            return None
        path = self._paths[select.CONFIG]
        return parse_config(_head(path, -1, self._request.option), str(path), self._request.option)

    def gguf_architecture(self) -> str | None:
        first = next(iter(self._paths))
        return (
            self._read(gguf_header.read_architecture, self._paths[first]) if first.endswith(".gguf") else None
        )

    def gguf_header(self) -> Header | None:
        parts = [path for name, path in self._paths.items() if name.endswith(".gguf")]
        return gguf_header.joined([self._read(gguf_header.read_header, path) for path in parts])

    def tensors(self) -> Mapping[str, Mapping[str, Tensor]] | None:
        files = {name: path for name, path in self._paths.items() if name.endswith(".safetensors")}
        option = self._request.option
        return {
            name: safetensors_header.tensors(_reader(path, option), path.stat().st_size, str(path), option)
            for name, path in files.items()
        } or None

    def small(self, names: Collection[str]) -> Mapping[str, bytes]:
        return {
            name: _head(path, -1, self._request.option) for name, path in self._paths.items() if name in names
        }

    def fetch(self, keep: Path, progress: Progress) -> Mapping[str, Path]:  # noqa: ARG002  # all is here already
        recheck(self._seen.values(), self._request.digester, self._request.option)
        return dict(self._paths)

    def recheck(self) -> None:
        recheck(self._seen.values(), self._request.digester, self._request.option)

    @cached_property
    def _paths(self) -> dict[str, Path]:
        """Logical name -> file, sorted by logical name."""
        option = self._request.option
        names = _names(self._folder, option)
        listing = select.Listing(
            names, str(self._folder), option, naming=f"model.source={self._folder}/<file>.gguf"
        )
        if self._gguf is None:
            chosen = select.choose(listing, lambda name: _head(self._folder / name, -1, option))
        else:
            chosen = select.choose_gguf(listing, self._gguf)
        return {name: self._folder / real for name, real in sorted(chosen.items())}

    @cached_property
    def _seen(self) -> dict[str, Sighting]:
        option = self._request.option
        # What is cheap to find out comes before what takes a second a gigabyte.
        for name, path in self._paths.items():
            if name.endswith(".safetensors"):
                safetensors_header.check(path, option)
            elif name.endswith(".gguf"):
                gguf_header.check_start(_head(path, 8, option), str(path), option)
        self.gguf_architecture()
        seen = see(list(self._paths.values()), self._request.digester, option)
        return dict(zip(self._paths, seen, strict=True))

    def _read(self, reader: Reader[_T], path: Path) -> _T:
        option = self._request.option
        return reader(lambda count: _head(path, count, option), path.stat().st_size, str(path), option)


def _names(folder: Path, option: str) -> set[str]:
    try:
        return {entry.name for entry in folder.iterdir() if entry.is_file()}
    except OSError as failure:
        raise InputError(f"{folder} cannot be read: {failure.strerror}", option=option) from None


def _reader(path: Path, option: str) -> Callable[[int], bytes]:
    return lambda count: _head(path, count, option)


def _head(path: Path, count: int, option: str) -> bytes:
    """The first `count` bytes; all of them for -1."""
    try:
        with path.open("rb") as stream:
            return stream.read(count)
    except OSError as failure:
        raise InputError(f"{path} cannot be read: {failure.strerror}", option=option) from None
