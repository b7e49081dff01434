"""The interface of all sources of checkpoints, and the identity of a checkpoint."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import rfc8785

from trtbuild import untrusted
from trtbuild.errors import InputError
from trtbuild.formats.gguf import GgufHeader
from trtbuild.formats.weight_file import TensorInfo

#: Whether the tokenizer in a GGUF's metadata (long arrays as their lengths) is understood.
Understood: TypeAlias = Callable[[Mapping[str, Any]], bool]

Json: TypeAlias = Any  # a value that json.loads can return
#: called with what is being fetched, bytes done, bytes in all
Progress: TypeAlias = Callable[[str, int, int], None]

#: the forms of model.source, for hints
FORMS = (
    "model.source takes a path (/path/to/folder, /path/to/file.gguf), a repository of the Hub "
    "(hf://org/name, hf://org/name/file.gguf, with @revision if need be) or wheel:name==version"
)


@dataclass(frozen=True)
class SourceFile:
    """One file that a build reads: its logical path ("/" between parts), bytes, and 64 hex digits."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class WheelSpec:
    """A wheel on a package index, and the file in it that is the model; both are pinned by SHA-256 (hex).

    `requirement` is exact (name==version), `member` the file's path inside, `file_size` its bytes.
    """

    requirement: str
    wheel_sha256: str
    member: str
    file_sha256: str
    file_size: int


class Digester(Protocol):
    """Hashes files, many at a time, and may remember the digest of each by its stat."""

    def file_digests(self, paths: Sequence[Path]) -> list[str]:
        """The sha256 of each file's bytes, 64 lowercase hex digits, in the order of `paths`.

        Raises OSError, or StoreFailure, for a file that cannot be read or changes meanwhile.
        """
        ...


@dataclass(frozen=True)
class Headers:
    """What the weight files say of themselves: logical name -> tensors by their stored names.

    `index` is the weight_map of model.safetensors.index.json; None where there is none.
    """

    files: Mapping[str, Mapping[str, TensorInfo]]
    index: Mapping[str, str] | None


class Source(Protocol):
    """A checkpoint that can be named by content before it is here."""

    @property
    def in_place(self) -> bool:
        """Whether it is the user's own files, read where they are: no store stands in for those."""
        ...

    def describe(self) -> str:
        """Where these bytes come from, for provenance; no secret, no path of this machine."""
        ...

    def files(self) -> tuple[SourceFile, ...]:
        """The files that a build reads, sorted by path; downloads no weight whose digest is published.

        Raises InputError.
        """
        ...

    def config(self) -> Mapping[str, Json] | None:
        """The parsed config.json; None for GGUF. Raises InputError."""
        ...

    def gguf_architecture(self) -> str | None:
        """`general.architecture` of a GGUF; None for safetensors, and where it is not known before `fetch`.

        Raises InputError.
        """
        ...

    def gguf_header(self) -> GgufHeader | None:
        """What a GGUF says of itself; None where `gguf_architecture` is None.

        Raises InputError.
        """
        ...

    def gguf_metadata(self) -> Mapping[str, Any] | None:
        """All that a GGUF says of itself, the tokenizer's lists included; None where `gguf_header` is None.

        Raises InputError.
        """
        ...

    def headers(self) -> Headers | None:
        """The headers of the weight files; None where they are not known before `fetch` (a wheel, no network).

        Raises InputError for a file that is broken.
        """
        ...

    def small(self, names: Collection[str]) -> Mapping[str, bytes]:
        """The bytes of those of the files `names`, by logical path, that are there; none may hold weights.

        Raises InputError.
        """
        ...

    def fetch(self, keep: Path, progress: Progress) -> Mapping[str, Path]:
        """Logical path to a file on this disk with the sha256 of `files()`.

        What no cache of its own keeps is put into the folder `keep`. Raises InputError when bytes differ;
        the wrong copy is then gone.
        """
        ...

    def recheck(self) -> None:
        """Raises BuildError if a file that was given out is no longer what `files()` said."""
        ...


@dataclass(frozen=True)
class Request:
    """What the config says of a checkpoint."""

    source: str
    revision: str | None
    digester: Digester
    spec: WheelSpec | None
    understood: Understood | None = None

    @property
    def option(self) -> str:
        """The option as the user would write it, for errors."""
        return f"model.source={self.source}"

    def refuse_revision(self) -> None:
        """Raises InputError if a revision is given for a source without revisions."""
        if self.revision is not None:
            raise InputError(
                f"a revision is of a Hub repository, and {self.source} is none",
                option=f"model.revision={self.revision}",
                hint="leave model.revision out, or take model.source=hf://org/name",
            )


def identity(files: Sequence[SourceFile]) -> str:
    """The sha256 (hex) of the canonical JSON (RFC 8785) of [[path, size, sha256], …], sorted by path."""
    rows = tuple((file.path, file.size, file.sha256) for file in sorted(files, key=lambda file: file.path))
    return hashlib.sha256(rfc8785.dumps(rows)).hexdigest()


def parse_config(text: bytes, where: str, option: str) -> dict[str, Json]:
    """The JSON object in a config.json, called `where` in messages. Raises InputError."""
    return untrusted.json_object(text, where, option=option, hint="download the checkpoint again")


def is_sha256(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def local_path(source: str) -> Path:
    """`source` as a path, with ~ expanded where there is such a home."""
    try:
        return Path(source).expanduser()
    except RuntimeError:  # "~name" without such a user: a file may have that name
        return Path(source)
