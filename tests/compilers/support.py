"""Networks and engines made in this process, and models of the quantized formats in plain numpy."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trtbuild.compilers.onnxruntime import engine
from trtbuild.networks import build
from trtbuild.worker import Reporter, StepRequest

OPTIONS = {
    "quant.weights": "none",
    "quant.group_size": 32,
    "quant.symmetric": True,
    "quant.embedding": True,
    "compiler.accuracy_level": 4,
    "compiler.optimization": "all",
    "profile.max_seq_len": None,
}


def request(options: Mapping[str, Any], model: Mapping[str, Path] | None = None, **inputs: Path) -> StepRequest:
    return StepRequest("step", options, model or {}, inputs, {}, None)


def make_network(checkpoint: Path, out: Path) -> Path:
    """The network step, on the files of the folder `checkpoint`."""
    out.mkdir(parents=True)
    options = {"network.frontend": "native", "network.operators": "fused", "model.dtype": "float32"}
    build.run(request(options, {path.name: path for path in checkpoint.iterdir()}), out, Reporter(io.StringIO()))
    return out


def make_engine(network: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """The engine step; `changes` are options with "__" for the dot. Returns its facts."""
    out.mkdir(parents=True)
    options = OPTIONS | {name.replace("__", "."): value for name, value in changes.items()}
    return engine.run(request(options, network=network), out, Reporter(io.StringIO()))


def write_request(path: Path, options: Mapping[str, Any], **inputs: Path) -> Path:
    """A worker's request file."""
    named = {name: str(folder) for name, folder in inputs.items()}
    content = {"step": "step", "options": options, "model": None, "inputs": named, "toolchain": {}}
    path.write_text(json.dumps(content | {"memory_bytes": None}))
    return path


def dequantize(packed: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, bits: int) -> np.ndarray:
    """The matrix [n, padded k] that packed [n, blocks, bytes] stands for."""
    stored = packed if bits == 8 else np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1)
    offset = np.full(scales.shape, 2 ** (bits - 1))
    if zeros is not None:
        whole = zeros if bits == 8 else np.stack([zeros & 15, zeros >> 4], -1).reshape(len(zeros), -1)
        offset = whole[:, : scales.shape[1]]
    values = (stored.astype(np.float32) - offset[..., None]) * scales[..., None]
    return values.reshape(len(packed), -1)
