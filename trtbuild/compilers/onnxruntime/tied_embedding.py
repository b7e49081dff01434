"""Stores a tied float32 matrix once: the embedding reads its rows, and the head multiplies by its transpose.

The network stores the head's matrix [hidden, vocab] and looks tokens up in a Transpose of it, which ONNX Runtime would
compute, and hold or save as a second copy. The matrix is transposed once, at build time: Gather reads it directly, and
FusedMatMul (transB=1 in ONNX Runtime's ContribOperators.md) multiplies as fast as MatMul.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from trtbuild.compilers.onnxruntime.blocks import SLICE
from trtbuild.compilers.onnxruntime.quantization import Embedding, find_embedding
from trtbuild.networks.weights.tensors import DataFile, Network, element_type, in_branches, read_by


def untranspose(source: Network, path: Path) -> Network:
    """Write `source` to `path` without the Transpose of a tied embedding; returns `source` itself if it has none."""
    graph = source.model.graph
    embedding = find_embedding(graph, {tensor.name: tensor for tensor in graph.initializer})
    if embedding is None or embedding.transpose is None or not _only_tied(source, embedding):
        return source
    model = ModelProto()
    model.CopyFrom(source.model)
    del model.graph.node[:]
    model.graph.node.extend(_reading_rows(node, embedding) for node in graph.node if node != embedding.transpose)
    data = path.with_name(path.name + ".data")
    with data.open("wb") as stream:
        target = DataFile(stream, data.name)
        for tensor in (*model.graph.initializer, *in_branches(model.graph)):
            if tensor.name == embedding.weight:
                tensor.CopyFrom(_transposed(source, tensor, target))
            elif tensor.data_location == TensorProto.EXTERNAL:
                pieces = source.pieces(tensor)
                tensor.CopyFrom(target.add(tensor.name, tensor.data_type, tensor.dims, pieces))
    path.write_bytes(model.SerializeToString(deterministic=True))
    return Network(model, path)


def _only_tied(source: Network, embedding: Embedding) -> bool:
    """Whether embedding and one plain MatMul are all that reads the matrix."""
    transposed = embedding.transpose.output[0] if embedding.transpose is not None else ""
    readers = [node for node in source.model.graph.node if {embedding.weight, transposed} & set(read_by(node))]
    others = [node for node in readers if node not in (embedding.gather, embedding.transpose)]
    return len(others) == 1 and others[0].op_type == "MatMul" and others[0].input[1] == embedding.weight


def _transposed(source: Network, tensor: TensorProto, target: DataFile) -> TensorProto:
    rows, columns = tensor.dims
    step = max(1, SLICE // (rows * element_type(tensor).itemsize))
    slices = ((start, min(columns, start + step)) for start in range(0, columns, step))
    pieces = (np.ascontiguousarray(source.columns(tensor, *bounds).T).tobytes() for bounds in slices)
    return target.add(tensor.name, tensor.data_type, [columns, rows], pieces)


def _reading_rows(node: NodeProto, embedding: Embedding) -> NodeProto:
    if node == embedding.gather:
        return helper.make_node("Gather", [embedding.weight, node.input[1]], list(node.output), name=node.name)
    if embedding.weight in node.input:
        return helper.make_node(
            "FusedMatMul",
            list(node.input),
            list(node.output),
            name=node.name,
            domain="com.microsoft",
            transB=1,
        )
    return node
