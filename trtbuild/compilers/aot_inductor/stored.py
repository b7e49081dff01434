"""What a .safetensors file holds, by its header alone: standard library only."""

from __future__ import annotations

import struct
from pathlib import Path

from trtbuild import untrusted
from trtbuild.errors import BuildError

_NAMES = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I8": "int8",
    "U8": "uint8",
    "F8_E4M3": "float8_e4m3fn",
}
_LIMIT = 100_000_000  # bytes of a header: the library's own


def read_tensors(path: Path) -> dict[str, tuple[str, list[int]]]:
    """name -> (type in torch's words, shape). Raises BuildError for a file that is not whole."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_LIMIT, size):
                raise ValueError(f"its header would have {length} bytes")
            header = untrusted.parse_object(stream.read(length), limit=_LIMIT)
        header.pop("__metadata__", None)
        found = {
            name: (_NAMES.get(each["dtype"], each["dtype"]), each["shape"]) for name, each in header.items()
        }
        end = max(each["data_offsets"][1] for each in header.values())
    except (OSError, struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise BuildError(f"{path.name} cannot be read: {error}") from None
    if size != 8 + length + end:
        raise BuildError(
            f"{path.name} has {size} bytes, and its header says {8 + length + end}: it is cut off"
        )
    return found
