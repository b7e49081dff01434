"""Reads a unified checkpoint without ModelOpt: checks names, types and shapes, and decodes weights to numbers.

Written from the formats, not from ModelOpt's code: E4M3 and E2M1 by the OCP specifications for 8-bit floating point
(revision 1.0) and microscaling formats (1.0); packing and scales as TensorRT-LLM, vLLM and SGLang load them.

    scheme       X.weight                     X.weight_scale           further
    W8A16        I8 [out, in]                 F32 [out]
    W8A8_SQ…     I8 [out, in]                 F32 [out]                input_scale F32 [], pre_quant_scale [in]
    FP8          F8_E4M3 [out, in]            F32 []                   input_scale F32 []
    FP8_PER_C…   F8_E4M3 [out, in]            F32 [out]
    W4A16_AWQ    U8 [out / 2, in]: rows 2i     F32 [out, in / group]    pre_quant_scale [in], where no norm or linear
    W4A8_AWQ     low, 2i + 1 high nibbles     F32 [out, in / group]    map before it took it; W4A8: weight_scale_2 F32
                                                                       [], input_scale F32 []
    NVFP4        U8 [out, in / 2]: columns    F8_E4M3 [out, in / 16]   weight_scale_2 F32 [], input_scale F32 []
                 2i low, 2i + 1 high nibbles
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from trtbuild import untrusted
from trtbuild.compilers.modelopt.schemes import BLOCK
from trtbuild.errors import BuildError, InputError
from trtbuild.formats import safetensors
from trtbuild.formats.weight_file import read_file
from trtbuild.networks.weights.arrays import Array

#: Types of stored tensors -> how numpy reads their bytes.
_KINDS = {"F32": "<f4", "F16": "<u2", "BF16": "<u2", "F8_E4M3": "u1", "I8": "<i1", "U8": "u1"}
_PLAIN = ("F32", "F16", "BF16")
INDEX, SOLE = "model.safetensors.index.json", "model.safetensors"
E4M3_MAX, E2M1_MAX = 448.0, 6.0
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
#: What a linear map of each algorithm has beside its weight: (must, may)
_PARTS: Mapping[str | None, tuple[tuple[str, ...], tuple[str, ...]]] = {
    None: ((), ()),
    "W8A16": (("weight_scale",), ()),
    "W8A8_SQ_PER_CHANNEL": (("weight_scale", "input_scale", "pre_quant_scale"), ()),
    "FP8": (("weight_scale", "input_scale"), ()),
    "FP8_PER_CHANNEL_PER_TOKEN": (("weight_scale",), ()),
    "W4A16_AWQ": (("weight_scale",), ("pre_quant_scale",)),
    "W4A8_AWQ": (("weight_scale", "weight_scale_2", "input_scale"), ("pre_quant_scale",)),
    "NVFP4": (("weight_scale", "weight_scale_2", "input_scale"), ()),
}


def _e4m3() -> Array:
    """The values of the 256 codes: sign, four bits of exponent (bias 7), three bits of mantissa; 0x7f is NaN."""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    small, large = mantissa * 2.0**-9, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0)
    values = np.where(exponent == 0, small, large) * np.where(codes >> 7, -1.0, 1.0)
    values[(codes & 127) == 127] = np.nan
    return values.astype(np.float32)


E4M3 = _e4m3()


class StoredTensor(Protocol):
    """A tensor as it is stored; `kind` is its type by safetensors' name."""

    @property
    def kind(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def codes(self) -> Array:
        """The stored values: float32, uint16 for 16-bit floats, int8, or uint8 (also for 8-bit floats)."""


def values(stored: StoredTensor) -> Array:
    """The numbers of a tensor with a float type, as float32."""
    codes = stored.codes()
    if stored.kind == "F8_E4M3":
        return E4M3[codes]
    if stored.kind == "BF16":
        return (codes.astype("<u4") << 16).view("<f4")
    return codes.view("<f2").astype(np.float32) if stored.kind == "F16" else codes.astype(np.float32)


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of a file: `kind` is its type in the header, `start` its offset in bytes in the file."""

    path: Path
    kind: str
    shape: tuple[int, ...]
    start: int

    def codes(self) -> Array:
        dtype = np.dtype(_KINDS[self.kind])
        return np.fromfile(self.path, dtype, math.prod(self.shape), offset=self.start).reshape(self.shape)


@dataclass(frozen=True)
class Linear:
    """A linear map y = (x * smooth) @ weight.T of a checkpoint, with its weight as numbers [out, in].

    `step` is the largest rounding error of each weight in this format: an array that broadcasts to [out, in].
    `input_scale` is the value of code 1 of an activation; None if activations have no scale in the checkpoint.
    An `excluded` map is not quantized: neither weights nor activations are rounded.
    """

    weight: Array
    step: Array
    smooth: Array | None
    input_scale: float | None
    excluded: bool = False


class Exported:
    """The tensors of a checkpoint by name. Raises BuildError if one is not as the table says.

    The maps in `excluded`, such as "model.layers.0.mlp.up_proj", are not quantized.
    """

    def __init__(
        self,
        entries: Mapping[str, StoredTensor],
        algorithm: str | None,
        group: int | None,
        excluded: frozenset[str] = frozenset(),
    ) -> None:
        self.algorithm = algorithm
        self._group = group
        self.entries = entries
        self.excluded = excluded

    def names(self) -> list[str]:
        """The model's own tensors, without scales; sorted."""
        return sorted(name for name in self.entries if name.rpartition(".")[2] in ("weight", "bias"))

    def unknown(self, maps: Iterable[str]) -> list[str]:
        """Tensors that no rule knows, sorted: a server might read them, unverified. `maps` are the linear maps."""
        known = {*self.names(), *self._caches()}
        for module in maps:
            must, may = _PARTS[None if module in self.excluded else self.algorithm]
            known.update(f"{module}.{part}" for part in (*must, *may))
        return sorted(self.entries.keys() - known)

    def plain(self, name: str) -> Array:
        """A tensor that is not quantized, as float32. Raises BuildError for another."""
        entry = self._find(name)
        if entry.kind not in _PLAIN:
            raise BuildError(f"{name} is {entry.kind}, and is not to be quantized")
        return values(entry)

    def quantized(self, module: str) -> bool:
        return f"{module}.weight_scale" in self.entries

    def linear(self, module: str) -> Linear:
        """The linear map `module`, as "model.layers.0.mlp.up_proj". Raises BuildError for parts that do not fit."""
        algorithm = None if module in self.excluded else self.algorithm
        must, may = _PARTS[algorithm]
        scales = {
            name.rpartition(".")[2]
            for name in self.entries
            if name.rpartition(".")[0] == module and name.endswith(("scale", "scale_2"))
        } - {"k_scale", "v_scale"}
        if not set(must) <= scales <= set(must) | set(may):
            stored = ", ".join(sorted(scales)) or "no scales"
            wants = f"{algorithm} wants {', '.join(must) or 'none'}" if algorithm else "is to be left as it is"
            raise BuildError(f"{module} has {stored}, and {wants}")
        if algorithm is None:
            plain = self.plain(f"{module}.weight")
            return Linear(plain, np.zeros((1, 1), np.float32), None, None, excluded=self.algorithm is not None)
        weight, step = self._weight(module, algorithm)
        smooth = self._scale(f"{module}.pre_quant_scale", (weight.shape[1],)) if "pre_quant_scale" in scales else None
        scale = float(self._scale(f"{module}.input_scale", ())) if "input_scale" in scales else None
        return Linear(weight, step, smooth, scale)

    def caches(self) -> dict[str, float]:
        """The scales of keys and values by name; empty if the cache is not quantized. Raises BuildError."""
        return {name: float(self._scale(name, ())) for name in self._caches()}

    def _caches(self) -> list[str]:
        return [name for name in self.entries if name.endswith((".k_scale", ".v_scale"))]

    def _weight(self, module: str, algorithm: str) -> tuple[Array, Array]:
        """(numbers, largest rounding error of each) of a weight."""
        entry = self._find(f"{module}.weight")
        kind = {"W8A16": "I8", "W8A8_SQ_PER_CHANNEL": "I8", "FP8": "F8_E4M3"}.get(algorithm)
        kind = kind or ("F8_E4M3" if algorithm.startswith("FP8") else "U8")
        if entry.kind != kind or len(entry.shape) != 2:
            raise BuildError(f"{module}.weight is {entry.kind} {list(entry.shape)}, and {algorithm} stores {kind}")
        if kind == "U8":
            return self._four_bits(module, entry)
        rows = entry.shape[0]
        scale = self._scale(f"{module}.weight_scale", () if algorithm == "FP8" else (rows,)).reshape(-1, 1)
        if kind == "I8":
            return entry.codes().astype(np.float32) * scale, 0.5 * scale
        # With three bits of mantissa half a step is a sixteenth of the value; for subnormals, below 2^-6, half of 2^-9.
        numbers = values(entry)
        return numbers * scale, np.maximum(np.abs(numbers) / 16, 2.0**-10) * scale

    def _four_bits(self, module: str, entry: StoredTensor) -> tuple[Array, Array]:
        codes, name = entry.codes(), f"{module}.weight_scale"
        low, high = codes & 15, codes >> 4
        if self.algorithm == "NVFP4":
            rows, columns = codes.shape[0], codes.shape[1] * 2
            numbers = _E2M1[np.stack([low, high], -1).reshape(rows, columns)]
            scale = self._scale(name, (rows, columns // BLOCK), "F8_E4M3")
            scale = scale * self._scale(f"{name}_2", ())
            wide = np.repeat(scale, BLOCK, 1)
            # Between 4 and 6 half a step is one. A block's largest value may exceed 6 by the rounding of its scale.
            return numbers * wide, wide * 1.0
        rows, columns = codes.shape[0] * 2, codes.shape[1]
        signed = ((np.stack([low, high], 1).astype(np.int8) ^ 8) - 8).reshape(rows, columns)
        group = self._group or columns
        if columns % group:
            raise BuildError(f"{module} has {columns} columns, which groups of {group} do not divide")
        scale = self._scale(name, (rows, columns // group))
        # Kernels divide by it to compute in FP8; it is no part of the number.
        if self.algorithm == "W4A8_AWQ":
            self._scale(f"{name}_2", ())
        wide = np.repeat(scale, group, 1)
        return signed * wide, wide * 0.5

    def _scale(self, name: str, shape: tuple[int, ...], kind: str | None = None) -> Array:
        """Scales: finite and above zero, except that a block of zeros has scale zero in NVFP4. Raises BuildError."""
        entry = self._find(name)
        kinds = _PLAIN if kind is None else (kind,)
        if entry.kind not in kinds or entry.shape != shape:
            raise BuildError(f"{name} is {entry.kind} {list(entry.shape)}, and should be {kinds[0]} {list(shape)}")
        scales = values(entry)
        if not np.isfinite(scales).all() or (scales < 0).any() or (kind is None and (scales == 0).any()):
            raise BuildError(f"{name} has a scale that is zero, below zero or not finite")
        return scales

    def _find(self, name: str) -> StoredTensor:
        if name not in self.entries:
            raise BuildError(f"the checkpoint lacks {name}")
        return self.entries[name]


def entries(folder: Path) -> dict[str, TensorEntry]:
    """Every tensor of a unified checkpoint by its name, as the index and the headers say. Raises BuildError."""
    try:
        if (folder / INDEX).is_file():
            index = untrusted.parse_object(untrusted.read_bytes(folder / INDEX))
            files: dict[str, str] = index["weight_map"]
        else:
            files = dict.fromkeys(header(folder / SOLE), SOLE)
        headers = {file: header(folder / Path(file).name) for file in sorted(set(files.values()))}
        return {name: headers[file][name] for name, file in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BuildError(f"the checkpoint's weights cannot be read: {error}") from None


def header(path: Path) -> dict[str, TensorEntry]:
    """Every tensor of one file. Raises BuildError where it is not whole, or has a type that no format here has."""
    try:
        tensors = read_file(safetensors.read_header, path, path.name, "")
    except (OSError, InputError) as error:
        raise BuildError(f"the checkpoint's weights cannot be read: {error}") from None
    unknown = next((name for name, tensor in tensors.items() if tensor.kind not in _KINDS), None)
    if unknown is not None:
        raise BuildError(f"the checkpoint's weights cannot be read: {unknown} is {tensors[unknown].kind}")
    return {name: TensorEntry(path, tensor.kind, tensor.shape, tensor.begin) for name, tensor in tensors.items()}
