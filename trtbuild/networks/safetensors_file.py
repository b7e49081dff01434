"""Reads the header of a .safetensors file: names, types, shapes and places of its tensors.

The format (https://github.com/huggingface/safetensors#format): a little-endian u64, that many bytes of JSON,
then the data. The library's numpy front end knows no bfloat16 and maps the whole file, hence this reader.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks.stored import Stored, broken

_WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
_HEADER_LIMIT = 100_000_000  # bytes: the library's own limit


def read_header(path: Path, file: str) -> dict[str, Stored]:
    """The tensors of the file at `path`, called `file` in messages. Raises InputError when it is broken."""
    length = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise broken(file, "it is shorter than its 8-byte prefix")
        (header,) = struct.unpack("<Q", prefix)
        if header > min(length - 8, _HEADER_LIMIT):
            raise broken(file, f"its header should have {header} bytes and the file has {length}")
        text = stream.read(header)
    try:
        entries = json.loads(text)
    except ValueError:
        raise broken(file, "its header is not JSON") from None
    if not isinstance(entries, dict):
        raise broken(file, "its header is not a JSON object")
    entries.pop("__metadata__", None)
    return {name: _stored(path, file, name, entry, 8 + header, length) for name, entry in entries.items()}


def _stored(path: Path, file: str, name: str, entry: Any, start: int, length: int) -> Stored:
    try:
        kind, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
        begin, end = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise broken(file, f"its header's entry for {name} is malformed") from None
    if begin < 0 or start + end > length:
        raise broken(file, f"{name} should end at byte {start + end} and the file has {length}")
    if kind not in _WIDTHS:
        raise InputError(
            f"{file} stores {name} as {kind}: supported are {', '.join(_WIDTHS)}",
            option="model.source",
            hint="start from the unquantized checkpoint, or from GGUF",
        )
    if end - begin != math.prod(shape) * _WIDTHS[kind]:
        raise broken(file, f"{name} has {end - begin} bytes, which do not fit {kind} {list(shape)}")
    return Stored(path, file, name, kind, shape, start + begin, end - begin)
