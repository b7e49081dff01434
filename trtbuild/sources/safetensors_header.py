"""Checks that a .safetensors file is whole, from its header and its length, before anything is hashed.

A download that was cut off is the commonest broken checkpoint: it should cost a millisecond to find out.
Format: https://github.com/huggingface/safetensors#format, whose rules on places are checked here; types and
shapes are the reader's to judge.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from trtbuild import foreign, tensor_header
from trtbuild.errors import InputError
from trtbuild.sources import regular
from trtbuild.sources.base import Json
from trtbuild.tensor_header import Tensor

_HEADER_LIMIT = 100_000_000  # bytes: the library's own


def check(path: Path, option: str) -> None:
    """Raises InputError when the file at `path` is truncated or no safetensors file; reads its header only."""
    try:
        text, data = _header(path, option)
    except OSError as failure:
        raise InputError(f"{path} cannot be read: {failure.strerror}", option=option) from None
    try:
        header = foreign.parse_object(text, limit=_HEADER_LIMIT)
    except foreign.Malformed as error:
        raise _broken(path, option, f"its header {error}") from None
    header.pop("__metadata__", None)
    _check_places(path, option, header, data)


def read_header(read: Callable[[int], bytes], size: int, file: str, option: str) -> dict[str, Tensor]:
    """Name -> type, shape and place of the tensors of a file of `size` bytes, called `file` in messages.

    `read(n)` gives its first n bytes (all, if it has fewer). Raises InputError.
    """
    try:
        return tensor_header.parse(read, size)
    except tensor_header.Malformed as malformed:
        raise _broken(file, option, str(malformed)) from None


def _header(path: Path, option: str) -> tuple[bytes, int]:
    """The header's text, and the number of bytes behind it."""
    with regular.opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise _broken(path, option, f"truncated: it has {size} bytes, and its header alone takes more")
        (length,) = struct.unpack("<Q", prefix)
        if length > _HEADER_LIMIT:
            raise _broken(path, option, "it does not begin with the length of a header")
        if length > size - 8:
            raise _broken(
                path, option, f"truncated: its header should end at byte {8 + length} and the file has {size}"
            )
        return stream.read(length), size - 8 - length


def _check_places(path: Path, option: str, tensors: dict[str, Json], data: int) -> None:
    """The tensors follow one another without holes and fill the `data` bytes behind the header."""
    places = sorted(_place(path, option, name, entry) for name, entry in tensors.items())
    at = 0
    for begin, end, name in places:
        if begin != at or end < begin:
            raise _broken(
                path, option, f"{name} has the bytes {begin} to {end}, and {at} is the next free one"
            )
        at = end
    if at > data:
        raise _broken(
            path, option, f"truncated: its tensors take {at} bytes and the file holds {data} of them"
        )
    if at < data:
        raise _broken(path, option, f"{data - at} bytes follow its last tensor")


def _place(path: Path, option: str, name: str, entry: Json) -> tuple[int, int, str]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or [type(offset) for offset in offsets] != [int, int]:
        raise _broken(path, option, f"the header's entry of {name!r} has no data_offsets")
    return offsets[0], offsets[1], name


def _broken(path: Path | str, option: str, why: str) -> InputError:
    return InputError(
        f"{path} is no usable safetensors file: {why}", option=option, hint="download the file again"
    )
