"""Writes an ONNX graph and its weights, one tensor in memory at a time.

    model.onnx        the graph; constants of a few bytes are inside
    model.onnx.data   all weights, in the order in which the graph first names them

Each weight starts at a multiple of 4096 bytes, so that a runtime can map it; the gaps are zeros. The bytes
depend on the graph and the weights alone: no path, time or tool version is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from trtbuild.errors import InputError
from trtbuild.networks.weights.arrays import Array

ALIGNMENT = 4096
_PIECE = 16 << 20  # bytes converted and written at once

Dimension = int | str  # a size, or the name of one that is known at run time


@dataclass(frozen=True)
class Weight:
    """A tensor that `load` produces when its turn comes; `label` says which one in messages.

    `load` gives an array of `shape` in any floating type; it is converted to the graph's piece by piece.
    """

    name: str
    shape: tuple[int, ...]
    load: Callable[[], Array]
    label: str


@dataclass
class Graph:
    """Nodes, inputs and outputs as they are added; `dtype` is that of activations and weights."""

    dtype: np.dtype[np.floating]
    nodes: list[NodeProto] = field(default_factory=list)
    inputs: list[ValueInfoProto] = field(default_factory=list)
    outputs: list[ValueInfoProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)

    @property
    def element(self) -> int:
        """ONNX's number of `dtype`."""
        return int(helper.np_dtype_to_tensor_dtype(self.dtype))

    def op(self, kind: str, inputs: Sequence[str], name: str, **settings: Any) -> str:
        """Add a node with one output, which has the node's name; returns that name.

        `domain` and `outputs` (a list of names, "" for one that is not wanted) are node settings, the rest
        are attributes.
        """
        outputs = settings.pop("outputs", [name])
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, **settings))
        return str(outputs[0])

    def constant(self, value: Array) -> str:
        """A small constant inside the graph; equal constants are one."""
        name = f"const.{value.dtype}." + "x".join(str(item) for item in np.atleast_1d(value).tolist())
        if not value.ndim:
            name += ".scalar"
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def integers(self, *values: int) -> str:
        """A one-dimensional int64 constant."""
        return self.constant(np.array(values, dtype=np.int64))

    def weight(self, weight: Weight) -> str:
        """Name a weight of the data file; the first mention fixes its place."""
        self.weights.setdefault(weight.name, weight)
        return weight.name

    def input(self, name: str, shape: Sequence[Dimension], element: int | None = None) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, element or self.element, list(shape)))
        return name

    def output(self, name: str, shape: Sequence[Dimension]) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, self.element, list(shape)))


def write(
    graph: Graph,
    opsets: Sequence[tuple[str, int]],
    ir_version: int,
    path: Path,
    done: Callable[[int, int], None],
) -> int:
    """Write `graph` to `path` and its weights to `path` + ".data"; returns the size of both in bytes.

    `done` is told the bytes of weights written so far, and their total. Raises InputError when a weight does
    not fit the graph's type.
    """
    data = path.with_name(path.name + ".data")
    places, total = _places(graph)
    model = _model(graph, opsets, ir_version, data.name, places)
    with data.open("wb") as stream:
        for weight in graph.weights.values():
            stream.write(bytes(places[weight.name] - stream.tell()))
            for piece in _pieces(weight, graph.dtype):
                stream.write(piece)
                done(stream.tell(), total)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return total + path.stat().st_size


def _places(graph: Graph) -> tuple[dict[str, int], int]:
    places, end = {}, 0
    for weight in graph.weights.values():
        start = -(-end // ALIGNMENT) * ALIGNMENT
        places[weight.name], end = start, start + math.prod(weight.shape) * graph.dtype.itemsize
    return places, end


def _model(
    graph: Graph, opsets: Sequence[tuple[str, int]], ir_version: int, data: str, places: dict[str, int]
) -> ModelProto:
    tensors = list(graph.constants.values())
    for weight in graph.weights.values():
        tensor = TensorProto(name=weight.name, data_type=graph.element, dims=weight.shape)
        tensor.data_location = TensorProto.EXTERNAL
        length = math.prod(weight.shape) * graph.dtype.itemsize
        for key, value in (("location", data), ("offset", places[weight.name]), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
    body = helper.make_graph(graph.nodes, "decoder", graph.inputs, graph.outputs, tensors)
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    return helper.make_model(body, opset_imports=imports, ir_version=ir_version, producer_name="trtbuild")


def _pieces(weight: Weight, dtype: np.dtype[np.floating]) -> Iterator[bytes]:
    """The bytes of a weight, converted some rows at a time."""
    values = weight.load()
    rows = max(1, _PIECE // max(1, values[0].size * dtype.itemsize))
    for start in range(0, values.shape[0], rows):
        try:
            with np.errstate(over="raise"):
                piece = np.ascontiguousarray(values[start : start + rows], dtype=dtype)
        except FloatingPointError:
            raise InputError(
                f"{weight.label} has values beyond the range of {dtype.name}",
                option="model.dtype",
                hint="choose model.dtype=float32",
            ) from None
        yield piece.astype(dtype.newbyteorder("<"), copy=False).tobytes()
