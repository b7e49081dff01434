"""The one reader of a GGUF's header: from its first bytes for plans, from the whole file for workers.

The gguf library maps the whole file and needs numpy; here the first 64 kB nearly always do, so that a
ranged read from the Hub is enough. Format: the GGUF specification (ggml/docs/gguf.md), versions 2 and 3,
little-endian.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trtbuild.errors import InputError
from trtbuild.formats import ggml_types
from trtbuild.formats.weight_file import BadHeader, PlacedTensor, ReadHead

# Converters write the architecture first; a vocabulary that stands before it takes some megabytes.
_WINDOWS = (1 << 16, 1 << 20, 1 << 24)
_KEY = "general.architecture"
_KEY_LIMIT = 65535  # bytes, as the specification says
_VERSIONS = (2, 3)
# value type -> struct's code: u8 i8 u16 i16 u32 i32 f32 bool u64 i64 f64
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SIZES = {kind: struct.calcsize(f"<{code}") for kind, code in _CODES.items()}
_STRING, _ARRAY = 8, 9
_DIMENSIONS = 4  # GGML_MAX_DIMS
_ARRAY_LIMIT = 1 << 24  # values: far above any vocabulary, and far below what exhausts memory
_FEW = 1024  # values of an array that are read: one a layer is what matters
_T = TypeVar("_T")


@dataclass(frozen=True)
class GgufHeader:
    """Metadata by key, and the tensors by name. Where plans read it, long arrays and those of strings are ranges of
    their length."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, PlacedTensor]


def joined(parts: Sequence[GgufHeader]) -> GgufHeader | None:
    """The header of a model in several files, the first of which says what it is; None where there are none."""
    if not parts:
        return None
    tensors = {name: tensor for part in parts for name, tensor in part.tensors.items()}
    return GgufHeader(parts[0].metadata, tensors)


class _Short(Exception):
    """The header goes on behind the bytes at hand."""


def read_architecture(read: ReadHead, size: int, file: str, option: str) -> str:
    """`general.architecture` of a GGUF of `size` bytes, called `file` in messages.

    `read(n)` gives its first n bytes (all, if it has fewer). Reads 16 MiB at most. Raises InputError.
    """
    return _read(_architecture, read, size, file, option)


def read_header(read: ReadHead, size: int, file: str, option: str) -> GgufHeader:
    """The header of a GGUF without its long arrays, as `read_architecture` reads it."""
    return _read(lambda cursor: _header(cursor, size, most=_FEW), read, size, file, option)


def read_file(path: Path, file: str, option: str) -> GgufHeader:
    """The whole header of the GGUF at `path`, called `file` in messages, however long it is. Raises InputError."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size < 24:
            raise _broken(file, option, "truncated: it is shorter than a header")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _header(_Cursor(data), size, most=None)
            except BadHeader as malformed:
                raise _broken(file, option, str(malformed)) from None
            except _Short:
                raise _broken(file, option, f"truncated: its header goes on behind byte {size}") from None


def read_metadata(read: ReadHead, size: int, file: str, option: str) -> Mapping[str, Any]:
    """All metadata of a GGUF with all their arrays, the tokenizer's included; read as `read_architecture` reads."""
    return _read(_metadata, read, size, file, option)


def _read(parse: Callable[[_Cursor], _T], read: ReadHead, size: int, file: str, option: str) -> _T:
    for window in _WINDOWS:
        head = read(window)
        try:
            return parse(_Cursor(head))
        except BadHeader as malformed:
            raise _broken(file, option, str(malformed)) from None
        except _Short:
            if len(head) >= size:
                raise _broken(file, option, f"truncated: its header goes on behind byte {size}") from None
            if len(head) < window:
                raise _broken(file, option, f"only {len(head)} of its {size} bytes could be read") from None
    raise _broken(file, option, f"what it says of itself is not in its first {_WINDOWS[-1] >> 20} MiB")


def check_start(head: bytes, file: str, option: str) -> None:
    """Raises InputError unless `head` (8 bytes or more) begins a GGUF: all that parts 2… of a split model have."""
    try:
        _start(_Cursor(head))
    except BadHeader as malformed:
        raise _broken(file, option, str(malformed)) from None
    except _Short:
        raise _broken(file, option, "truncated: it is shorter than a header") from None


def _broken(file: str, option: str, why: str) -> InputError:
    return InputError(
        f"{file} is no usable GGUF file: {why}", option=option, hint="download or convert the model again"
    )


class _Cursor:
    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data, self.at = data, 0

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self._data):
            raise _Short
        taken = self._data[self.at : end]
        self.at = end
        return taken

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self._data):
            raise _Short

    def number(self, code: str) -> int:
        return int(self.scalar(code))

    def scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]


def _start(cursor: _Cursor) -> None:
    magic = cursor.take(4)
    if magic != b"GGUF":
        raise BadHeader("it does not begin with GGUF's magic")
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise BadHeader(f"its version is {version}, and versions 2 and 3 (little-endian) are read")


def _architecture(cursor: _Cursor) -> str:
    _start(cursor)
    cursor.skip(8)  # tensor count
    for _ in range(cursor.number("Q")):
        length = cursor.number("Q")
        if not 0 < length <= _KEY_LIMIT:
            raise BadHeader(f"a metadata key has {length} bytes")
        key = cursor.take(length)
        kind = cursor.number("I")
        if key == _KEY.encode():
            return _name(cursor, kind)
        _skip_value(cursor, kind)
    raise BadHeader(f"its metadata lacks {_KEY}")


def _header(cursor: _Cursor, size: int, most: int | None) -> GgufHeader:
    _start(cursor)
    count, pairs = cursor.number("Q"), cursor.number("Q")
    metadata = _pairs(cursor, pairs, most)
    entries: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for _ in range(count):
        name, kind, shape, offset = _entry(cursor)
        if name in entries:
            raise BadHeader(f"it lists the tensor {name} twice")
        entries[name] = (kind, shape, offset)
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1:
        raise BadHeader(f"general.alignment is {str(alignment)[:60]!r}")
    start = -(-cursor.at // alignment) * alignment
    tensors = {name: _placed(name, *entry, start, size) for name, entry in entries.items()}
    _refuse_overlaps(tensors)
    return GgufHeader(metadata, tensors)


def _placed(name: str, kind: str, shape: tuple[int, ...], offset: int, start: int, size: int) -> PlacedTensor:
    # A type that is unknown here has no known size, and is refused by name where its values are needed.
    block, width = ggml_types.BLOCKS.get(kind, (1, 0))
    if shape and shape[-1] % block:
        raise BadHeader(f"{name} has rows of {shape[-1]}, not a multiple of {kind}'s {block}")
    begin = start + offset
    end = begin + math.prod(shape) // block * width
    if end > size:
        raise BadHeader(f"truncated: {name} should end at byte {end} and the file has {size}")
    return PlacedTensor(kind, shape, begin, end)


def _refuse_overlaps(tensors: Mapping[str, PlacedTensor]) -> None:
    free, before = 0, ""
    # A type that cannot be read is refused by its own name later.
    readable = {name: tensor for name, tensor in tensors.items() if not ggml_types.unreadable(tensor.kind)}
    for begin, end, name in sorted((tensor.begin, tensor.end, name) for name, tensor in readable.items()):
        if begin < free and begin < end:
            raise BadHeader(f"{name} begins at byte {begin}, within {before}")
        if end > free:
            free, before = end, name


def _metadata(cursor: _Cursor) -> Mapping[str, Any]:
    _start(cursor)
    cursor.skip(8)  # tensor count
    return _pairs(cursor, cursor.number("Q"), most=None)


def _pairs(cursor: _Cursor, count: int, most: int | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        key = _string(cursor)
        if key in metadata:
            raise BadHeader(f"it has the metadata key {key} twice")
        metadata[key] = _value(cursor, cursor.number("I"), most)
    return metadata


def _entry(cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int]:
    """A tensor's name, type, shape and offset."""
    name, dimensions = _string(cursor), cursor.number("I")
    if dimensions > _DIMENSIONS:
        raise BadHeader(f"{name} has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    number = cursor.number("I")
    kind = ggml_types.NAMES.get(number, f"type {number}")
    return name, kind, shape[::-1], cursor.number("Q")  # ggml's first dimension is the fastest


def _string(cursor: _Cursor) -> str:
    length = cursor.number("Q")
    if length > _KEY_LIMIT:
        raise BadHeader(f"a name has {length} bytes")
    return _decoded(cursor, length)


def _value(cursor: _Cursor, kind: int, most: int | None) -> Any:
    """A value; of an array of more than `most` values or of strings, something of its length."""
    if kind in _CODES:
        return cursor.scalar(_CODES[kind])
    if kind == _STRING:
        return _text(cursor)
    at = cursor.at
    _skip_value(cursor, kind)  # so that a count is known to be true before anything of its length is made
    if kind != _ARRAY:
        return None
    after, cursor.at = cursor.at, at
    item, count = cursor.number("I"), cursor.number("Q")
    if item in _CODES and (most is None or count <= most):
        return list(struct.unpack(f"<{count}{_CODES[item]}", cursor.take(count * _SIZES[item])))
    if most is None:
        return [_text(cursor) for _ in range(count)]
    cursor.at = after
    return range(count)


def _text(cursor: _Cursor) -> str:
    return _decoded(cursor, cursor.number("Q"))


def _decoded(cursor: _Cursor, length: int) -> str:
    try:
        return cursor.take(length).decode("utf-8")
    except UnicodeDecodeError:
        raise BadHeader(f"the text before byte {cursor.at} is not UTF-8") from None


def _name(cursor: _Cursor, kind: int) -> str:
    length = cursor.number("Q") if kind == _STRING else 0
    raw = cursor.take(length) if length <= 64 else b""
    # It is shown to people: nothing but a plain name, so no control sequence reaches a terminal.
    if not re.fullmatch(rb"[A-Za-z0-9._-]+", raw):
        raise BadHeader(f"{_KEY} is not a plain name")
    return raw.decode("ascii")


def _skip_value(cursor: _Cursor, kind: int) -> None:
    if kind in _SIZES:
        cursor.skip(_SIZES[kind])
    elif kind == _STRING:
        cursor.skip(cursor.number("Q"))
    elif kind == _ARRAY:
        item, count = cursor.number("I"), cursor.number("Q")
        if item in _SIZES:
            cursor.skip(_SIZES[item] * count)
        elif item == _STRING:
            for _ in range(count):  # every turn takes 8 bytes or ends in _Short
                cursor.skip(cursor.number("Q"))
        else:
            raise BadHeader(f"an array holds values of the unknown type {item}")
        if count > _ARRAY_LIMIT:
            raise BadHeader(f"the array of {count} values before byte {cursor.at} is none that GGUF has")
    else:
        raise BadHeader(f"a value has the unknown type {kind}")
