"""The weights of an ONNX model, read and written a piece at a time: they lie beside the graph, in one file.

model.onnx        the graph
model.onnx.data   each weight from a multiple of 4096 bytes on, so that a runtime can map it; zeros between
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, load_model

from trtbuild.errors import BuildError
from trtbuild.networks.weights.arrays import Array

ALIGNMENT = 4096
PIECE = 16 << 20  # bytes held at once while copying
INLINE = 1024  # smaller tensors stay inside the graph, where optimisers can see them


@dataclass(frozen=True)
class Network:
    """An ONNX model, whose large tensors were left in a file beside `path`."""

    model: ModelProto
    path: Path

    @classmethod
    def open(cls, path: Path) -> Network:
        """Read the graph, not the weights."""
        return cls(load_model(path, load_external_data=False), path)

    def pieces(self, tensor: TensorProto) -> Iterator[bytes]:
        """The tensor's bytes in order. Raises BuildError when its file is shorter than the graph says."""
        size = nbytes(tensor)
        if tensor.data_location != TensorProto.EXTERNAL:
            yield _inline(tensor)
            return
        path, offset = self._place(tensor)
        with path.open("rb") as stream:
            stream.seek(offset)
            for start in range(0, size, PIECE):
                piece = stream.read(min(PIECE, size - start))
                if len(piece) != min(PIECE, size - start):
                    raise _too_short(path, tensor)
                yield piece

    def columns(self, tensor: TensorProto, start: int, stop: int) -> Array:
        """Columns [start, stop) of a matrix [rows, columns], as an array of their own.

        Rows are read one by one rather than mapped, so that only this slice counts as this process's memory.
        """
        rows, width = tensor.dims
        dtype = element_type(tensor)
        if tensor.data_location != TensorProto.EXTERNAL:
            return np.ascontiguousarray(np.frombuffer(_inline(tensor), dtype).reshape(rows, width)[:, start:stop])
        path, offset = self._place(tensor)
        values = np.empty((rows, stop - start), dtype)
        with path.open("rb", buffering=0) as stream:
            for row in range(rows):
                stream.seek(offset + (row * width + start) * dtype.itemsize)
                if stream.readinto(values[row].data) != values[row].nbytes:
                    raise _too_short(path, tensor)
        return values

    def rows(self, tensor: TensorProto, start: int, stop: int) -> Array:
        """Rows [start, stop) of a matrix [rows, columns]."""
        width = tensor.dims[1]
        dtype = element_type(tensor)
        if tensor.data_location != TensorProto.EXTERNAL:
            return np.frombuffer(_inline(tensor), dtype).reshape(-1, width)[start:stop]
        path, offset = self._place(tensor)
        count, skipped = (stop - start) * width, start * width * dtype.itemsize
        values = np.fromfile(path, dtype, count, offset=offset + skipped)
        if values.size != count:
            raise _too_short(path, tensor)
        return values.reshape(-1, width)

    def _place(self, tensor: TensorProto) -> tuple[Path, int]:
        external = {entry.key: entry.value for entry in tensor.external_data}
        name = external.get("location", "")
        if not name or Path(name).name != name:  # a graph must not lead out of its folder
            raise BuildError(f"the tensor {tensor.name} lies in {name!r}, which is not a file beside the graph")
        return self.path.with_name(name), int(external.get("offset", 0))


@dataclass
class DataFile:
    """Takes the weights of one model, in the order in which they are added; equal ones are stored once."""

    stream: IO[bytes]
    name: str
    _seen: dict[tuple[int, bytes], int] = field(default_factory=dict)

    def add(self, name: str, element: int, shape: Iterable[int], pieces: Iterable[bytes]) -> TensorProto:
        """Store `pieces` (the little-endian bytes of an array) and return the tensor that refers to them."""
        start = -(-self.stream.tell() // ALIGNMENT) * ALIGNMENT
        self.stream.write(bytes(start - self.stream.tell()))
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
            self.stream.write(piece)
        length = self.stream.tell() - start
        place = self._seen.setdefault((length, digest.digest()), start)
        if place != start:
            self.stream.seek(start)
            self.stream.truncate()
        tensor = TensorProto(name=name, data_type=element, dims=list(shape))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.name), ("offset", place), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def again(self, stored: TensorProto, name: str, shape: Iterable[int]) -> TensorProto:
        """A second tensor over bytes that are stored already, under another name and shape."""
        view = TensorProto()
        view.CopyFrom(stored)
        view.name = name
        view.dims[:] = list(shape)
        return view


def element_type(tensor: TensorProto) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).newbyteorder("<")


def nbytes(tensor: TensorProto) -> int:
    """The bytes that a tensor's values take."""
    count = math.prod(int(size) for size in tensor.dims)
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        return (count + 1) // 2
    return count * element_type(tensor).itemsize


def branches(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside a node, such as the two branches of an `If`, and the graphs inside those."""
    for attribute in node.attribute:
        inner = [attribute.g] if attribute.type == AttributeProto.GRAPH else list(attribute.graphs)
        for graph in inner:
            yield graph
            for each in graph.node:
                yield from branches(each)


def in_branches(graph: GraphProto) -> Iterator[TensorProto]:
    """The weights of all graphs inside the nodes of `graph`: they may lie in the data file, too."""
    for node in graph.node:
        for branch in branches(node):
            yield from branch.initializer


def read_by(node: NodeProto) -> Iterator[str]:
    """The names of the values that a node reads: a graph inside it may read those of the graph around it."""
    yield from node.input
    for branch in branches(node):
        for each in branch.node:
            yield from each.input
        for output in branch.output:
            yield output.name


def settle(source: Network, path: Path) -> int:
    """Write `source` as `path` and `path`.data; returns the bytes of both.

    The same graph and weights give the same bytes, whatever wrote `source`.
    """
    data = path.with_name(path.name + ".data")
    model = ModelProto()
    model.CopyFrom(source.model)
    with data.open("wb") as stream:
        target = DataFile(stream, data.name)
        for tensor in model.graph.initializer:
            if nbytes(tensor) >= INLINE:
                tensor.CopyFrom(target.add(tensor.name, tensor.data_type, tensor.dims, source.pieces(tensor)))
            else:
                _take_in(source, tensor)
        # ONNX Runtime reads weights of branches from no file that has a second link, as each has in a store.
        for tensor in in_branches(model.graph):
            _take_in(source, tensor)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path.stat().st_size + data.stat().st_size


def _take_in(source: Network, tensor: TensorProto) -> None:
    """Keep the values of `tensor` in the graph itself."""
    if tensor.data_location == TensorProto.EXTERNAL:
        raw = b"".join(source.pieces(tensor))
        tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=raw))


def _inline(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    raise BuildError(f"the tensor {tensor.name} is stored neither as raw bytes nor in a file")


def _too_short(path: Path, tensor: TensorProto) -> BuildError:
    return BuildError(f"{path.name} ends within the tensor {tensor.name}")
