"""ONNX Runtime's own graph optimization, done once at build time instead of at every load."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from trtbuild.errors import BuildError
from trtbuild.networks.weights.tensors import INLINE, Network

LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}

# What a session may raise about its model: ONNX Runtime's exceptions have no common base class.
_REFUSALS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NotImplemented,
)


def optimize(path: Path, out: Path, level: str) -> Network:
    """Write the model at `path` to `out`, optimized by ONNX Runtime. Raises BuildError if it does not load."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = str(out)
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # constant folding needs one, and idle threads would spin
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", out.name + ".data"),
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(INLINE)),
        # Prepacking speeds up inference; here it would only hold a second copy of every weight.
        ("session.disable_prepacking", "1"),
    ):
        options.add_session_config_entry(key, value)
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _REFUSALS as error:
        raise BuildError(f"ONNX Runtime cannot load the network: {error}") from None
    return Network.open(out)
