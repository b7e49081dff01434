"""The one reader of the header of a .safetensors file: for plans, workers and the check before hashing.

Format: https://github.com/huggingface/safetensors#format: a little-endian u64, that many bytes of JSON, then the data,
which the tensors fill without holes. A download that was cut off is the most common broken checkpoint, and the header
and the file's size show it in a millisecond. Standard library only.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

from trtbuild import untrusted
from trtbuild.errors import InputError
from trtbuild.formats.weight_file import BadHeader, PlacedTensor, ReadHead

_LIMIT = 100_000_000  # bytes: the library's own limit
_DIMENSIONS = 64  # of a tensor: torch's limit, and few enough for their product to be computed at once
_FIRST = 1 << 16  # bytes: most headers are shorter, so that one read is enough
#: Bytes of one value, of the types whose values take whole bytes.
WIDTHS: Mapping[str, int] = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}


def read_header(read_head: ReadHead, size: int, file: str, option: str) -> dict[str, PlacedTensor]:
    """The tensors, by name, of a file of `size` bytes, called `file` in messages.

    Reads 100 MB at most, and nearly always 64 kB. Raises InputError for a file that is truncated or malformed.
    """
    try:
        return _parse(read_head, size)
    except BadHeader as malformed:
        raise InputError(
            f"{file} is no usable safetensors file: {malformed}",
            option=option,
            hint="download the file again",
        ) from None


def _parse(read_head: ReadHead, size: int) -> dict[str, PlacedTensor]:
    head = read_head(_FIRST)
    if len(head) < 8:
        raise BadHeader(f"truncated: it has {size} bytes, and its header alone takes more")
    (length,) = struct.unpack("<Q", head[:8])
    if length > _LIMIT:
        raise BadHeader("it does not begin with the length of a header")
    if length > size - 8:
        raise BadHeader(f"truncated: its header should end at byte {8 + length} and the file has {size}")
    if 8 + length > len(head):
        head = read_head(8 + length)
    if len(head) < 8 + length:
        raise BadHeader(f"only {len(head)} of its {size} bytes could be read")
    try:
        entries = untrusted.parse_object(head[8 : 8 + length], limit=_LIMIT)
    except untrusted.MalformedJson as error:
        raise BadHeader(f"its header {error}") from None
    entries.pop("__metadata__", None)
    tensors = {name: _tensor(name, entry, 8 + length) for name, entry in entries.items()}
    _check_places(tensors, 8 + length, size)
    return tensors


def _tensor(name: str, entry: Any, start: int) -> PlacedTensor:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or [type(offset) for offset in offsets] != [int, int]:
        raise BadHeader(f"the header's entry for {name!r} is malformed: {name!r} has no data_offsets")
    begin, end = offsets
    try:
        kind, shape = entry["dtype"], tuple(entry["shape"])
    except (KeyError, TypeError, ValueError):
        raise BadHeader(f"its header's entry for {name!r} is malformed") from None
    if type(kind) is not str or len(shape) > _DIMENSIONS or {*map(type, shape)} - {int}:
        raise BadHeader(f"its header's entry for {name!r} is malformed")
    if min(shape, default=0) < 0:
        raise BadHeader(f"{name} has the shape {list(shape)}")
    if kind in WIDTHS and end - begin != math.prod(shape) * WIDTHS[kind]:
        raise BadHeader(f"{name} has {end - begin} bytes, which do not fit {kind} {list(shape)}")
    return PlacedTensor(kind, shape, start + begin, start + end)


def _check_places(tensors: Mapping[str, PlacedTensor], start: int, size: int) -> None:
    """The tensors follow one another without holes from byte `start` on, and end where the file ends."""
    free = start
    for begin, end, name in sorted((tensor.begin, tensor.end, name) for name, tensor in tensors.items()):
        if begin != free or end < begin:
            raise BadHeader(
                f"{name} has the bytes {begin - start} to {end - start}, and {free - start} is the next free one"
            )
        free = end
    if free > size:
        raise BadHeader(f"truncated: its tensors take {free - start} bytes and the file holds {size - start} of them")
    if free < size:
        raise BadHeader(f"{size - free} bytes follow its last tensor")
