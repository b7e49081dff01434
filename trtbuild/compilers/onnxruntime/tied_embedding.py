"""A tied float32 matrix is kept once: the embedding reads its rows, and the head multiplies by its transpose.

The network stores the head's matrix [hidden, vocab] and looks tokens up in a Transpose of it, which ONNX
Runtime would compute, and hold or save as a second copy. Turned over once, at build time, Gather reads it as
it is and FusedMatMul (ONNX Runtime's ContribOperators.md, transB=1) multiplies at MatMul's speed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from trtbuild.compilers.onnxruntime.blocks import SLICE
from trtbuild.compilers.onnxruntime.quantization import Embedding, find_embedding
from trtbuild.networks.weights.tensors import DataFile, Network, element_type, in_branches, read_by


def untranspose(source: Network, path: Path) -> Network:
    """Write `source` to `path` without the Transpose of a tied embedding; `source` itself when there is none."""
    graph = source.model.graph
    found = find_embedding(graph, {tensor.name: tensor for tensor in graph.initializer})
    if found is None or found.transpose is None or not _only_tied(source, found):
        return source
    model = ModelProto()
    model.CopyFrom(source.model)
    del model.graph.node[:]
    model.graph.node.extend(_reading_rows(node, found) for node in graph.node if node != found.transpose)
    data = path.with_name(path.name + ".data")
    with data.open("wb") as stream:
        target = DataFile(stream, data.name)
        for tensor in (*model.graph.initializer, *in_branches(model.graph)):
            if tensor.name == found.weight:
                tensor.CopyFrom(_turned(source, tensor, target))
            elif tensor.data_location == TensorProto.EXTERNAL:
                pieces = source.pieces(tensor)
                tensor.CopyFrom(target.add(tensor.name, tensor.data_type, tensor.dims, pieces))
    path.write_bytes(model.SerializeToString(deterministic=True))
    return Network(model, path)


def _only_tied(source: Network, found: Embedding) -> bool:
    """Whether embedding and one plain MatMul are all that reads the matrix."""
    transposed = found.transpose.output[0] if found.transpose is not None else ""
    readers = [node for node in source.model.graph.node if {found.weight, transposed} & set(read_by(node))]
    others = [node for node in readers if node not in (found.gather, found.transpose)]
    return len(others) == 1 and others[0].op_type == "MatMul" and others[0].input[1] == found.weight


def _turned(source: Network, tensor: TensorProto, target: DataFile) -> TensorProto:
    rows, columns = tensor.dims
    step = max(1, SLICE // (rows * element_type(tensor).itemsize))
    slices = ((start, min(columns, start + step)) for start in range(0, columns, step))
    turned = (np.ascontiguousarray(source.columns(tensor, *bounds).T).tobytes() for bounds in slices)
    return target.add(tensor.name, tensor.data_type, [columns, rows], turned)


def _reading_rows(node: NodeProto, found: Embedding) -> NodeProto:
    if node == found.gather:
        return helper.make_node("Gather", [found.weight, node.input[1]], list(node.output), name=node.name)
    if found.weight in node.input:
        return helper.make_node(
            "FusedMatMul",
            list(node.input),
            list(node.output),
            name=node.name,
            domain="com.microsoft",
            transB=1,
        )
    return node
