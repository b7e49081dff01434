"""What safetensors and GGUF have in common: a header, read from a file's first bytes, that lists tensors.

Standard library only: the command line plans with it, and the workers read weights with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

_T = TypeVar("_T")
_PIECE = 1 << 22  # bytes compared at a time

#: Gives the first n bytes of a file, or all of them if the file has fewer.
ReadHead: TypeAlias = Callable[[int], bytes]
#: Takes the file's first bytes, its size, its name in messages, and the option that named it. Raises InputError.
HeaderReader: TypeAlias = Callable[[ReadHead, int, str, str], _T]


class BadHeader(Exception):
    """The bytes are no usable header; the text says why."""


@dataclass(frozen=True)
class TensorInfo:
    """The type of a tensor ("F32", "BF16", … or ggml's name), and its shape in Hugging Face's order, [out, in]."""

    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PlacedTensor(TensorInfo):
    """A tensor whose values are the bytes from `begin` to `end` of its file."""

    begin: int
    end: int


def read_file(reader: HeaderReader[_T], path: Path, file: str, option: str) -> _T:
    """What `reader` makes of the file at `path`, called `file` in messages. Raises InputError, OSError."""
    with path.open("rb") as stream:

        def read_head(count: int) -> bytes:
            stream.seek(0)
            return stream.read(count)

        return reader(read_head, os.fstat(stream.fileno()).st_size, file, option)


def same_values(path: Path, tensor: PlacedTensor, other_path: Path, other: PlacedTensor) -> bool:
    """Whether two tensors have the same type, shape and bytes; a few megabytes are in memory at a time."""
    if (tensor.kind, tensor.shape) != (other.kind, other.shape):
        return False
    if tensor.end - tensor.begin != other.end - other.begin:
        return False
    with path.open("rb") as left, other_path.open("rb") as right:
        left.seek(tensor.begin)
        right.seek(other.begin)
        for position in range(tensor.begin, tensor.end, _PIECE):
            count = min(_PIECE, tensor.end - position)
            if left.read(count) != right.read(count):
                return False
    return True
