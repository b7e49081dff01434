"""Weight-only quantization of one matrix, by columns, with ONNX Runtime's own kernels.

A matrix [k, n] is cut into blocks of `group_size` values along k. Block b of column c becomes

    value = (stored - zero) * scale        stored: unsigned, 4 or 8 bits; zero: 8 or 128 when symmetric

in the layout of the operators MatMulNBits and GatherBlockQuantized (ONNX Runtime's ContribOperators.md):
packed [n, ceil(k / group_size), group_size * bits / 8] bytes, two 4-bit values a byte, the lower one first;
scales [n, ceil(k / group_size)]; zero points [n, ceil(blocks * bits / 8)] bytes when not symmetric. The last
block is padded with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from onnxruntime.capi import (
    _pybind_state as native,  # onnxruntime.quantization imports the two kernels from here, too
)

from trtbuild.networks.weights.arrays import Array

SLICE = 64 << 20  # bytes of float32 values that are quantized at once


@dataclass(frozen=True)
class BlockScheme:
    """How weights are stored; `accuracy_level` is how ONNX Runtime multiplies them (MatMulNBits)."""

    bits: int
    group_size: int
    symmetric: bool
    accuracy_level: int


@dataclass(frozen=True)
class Blocks:
    """Consecutive columns, quantized; `zeros` is None when symmetric."""

    packed: Array
    scales: Array
    zeros: Array | None


def blocks_of(k: int, scheme: BlockScheme) -> int:
    """Blocks in a column of k values."""
    return -(-k // scheme.group_size)


def quantize(values: Array, scheme: BlockScheme) -> Blocks:
    """Quantize the matrix `values` [k, n], float32."""
    k, n = values.shape
    count, per_byte = blocks_of(k, scheme), 8 // scheme.bits
    padding = count * scheme.group_size - k
    if padding:
        values = np.pad(values, ((0, padding), (0, 0)))
    packed = np.zeros((n, count, scheme.group_size // per_byte), np.uint8)
    scales = np.zeros((n, count), values.dtype)
    zeros = np.zeros((n, -(-count // per_byte)), np.uint8)
    kernel = native.quantize_matmul_4bits if scheme.bits == 4 else native.quantize_matmul_8bits
    kernel(packed, values, scales, zeros, scheme.group_size, n, k, scheme.symmetric)
    return Blocks(packed, scales, None if scheme.symmetric else zeros)


def quantize_slices(
    k: int, n: int, read: Callable[[int, int], Array], scheme: BlockScheme, slice_bytes: int = SLICE
) -> Iterator[Blocks]:
    """Quantize a matrix [k, n] in slices of columns, in order; `read(start, stop)` gives columns [k, stop - start].

    Columns are independent, so the joined slices equal the whole matrix quantized at once.
    """
    step = max(1, slice_bytes // (4 * k))
    for start in range(0, n, step):
        yield quantize(read(start, min(n, start + step)), scheme)
