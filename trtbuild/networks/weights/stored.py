"""One tensor inside a weight file: where its bytes lie and how they become numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from trtbuild.errors import InputError
from trtbuild.formats.weight_file import PlacedTensor, same_values
from trtbuild.networks.weights.arrays import Array


def broken(file: str, why: str) -> InputError:
    """The error for a weight file that cannot be read; `file` is its logical name in the checkpoint."""
    return InputError(
        f"{file} is not a whole weight file: {why}",
        option="model.source",
        hint="download it again, or point model.source at a complete copy",
    )


@dataclass(frozen=True)
class Stored(PlacedTensor):
    """A tensor of the weight file at `path`; `file` is the file's logical name, for messages."""

    path: Path
    file: str
    name: str

    @property
    def size(self) -> int:
        """The bytes of its values."""
        return self.end - self.begin

    def read(self) -> Array:
        """The values: float16 for F16, else float32 (BF16 widens exactly, F64 is rounded to the nearest, as torch
        does; the rest is dequantized).

        Plain reads rather than a memory map: nothing of the file stays in this process afterwards, so the
        peak is this one tensor. Raises InputError when the file has become shorter.
        """
        raw = np.fromfile(self.path, dtype=np.uint8, count=self.size, offset=self.begin)
        if raw.size != self.size:
            raise broken(self.file, f"it ends within the tensor {self.name}")
        if self.kind in ("F32", "F16"):
            return raw.view("<f4" if self.kind == "F32" else "<f2").reshape(self.shape)
        if self.kind == "F64":
            with np.errstate(over="ignore"):  # too large for float32: an infinity, as in torch
                return raw.view("<f8").astype("<f4").reshape(self.shape)
        if self.kind == "BF16":
            wide = raw.view("<u2").astype("<u4")
            del raw
            wide <<= 16  # bfloat16 is the upper half of a float32
            return wide.view("<f4").reshape(self.shape)
        rows = math.prod(self.shape[:-1])
        values: Array = dequantize(raw.reshape(rows, -1), GGMLQuantizationType[self.kind])
        return values.reshape(self.shape)

    def equals(self, other: Stored) -> bool:
        """Whether both hold the same bytes in the same type and shape."""
        return same_values(self.path, self, other.path, other)


def stored(path: Path, file: str, tensors: Mapping[str, PlacedTensor]) -> dict[str, Stored]:
    """The tensors of a header with the file at `path` that holds them, called `file` in messages."""
    return {
        name: Stored(tensor.kind, tensor.shape, tensor.begin, tensor.end, path, file, name)
        for name, tensor in tensors.items()
    }
