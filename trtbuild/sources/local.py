"""A checkpoint on this machine: a folder of safetensors or GGUF, or one .gguf file."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from trtbuild.errors import InputError
from trtbuild.formats import gguf as gguf_header
from trtbuild.formats import safetensors
from trtbuild.formats.gguf import GgufHeader
from trtbuild.formats.weight_file import HeaderReader, PlacedTensor
from trtbuild.sources import refusals, regular, select
from trtbuild.sources.base import Headers, Json, Progress, Request, SourceFile, local_path, parse_config
from trtbuild.sources.file_snapshot import FileSnapshot, recheck, take_snapshots
from trtbuild.sources.refusals import FileListing

_T = TypeVar("_T")
_START = 64  # bytes that tell a pointer from a file
_MOST = 50_000  # entries of a folder
_SMALL = 1 << 28  # bytes of a file that is read as a whole: no tokenizer has so many
_DEEP, _MANY = 4, 5000  # folders within folders, and files, that are looked at for a message


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

    in_place = True

    def __init__(self, request: Request, folder: Path, gguf: str | None) -> None:
        self._request = request
        self._folder = folder
        self._gguf = gguf  # the one file that was named
        self._read_before: dict[str, dict[str, PlacedTensor]] = {}

    def describe(self) -> str:
        # Without the path, which would tell others about this machine; the identity says which checkpoint it was.
        return "folder" if self._gguf is None else "file"

    def files(self) -> tuple[SourceFile, ...]:
        return tuple(SourceFile(name, seen.size, seen.sha256) for name, seen in self._seen.items())

    def config(self) -> Mapping[str, Json] | None:
        if select.CONFIG not in self._paths:
            return None
        path = self._paths[select.CONFIG]
        return parse_config(_head(path, -1, self._request.option), str(path), self._request.option)

    def gguf_architecture(self) -> str | None:
        first = next((name for name in self._paths if name.endswith(".gguf")), None)
        return None if first is None else self._read(gguf_header.read_architecture, self._paths[first])

    def gguf_header(self) -> GgufHeader | None:
        return gguf_header.joined(list(self._gguf_headers.values()))

    def gguf_metadata(self) -> Mapping[str, Json] | None:
        first = next((name for name in self._paths if name.endswith(".gguf")), None)
        return None if first is None else self._read(gguf_header.read_metadata, self._paths[first])

    def headers(self) -> Headers:
        if self._gguf_headers:
            return Headers({name: header.tensors for name, header in self._gguf_headers.items()}, None)
        index = None
        if select.INDEX in self._paths:
            index = select.weight_map(self._small(select.INDEX))
        shards = [name for name in self._paths if name.endswith(".safetensors")]
        return Headers({name: self._tensors(name) for name in shards}, index)

    def _tensors(self, name: str) -> dict[str, PlacedTensor]:
        """Those of a .safetensors file, whose header is read once."""
        if name not in self._read_before:
            self._read_before[name] = self._read(safetensors.read_header, self._paths[name])
        return self._read_before[name]

    @cached_property
    def _gguf_headers(self) -> dict[str, GgufHeader]:
        parts = {name: path for name, path in self._paths.items() if name.endswith(".gguf")}
        return {name: self._read(gguf_header.read_header, path) for name, path in parts.items()}

    def small(self, names: Collection[str]) -> Mapping[str, bytes]:
        return {name: self._small(name) for name in self._paths if name in names}

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
        listing = FileListing(
            names,
            str(self._folder),
            option,
            naming=f"model.source={self._folder}/<file>.gguf",
            below=lambda: _below(self._folder),
        )
        one = self._gguf
        chosen = select.choose(listing, self._small) if one is None else select.choose_gguf(listing, one)
        chosen |= self._tokenizer(listing, chosen)
        return {name: self._folder / real for name, real in sorted(chosen.items())}

    def _small(self, name: str) -> bytes:
        path, option = self._folder / name, self._request.option
        text = _head(path, -1, option)
        refusals.check_pointer(text, str(path), option)
        return text

    def _tokenizer(self, listing: FileListing, chosen: Mapping[str, str]) -> dict[str, str]:
        """What lies beside a GGUF, and is read because its own tokenizer is not understood."""
        first = min(chosen)
        understood = self._request.understood
        if understood is None or not first.endswith(".gguf"):
            return {}
        beside = select.beside_gguf(listing, chosen)
        if not beside:
            return {}
        path, option = self._folder / chosen[first], self._request.option
        refusals.check_pointer(_head(path, _START, option), str(path), option)
        return {} if understood(self._read(gguf_header.read_header, path).metadata) else beside

    @cached_property
    def _seen(self) -> dict[str, FileSnapshot]:
        option = self._request.option
        # What is cheap to find out comes before what takes a second a gigabyte.
        for name, path in self._paths.items():
            refusals.check_pointer(_head(path, _START, option), str(path), option)
            if name.endswith(".safetensors"):
                self._tensors(name)
            elif name.endswith(".gguf"):
                gguf_header.check_start(_head(path, 8, option), str(path), option)
        self.gguf_architecture()
        seen = take_snapshots(list(self._paths.values()), self._request.digester, option)
        return dict(zip(self._paths, seen, strict=True))

    def _read(self, reader: HeaderReader[_T], path: Path) -> _T:
        option = self._request.option

        def read(count: int) -> bytes:
            head = _head(path, count, option)
            refusals.check_pointer(head, str(path), option)
            return head

        return reader(read, path.stat().st_size, str(path), option)


def _names(folder: Path, option: str) -> set[str]:
    try:
        names = _listed(folder, option)
        templates = folder / refusals.TEMPLATES
        if templates.is_dir():
            templated = (refusals.TEMPLATES + name for name in _listed(templates, option))
            names |= {name for name in templated if select.is_template(name)}
        return names
    except OSError as failure:
        raise InputError(f"{folder} cannot be read: {failure.strerror}", option=option) from None


def _listed(folder: Path, option: str) -> set[str]:
    """The regular files of `folder`, links to such included. Raises InputError, OSError."""
    names: set[str] = set()
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count >= _MOST:
                raise InputError(
                    f"{folder} has more than {_MOST} files",
                    option=option,
                    hint="name a folder with a checkpoint and little else",
                )
            if os.fsencode(entry.name).decode("utf-8", "replace") == entry.name:
                if entry.is_file():
                    names.add(entry.name)
            elif entry.name.endswith((".safetensors", ".gguf")):
                raise InputError(
                    f"{folder} holds {entry.name!a}, whose name is not UTF-8",
                    option=option,
                    hint="rename it",
                )
    return names


def _below(folder: Path) -> list[str]:
    """Files of the folders inside, some of them: what a message can name."""
    below: list[str] = []
    for root, folders, names in os.walk(folder):
        here = Path(root).relative_to(folder)
        if len(here.parts) >= _DEEP or len(below) > _MANY:
            folders.clear()
        folders[:] = sorted(name for name in folders if name != ".git")
        below += [(here / name).as_posix() for name in sorted(names) if here.parts]
    return below


def _head(path: Path, count: int, option: str) -> bytes:
    """The first `count` bytes; for -1 all of them, of a file that is small enough to be read as a whole."""
    try:
        with regular.opened(path) as stream:
            return stream.read(_SMALL + 1 if count < 0 else count)
    except OSError as failure:
        raise InputError(f"{path} cannot be read: {failure.strerror}", option=option) from None
