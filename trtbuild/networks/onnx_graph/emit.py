"""From a checked checkpoint to model.onnx and model.onnx.data, in either set of operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.onnx_graph import fused, standard
from trtbuild.networks.onnx_graph.skeleton import GraphWeights, build
from trtbuild.networks.onnx_graph.writer import Graph, write
from trtbuild.networks.weights import layout
from trtbuild.networks.weights.checkpoint import Checkpoint

OPERATORS = ("fused", "standard", "standard_layer_norm")


def check(checkpoint: Checkpoint, decoder: Decoder, operators: str) -> dict[str, layout.Shape]:
    """The tensors that the network will hold. Raises InputError when it cannot be written, so that nothing
    need be written first."""
    if operators == "fused":
        layout.check_fused(decoder)
    return layout.check(checkpoint, decoder)


def emit(
    checkpoint: Checkpoint,
    decoder: Decoder,
    operators: str,
    dtype: np.dtype[np.floating],
    path: Path,
    done: Callable[[int, int], None],
) -> int:
    """Write `decoder` to `path`, and its weights to `path` + ".data"; returns the size of both in bytes.

    `operators` is one of `OPERATORS`; `dtype` float32, float16 or bfloat16. `done` is told the bytes of weights written
    and their total. The checkpoint must have passed `check`. Raises InputError.
    """
    graph = Graph(dtype)
    weights = GraphWeights(graph, decoder, checkpoint)
    if operators == "fused":
        build(fused.Fused(graph, decoder, weights), decoder)
        return write(graph, fused.OPSETS, fused.IR_VERSION, path, done)
    flavour = standard.Standard if operators == "standard" else standard.LayerNormed
    build(flavour(graph, decoder, weights), decoder)
    return write(graph, standard.OPSETS, standard.IR_VERSION, path, done)
