"""Reads the header of a .gguf file: metadata, and names, types, shapes and places of its tensors.

The format is the GGUF specification's (ggml/docs/gguf.md), versions 2 and 3, little-endian. gguf's own reader
maps the file and trusts its counts; this one bounds every read, so that a cut file is an error by name.
"""

from __future__ import annotations

import math
import mmap
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from trtbuild.errors import InputError
from trtbuild.networks.stored import Stored, broken

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# GGUF's value types: number -> struct's code.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ARRAY_LIMIT = 1 << 24  # values: far above any vocabulary, and far below what exhausts memory
_PLAIN = ("F32", "F16", "BF16")


class _Cursor:
    """A place in the mapped header; every step is bounded by the file's end."""

    def __init__(self, data: mmap.mmap, file: str) -> None:
        self.data, self.file, self.at = data, file, 0

    def take(self, code: str, count: int = 1) -> tuple[Any, ...]:
        layout = f"<{count}{code}"
        size = struct.calcsize(layout)
        if self.at + size > len(self.data):
            raise broken(self.file, f"its header ends early, at byte {len(self.data)}")
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += size
        return values

    def string(self) -> str:
        (length,) = self.take("Q")
        if self.at + length > len(self.data):
            raise broken(self.file, f"a string of {length} bytes at byte {self.at} reaches beyond its end")
        raw = self.data[self.at : self.at + length]
        self.at += length
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise broken(self.file, f"the string before byte {self.at} is not UTF-8") from None

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.take(_SCALARS[kind])[0]
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise broken(self.file, f"value type {kind} at byte {self.at} is unknown")
        (item, count) = (self.take("I")[0], self.take("Q")[0])
        if count > _ARRAY_LIMIT or item == _ARRAY:
            raise broken(
                self.file, f"the array of {count} values before byte {self.at} is none that GGUF has"
            )
        if item in _SCALARS:
            return list(self.take(_SCALARS[item], count))
        return [self.value(item) for _ in range(count)]


def read_header(path: Path, file: str) -> tuple[dict[str, Any], dict[str, Stored]]:
    """Metadata and tensors, by ggml's names, of the file at `path`, called `file` in messages.

    Raises InputError when the file is broken or holds a type that cannot be dequantized.
    """
    if path.stat().st_size < 24:
        raise broken(file, "it is shorter than a GGUF header")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(data, file)
        if data[:4] != _MAGIC:
            raise broken(file, "it does not begin with GGUF's magic")
        cursor.at = 4
        version, tensors, pairs = cursor.take("I")[0], *cursor.take("Q", 2)
        if version not in _VERSIONS:
            raise InputError(
                f"{file} has GGUF version {version}: supported are 2 and 3, little-endian",
                option="model.source",
                hint="convert the model again with a current llama.cpp",
            )
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = cursor.string()
            metadata[key] = cursor.value(cursor.take("I")[0])
        entries = [_entry(cursor) for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise broken(file, f"general.alignment is {alignment!r}")
        start = -(-cursor.at // alignment) * alignment
    length = path.stat().st_size
    return metadata, {entry[0]: _stored(path, file, entry, start, length) for entry in entries}


def _entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string()
    (dimensions,) = cursor.take("I")
    if dimensions > 4:
        raise broken(cursor.file, f"{name} has {dimensions} dimensions")
    shape = tuple(reversed(cursor.take("Q", dimensions)))  # ggml's first dimension is the fastest
    return name, shape, cursor.take("I")[0], cursor.take("Q")[0]


@cache
def _can_dequantize(kind: GGMLQuantizationType) -> bool:
    block = np.zeros((1, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    try:
        dequantize(block, kind)
    except NotImplementedError:
        return False
    return True


def _stored(
    path: Path, file: str, entry: tuple[str, tuple[int, ...], int, int], start: int, length: int
) -> Stored:
    name, shape, number, offset = entry
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        raise broken(file, f"{name} has the unknown type {number}") from None
    if kind.name not in _PLAIN and not _can_dequantize(kind):
        raise InputError(
            f"{file} stores {name} as {kind.name}, which cannot be dequantized here",
            option="model.source",
            hint="choose a file of type Q4_K_M, Q8_0, F16 or the like",
        )
    block, width = GGML_QUANT_SIZES[kind]
    if shape and shape[-1] % block:
        raise broken(file, f"{name} has rows of {shape[-1]}, not a multiple of {kind.name}'s {block}")
    size = math.prod(shape) // block * width
    if start + offset + size > length:
        raise broken(file, f"{name} should end at byte {start + offset + size} and the file has {length}")
    return Stored(path, file, name, kind.name, shape, start + offset, size)
