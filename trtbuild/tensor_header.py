"""Reads the header of a .safetensors file through a function that gives its first bytes: a file here, or a ranged read.

Format: https://github.com/huggingface/safetensors#format: a little-endian u64, that many bytes of JSON, then the data.
Standard library only: the command line plans with it, and the workers read weights with it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trtbuild import foreign

_LIMIT = 100_000_000  # bytes: the library's own limit
_DIMENSIONS = 64  # of a tensor: what torch takes, and few enough for their product to be told at once
_FIRST = 1 << 16  # bytes: most headers are shorter, so that one read is enough
#: Bytes of one value, of the types whose values take whole bytes.
WIDTHS: Mapping[str, int] = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}


class Entry(Protocol):
    """What the header of a weight file says of a tensor, in safetensors or GGUF."""

    @property
    def kind(self) -> str:
        """Its type: "F32", "BF16", …, or the name that ggml gives it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """In Hugging Face's order, [out, in]."""


@dataclass(frozen=True)
class Tensor:
    """What a header says of a tensor: `kind` is its type's name, `begin` and `end` are bytes of the file."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Malformed(Exception):
    """The bytes are no header of a .safetensors file; its text says why."""


def parse(read: Callable[[int], bytes], size: int) -> dict[str, Tensor]:
    """Name -> tensor of a file of `size` bytes; `read(n)` gives its first n bytes (all, if it has fewer).

    Reads 100 MB at most, and nearly always 64 kB. Raises Malformed.
    """
    head = read(_FIRST)
    if len(head) < 8:
        raise Malformed("it is shorter than its 8-byte prefix")
    (length,) = struct.unpack("<Q", head[:8])
    if length > min(size - 8, _LIMIT):
        raise Malformed(f"its header should have {length} bytes and the file has {size}")
    if 8 + length > len(head):
        head = read(8 + length)
    if len(head) < 8 + length:
        raise Malformed(f"only {len(head)} of its {size} bytes could be read")
    try:
        entries = foreign.parse_object(head[8 : 8 + length], limit=_LIMIT)
    except foreign.Malformed as error:
        raise Malformed(f"its header {error}") from None
    entries.pop("__metadata__", None)
    return {name: _tensor(name, entry, 8 + length, size) for name, entry in entries.items()}


def _tensor(name: str, entry: Any, start: int, size: int) -> Tensor:
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise Malformed(f"its header's entry for {name} is malformed") from None
    if type(kind) is not str or len(shape) > _DIMENSIONS or {*map(type, (*shape, begin, end))} - {int}:
        raise Malformed(f"its header's entry for {name} is malformed")
    if not 0 <= begin <= end or start + end > size:
        raise Malformed(f"{name} should end at byte {start + end} and the file has {size}")
    if min(shape, default=0) < 0:
        raise Malformed(f"{name} has the shape {list(shape)}")
    if kind in WIDTHS and end - begin != math.prod(shape) * WIDTHS[kind]:
        raise Malformed(f"{name} has {end - begin} bytes, which do not fit {kind} {list(shape)}")
    return Tensor(kind, shape, start + begin, start + end)
