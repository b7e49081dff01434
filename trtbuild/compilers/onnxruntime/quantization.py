"""Weight-only quantization of a float32 network: MatMulNBits and GatherBlockQuantized, a slice at a time.

Every MatMul by a constant float32 matrix is quantized, and on request the embedding; a tied embedding reads the head's
quantized matrix. Norms, biases and rotary tables stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtbuild.compilers.onnxruntime.blocks import BlockScheme, blocks_of, quantize_slices
from trtbuild.errors import BuildError
from trtbuild.networks.weights.arrays import Array
from trtbuild.networks.weights.tensors import INLINE, DataFile, Network, in_branches, nbytes, read_by

_MICROSOFT = "com.microsoft"

Progress = Callable[[int, int], None]  # (bytes of float32 weights done, their total)


@dataclass(frozen=True)
class Embedding:
    """The node that looks up rows of `weight`, or of its transpose if a `transpose` node lies between."""

    gather: NodeProto
    weight: str
    transpose: NodeProto | None


@dataclass(frozen=True)
class _QuantizedMatrix:
    """A quantized matrix [k, n] of the result: its packed values, and the names of scales and, if any, zero points."""

    packed: TensorProto
    sides: tuple[str, ...]
    k: int
    n: int


def quantize_network(source: Network, scheme: BlockScheme, embedding: bool, path: Path, progress: Progress) -> Network:
    """Write `source`, quantized, to `path` and `path`.data; `embedding` quantizes the embedding, too.

    Raises BuildError if there is nothing to quantize.
    """
    graph = source.model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    products = [node for node in graph.node if _is_product(node, weights)]
    if not products:
        raise BuildError("the network has no MatMul by a constant float32 matrix: there is nothing to quantize")
    data = path.with_name(path.name + ".data")
    with data.open("wb") as stream:
        looked_up = find_embedding(graph, weights) if embedding else None
        read = {node.input[1] for node in products} | ({looked_up.weight} if looked_up is not None else set())
        total = sum(nbytes(weights[name]) for name in read)
        writer = _NetworkWriter(source, weights, scheme, DataFile(stream, data.name), progress, total)
        nodes = {node.output[0]: [writer.product(node)] for node in products}
        if looked_up is not None:
            nodes[looked_up.gather.output[0]] = writer.embedding(looked_up)
        kept = _live(graph, [new for node in graph.node for new in nodes.get(node.output[0], [node])])
        writer.carry_over({name for node in kept for name in read_by(node)})
        model = ModelProto()
        model.CopyFrom(source.model)
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(kept)
        writer.carry_over_branches(model.graph)
    model.graph.initializer.extend(writer.tensors.values())
    path.write_bytes(model.SerializeToString(deterministic=True))
    return Network(model, path)


def find_embedding(graph: GraphProto, weights: Mapping[str, TensorProto]) -> Embedding | None:
    """The Gather by `input_ids` from a float32 matrix, direct or through a Transpose; None if there is none."""
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type != "Gather" or node.input[1] != "input_ids":
            continue
        maker = makers.get(node.input[0])
        transposed = maker is not None and maker.op_type == "Transpose"
        name = maker.input[0] if maker is not None and transposed else node.input[0]
        if _is_matrix(weights.get(name)):
            return Embedding(node, name, maker if transposed else None)
    return None


@dataclass
class _NetworkWriter:
    """Writes the weights of the result to `data`, and makes the nodes that read them."""

    source: Network
    weights: Mapping[str, TensorProto]
    scheme: BlockScheme
    data: DataFile
    progress: Progress
    total: int  # bytes of the matrices to quantize
    tensors: dict[str, TensorProto] = field(default_factory=dict)
    _stored: dict[str, _QuantizedMatrix] = field(default_factory=dict)
    _done: int = 0

    def product(self, node: NodeProto) -> NodeProto:
        """The MatMulNBits that replaces a MatMul by a matrix [k, n]."""
        weight = self.weights[node.input[1]]
        stored = self._quantize(weight, by_columns=True)
        settings: dict[str, Any] = {
            "K": stored.k,
            "N": stored.n,
            "bits": self.scheme.bits,
            "block_size": self.scheme.group_size,
        }
        if self.scheme.accuracy_level:
            settings["accuracy_level"] = self.scheme.accuracy_level
        inputs = [node.input[0], stored.packed.name, *stored.sides]
        return helper.make_node("MatMulNBits", inputs, list(node.output), name=node.name, domain=_MICROSOFT, **settings)

    def embedding(self, lookup: Embedding) -> list[NodeProto]:
        """The GatherBlockQuantized that replaces a Gather of rows, and a Slice if rows are padded to whole blocks.

        The table is the matrix that a MatMulNBits would read, seen as one row of bytes a token.
        """
        gather, scheme = lookup.gather, self.scheme
        stored = self._quantize(self.weights[lookup.weight], by_columns=lookup.transpose is not None)
        padded = blocks_of(stored.k, scheme) * scheme.group_size
        table = self.data.again(stored.packed, f"{stored.packed.name}_rows", [stored.n, padded * scheme.bits // 8])
        self.tensors[table.name] = table
        rows = gather.output[0] if padded == stored.k else f"{gather.output[0]}_padded"
        quantized = helper.make_node(
            "GatherBlockQuantized",
            [table.name, gather.input[1], *stored.sides],
            [rows],
            name=gather.name,
            domain=_MICROSOFT,
            bits=scheme.bits,
            block_size=scheme.group_size,
            gather_axis=0,
            quantize_axis=1,
        )
        if padded == stored.k:
            return [quantized]
        bounds = [
            self._integer(f"{gather.name}_{part}", value)
            for part, value in (("start", 0), ("end", stored.k), ("axis", -1))
        ]
        cut = helper.make_node("Slice", [rows, *bounds], list(gather.output), name=f"{gather.name}_slice")
        return [quantized, cut]

    def carry_over(self, wanted: set[str]) -> None:
        """Copy the weights `wanted`, which the result reads unchanged."""
        for name, tensor in self.weights.items():
            if name not in wanted:
                continue
            self.tensors[name] = tensor
            if nbytes(tensor) >= INLINE or tensor.data_location == TensorProto.EXTERNAL:
                pieces = self.source.pieces(tensor)
                self.tensors[name] = self.data.add(name, tensor.data_type, tensor.dims, pieces)

    def carry_over_branches(self, graph: GraphProto) -> None:
        """Copy the weights inside the nodes of `graph` that lie in the source's data file, in place."""
        for tensor in in_branches(graph):
            if tensor.data_location == TensorProto.EXTERNAL:
                pieces = self.source.pieces(tensor)
                tensor.CopyFrom(self.data.add(tensor.name, tensor.data_type, tensor.dims, pieces))

    def _quantize(self, weight: TensorProto, *, by_columns: bool) -> _QuantizedMatrix:
        """Quantize a matrix [k, n] by columns, or [n, k] by rows; each matrix once, however many nodes read it."""
        if weight.name in self._stored:
            return self._stored[weight.name]
        k, n = weight.dims if by_columns else reversed(weight.dims)

        def read(start: int, stop: int) -> Array:
            if by_columns:
                return self.source.columns(weight, start, stop)
            return np.ascontiguousarray(self.source.rows(weight, start, stop).T)

        scales: list[Array] = []
        zeros: list[Array] = []

        def packed() -> Iterator[bytes]:
            for blocks in quantize_slices(k, n, read, self.scheme):
                scales.append(blocks.scales)
                if blocks.zeros is not None:
                    zeros.append(blocks.zeros)
                yield blocks.packed.tobytes()
                self._advance(4 * k * len(blocks.scales))

        count = blocks_of(k, self.scheme)
        name = f"{weight.name}_Q{self.scheme.bits}"
        shape = [n, count, self.scheme.group_size * self.scheme.bits // 8]
        tensor = self.tensors[name] = self.data.add(name, TensorProto.UINT8, shape, packed())
        sides = [self._add(f"{weight.name}_scales", scales)]
        if zeros:
            sides.append(self._add(f"{weight.name}_zeros", zeros))
        self._stored[weight.name] = _QuantizedMatrix(tensor, tuple(sides), k, n)
        return self._stored[weight.name]

    def _add(self, name: str, parts: list[Array]) -> str:
        whole = np.concatenate(parts)
        element = helper.np_dtype_to_tensor_dtype(whole.dtype)
        self.tensors[name] = self.data.add(name, element, whole.shape, [whole.tobytes()])
        return name

    def _integer(self, name: str, value: int) -> str:
        self.tensors[name] = numpy_helper.from_array(np.array([value], np.int64), name)
        return name

    def _advance(self, size: int) -> None:
        self._done += size
        self.progress(self._done, self.total)


def _is_matrix(tensor: TensorProto | None) -> bool:
    return tensor is not None and tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2


def _is_product(node: NodeProto, weights: Mapping[str, TensorProto]) -> bool:
    return node.op_type == "MatMul" and node.domain in ("", "ai.onnx") and _is_matrix(weights.get(node.input[1]))


def _live(graph: GraphProto, nodes: list[NodeProto]) -> list[NodeProto]:
    """`nodes` without those whose output nothing reads any more, such as the Transpose of a quantized table."""
    read = {output.name for output in graph.output}
    kept = []
    for node in reversed(nodes):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read.update(read_by(node))
    return kept[::-1]
