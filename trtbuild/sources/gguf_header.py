"""Reads a GGUF's architecture from its first bytes, and refuses what is no GGUF.

The gguf library maps the whole file and needs numpy; here the first 64 kB nearly always do, so that a
ranged read from the Hub is enough. Format: the GGUF specification (ggml/docs/gguf.md), versions 2 and 3,
little-endian.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from trtbuild import ggml_types
from trtbuild.errors import InputError

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
_FEW = 1024  # values of an array that are read: one a layer is what matters
_T = TypeVar("_T")


@dataclass(frozen=True)
class Entry:
    """A tensor's type, by ggml's name, and its shape in Hugging Face's order, [out, in]."""

    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """Metadata by key, and the tensors by name. Long arrays and those of strings have their length alone."""

    metadata: Mapping[str, Any]
    entries: Mapping[str, Entry]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors, as they stand in the file."""
        return tuple(self.entries)


#: `read_architecture` and `read_header`.
Reader: TypeAlias = Callable[[Callable[[int], bytes], int, str, str], _T]


def joined(parts: Sequence[Header]) -> Header | None:
    """The header of a model in several files, the first of which says what it is; None where there are none."""
    if not parts:
        return None
    entries = {name: entry for part in parts for name, entry in part.entries.items()}
    return Header(parts[0].metadata, entries)


class _Short(Exception):
    """The header goes on behind the bytes at hand."""


class _Malformed(Exception):
    """The bytes are no GGUF header; its text says why."""


def read_architecture(read: Callable[[int], bytes], size: int, file: str, option: str) -> str:
    """`general.architecture` of a GGUF of `size` bytes, called `file` in messages.

    `read(n)` gives its first n bytes (all, if it has fewer). Reads 16 MiB at most. Raises InputError.
    """
    return _read(_architecture, read, size, file, option)


def read_header(read: Callable[[int], bytes], size: int, file: str, option: str) -> Header:
    """The header of a GGUF, as `read_architecture` reads it."""
    return _read(_header, read, size, file, option)


def read_metadata(read: Callable[[int], bytes], size: int, file: str, option: str) -> Mapping[str, Any]:
    """All metadata of a GGUF with all their arrays, the tokenizer's included; read as `read_architecture` reads."""
    return _read(_metadata, read, size, file, option)


def _read(
    parse: Callable[[_Cursor], _T], read: Callable[[int], bytes], size: int, file: str, option: str
) -> _T:
    for window in _WINDOWS:
        head = read(window)
        try:
            return parse(_Cursor(head))
        except _Malformed as malformed:
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
    except _Malformed as malformed:
        raise _broken(file, option, str(malformed)) from None
    except _Short:
        raise _broken(file, option, "truncated: it is shorter than a header") from None


def _broken(file: str, option: str, why: str) -> InputError:
    return InputError(
        f"{file} is no usable GGUF file: {why}", option=option, hint="download or convert the model again"
    )


class _Cursor:
    def __init__(self, data: bytes) -> None:
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
        raise _Malformed("it does not begin with GGUF's magic")
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise _Malformed(f"its version is {version}, and versions 2 and 3 (little-endian) are read")


def _architecture(cursor: _Cursor) -> str:
    _start(cursor)
    cursor.skip(8)  # tensor count
    for _ in range(cursor.number("Q")):
        length = cursor.number("Q")
        if not 0 < length <= _KEY_LIMIT:
            raise _Malformed(f"a metadata key has {length} bytes")
        key = cursor.take(length)
        kind = cursor.number("I")
        if key == _KEY.encode():
            return _name(cursor, kind)
        _skip_value(cursor, kind)
    raise _Malformed(f"its metadata lacks {_KEY}")


def _header(cursor: _Cursor) -> Header:
    _start(cursor)
    tensors, pairs = cursor.number("Q"), cursor.number("Q")
    metadata = _pairs(cursor, pairs, most=_FEW)
    entries = dict(_entry(cursor) for _ in range(tensors))
    return Header(metadata, entries)


def _metadata(cursor: _Cursor) -> Mapping[str, Any]:
    _start(cursor)
    cursor.skip(8)  # tensor count
    return _pairs(cursor, cursor.number("Q"), most=None)


def _pairs(cursor: _Cursor, count: int, most: int | None) -> dict[str, Any]:
    return {_string(cursor): _value(cursor, cursor.number("I"), most) for _ in range(count)}


def _entry(cursor: _Cursor) -> tuple[str, Entry]:
    name, dimensions = _string(cursor), cursor.number("I")
    if dimensions > _DIMENSIONS:
        raise _Malformed(f"a tensor has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    number = cursor.number("I")
    cursor.skip(8)  # its place
    return name, Entry(
        ggml_types.NAMES.get(number, f"type {number}"), shape[::-1]
    )  # ggml's first is the fastest


def _string(cursor: _Cursor) -> str:
    length = cursor.number("Q")
    if length > _KEY_LIMIT:
        raise _Malformed(f"a name has {length} bytes")
    return cursor.take(length).decode("utf-8", "replace")


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
    return cursor.take(cursor.number("Q")).decode("utf-8", "replace")


def _name(cursor: _Cursor, kind: int) -> str:
    length = cursor.number("Q") if kind == _STRING else 0
    raw = cursor.take(length) if length <= 64 else b""
    # It is shown to people: nothing but a plain name, so no control sequence reaches a terminal.
    if not re.fullmatch(rb"[A-Za-z0-9._-]+", raw):
        raise _Malformed(f"{_KEY} is not a plain name")
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
            raise _Malformed(f"an array holds values of the unknown type {item}")
    else:
        raise _Malformed(f"a value has the unknown type {kind}")
