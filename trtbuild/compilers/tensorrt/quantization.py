"""Weight-only int8, int4 and fp8 for TensorRT: each linear map's matrix becomes a DequantizeLinear of small numbers.

A matrix [k, n] of a MatMul is stored as

    int8    values [k, n] from -127 to 127, and a scale per column, [n]
    int4    values [k, n] from -7 to 7, two a byte, the lower one first, and a scale per `group` rows, [k / group, n]
    fp8     values [k, n] in E4M3 (no infinities, 448 at most), and a scale per column, [n]

all symmetric (TensorRT takes no zero points), with scales in the graph's own type. The embedding and the head are not
quantized, tied or not. The graph's opset becomes 21, which has these types and blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtbuild.errors import BuildError, InputError
from trtbuild.networks.weights.arrays import Array
from trtbuild.networks.weights.tensors import DataFile, Network, element_type, nbytes

OPSET, IR_VERSION = 21, 10
HEAD = "lm_head.MatMul.weight"  # an untied head, which NVIDIA's recipes do not quantize either
SLICE = 32 << 20  # bytes of float32 values held at once
SCHEMES = ("int8", "int4", "fp8")
_LARGEST = {"int8": 127, "int4": 7, "fp8": 448}
_ELEMENTS = {"int8": TensorProto.INT8, "int4": TensorProto.INT4, "fp8": TensorProto.FLOAT8E4M3FN}
_LAST_AXIS = numpy_helper.from_array(np.array([-1], np.int64), "last_axis")


def quantize_network(
    source: Network, scheme: str, group: int | None, path: Path, progress: Callable[[int, int], None]
) -> Network:
    """Write `source`, quantized to one of `SCHEMES`, to `path` and `path`.data; `group` rows share a scale of int4.

    `progress` gets the bytes of 16- or 32-bit weights done, and their total. Raises BuildError if there is nothing to
    quantize, InputError if `group` does not divide the rows of a matrix.
    """
    graph = source.model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    matrices = {
        node.input[1]: weights[node.input[1]]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in weights and node.input[1] != HEAD
    }
    if not matrices:
        raise BuildError("the network has no linear map by a stored matrix: there is nothing to quantize")
    model = _empty_copy(source.model)
    data = path.with_name(path.name + ".data")
    done, total = 0, sum(nbytes(tensor) for tensor in matrices.values())
    with data.open("wb") as stream:
        file = DataFile(stream, data.name)
        for name, tensor in weights.items():
            if name not in matrices:
                model.graph.initializer.append(_kept(source, tensor, file))
                continue
            model.graph.initializer.extend(_quantized(source, tensor, scheme, group, file))
            done += nbytes(tensor)
            progress(done, total)
    model.graph.initializer.append(_LAST_AXIS)
    model.graph.node.extend(_nodes(graph, set(matrices), group))
    path.write_bytes(model.SerializeToString(deterministic=True))
    return Network(model, path)


def _empty_copy(old: ModelProto) -> ModelProto:
    """A copy of the model without nodes and weights, at `OPSET`."""
    model = ModelProto()
    model.CopyFrom(old)
    del model.graph.node[:], model.graph.initializer[:], model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    return model


def _nodes(graph: GraphProto, matrices: set[str], group: int | None) -> Iterator[NodeProto]:
    opened: set[str] = set()
    for node in graph.node:
        for name in node.input:
            if name in matrices and name not in opened:
                opened.add(name)
                blocks: dict[str, Any] = {"axis": 1} if group is None else {"axis": 0, "block_size": group}
                stored = [f"{name}.quantized", f"{name}.scale"]
                yield helper.make_node("DequantizeLinear", stored, [name], name=f"{name}.dequantize", **blocks)
        yield _mean(node) if node.op_type == "ReduceMean" else node


def _mean(node: NodeProto) -> NodeProto:
    """The mean over the last axis for opset 18 and later, where the axes are an input."""
    inputs = [node.input[0], _LAST_AXIS.name]
    return helper.make_node("ReduceMean", inputs, list(node.output), name=node.name, keepdims=1)


def _kept(source: Network, tensor: TensorProto, file: DataFile) -> TensorProto:
    if tensor.data_location != TensorProto.EXTERNAL:
        return tensor
    return file.add(tensor.name, tensor.data_type, tensor.dims, source.pieces(tensor))


def _quantized(
    source: Network, tensor: TensorProto, scheme: str, group: int | None, file: DataFile
) -> tuple[TensorProto, TensorProto]:
    """The quantized matrix and its scales. Raises InputError."""
    k, n = tensor.dims
    if group is not None and k % group:
        raise InputError(
            f"{group} does not divide the {k} rows of {tensor.name}",
            option="quant.group_size",
            hint="TensorRT takes whole groups only: choose a smaller one",
        )
    scales: list[Array] = []
    pieces = _by_column(source, tensor, scheme, scales) if group is None else _by_group(source, tensor, group, scales)
    numbers = file.add(f"{tensor.name}.quantized", _ELEMENTS[scheme], [k, n], pieces)
    scale = np.concatenate(scales)
    shape = [n] if group is None else [k // group, n]
    return numbers, file.add(f"{tensor.name}.scale", tensor.data_type, shape, [scale.tobytes()])


def _by_column(source: Network, tensor: TensorProto, scheme: str, scales: list[Array]) -> Iterator[bytes]:
    largest = np.zeros(tensor.dims[1], np.float32)
    for rows in _rows(source, tensor, 1):
        np.maximum(largest, np.abs(rows).max(0), out=largest)
    scale = _scale(largest, scheme, tensor)
    scales.append(scale)
    for rows in _rows(source, tensor, 1):
        yield _rounded(rows, scale, scheme).tobytes()


def _by_group(source: Network, tensor: TensorProto, group: int, scales: list[Array]) -> Iterator[bytes]:
    for rows in _rows(source, tensor, group):
        blocks = rows.reshape(-1, group, rows.shape[1])
        scale = _scale(np.abs(blocks).max(1), "int4", tensor)
        scales.append(scale.reshape(-1))
        nibbles = _rounded(blocks, scale[:, None], "int4").reshape(-1).view(np.uint8) & 15
        yield (nibbles[0::2] | nibbles[1::2] << 4).tobytes()


def _rows(source: Network, tensor: TensorProto, group: int) -> Iterator[Array]:
    """The matrix as float32, a few whole groups of rows at a time."""
    k, n = tensor.dims
    step = max(1, SLICE // (4 * n * group)) * group
    for start in range(0, k, step):
        yield source.rows(tensor, start, min(k, start + step)).astype(np.float32)


def _scale(largest: Array, scheme: str, tensor: TensorProto) -> Array:
    """The scale as it is stored. It is never 0, which a column of zeros or of tiny values would give."""
    element = element_type(tensor)
    # A normal number in all three types.
    smallest = np.float32(2.0**-14 if element.itemsize == 2 else 2.0**-126)
    return np.maximum(largest / np.float32(_LARGEST[scheme]), smallest).astype(element)


def _rounded(values: Array, scale: Array, scheme: str) -> Array:
    """Divide by the scale as it is stored, so that its own rounding adds no error, and round."""
    bound, scaled = _LARGEST[scheme], values / scale.astype(np.float32)
    if scheme == "fp8":
        return np.clip(scaled, -bound, bound).astype(ml_dtypes.float8_e4m3fn)
    return np.clip(np.rint(scaled), -bound, bound).astype(np.int8)
