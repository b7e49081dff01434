"""Writes a .safetensors file, a piece at a time: the length of a JSON header, the header, the tensors in its order.

The format: https://github.com/huggingface/safetensors#format. The library's numpy front end knows no bfloat16 and holds
all tensors at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

# ml_dtypes, which onnx brings, is how numpy knows bfloat16.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "float8_e4m3fn": np.dtype(np.uint8),  # its codes
}
_CODES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int8": "I8",
    "uint8": "U8",
    "float8_e4m3fn": "F8_E4M3",
}


def write(
    path: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    pieces: Iterable[bytes],
    done: Callable[[int, int], None],
    align: int = 8,
) -> int:
    """Write `tensors` (name -> one of `DTYPES`, shape), whose bytes `pieces` gives in order; returns bytes of data.

    `done` is told the bytes done and all. The first tensor begins at a multiple of `align` bytes, a multiple of 8
    itself. Raises ValueError where the pieces are more or less than the header says.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * DTYPES[dtype].itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % align)
    written = 0
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for piece in pieces:
            file.write(piece)
            written += len(piece)
            done(written, at)
    if written != at:
        raise ValueError(f"{path.name}: {written} bytes of tensors, and its header says {at}")
    return at
