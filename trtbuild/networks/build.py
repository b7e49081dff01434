"""The `network` step: a checkpoint becomes an ONNX graph with its weights, config and tokenizer.

Options: `network.frontend` "native" (this package) or "genai" (onnxruntime-genai's builder, which needs
torch), `network.operators` "fused" (ONNX Runtime), "standard" (TensorRT) or "standard_layer_norm" (TensorRT before
9.1), `model.dtype` "float32", "float16" or, in standard operators, "bfloat16".
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from trtbuild.networks.chat import files
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.genai import builder, config
from trtbuild.networks.gguf.config import token_ids
from trtbuild.networks.onnx_graph.emit import OPERATORS, check, emit
from trtbuild.networks.tokenizer import convert
from trtbuild.networks.weights.checkpoint import Checkpoint, read_json
from trtbuild.worker import Reporter, StepRequest

# ml_dtypes, which onnx brings, is how numpy knows bfloat16.
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_FRONTENDS = ("native", "genai")


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the network of `request.model` to the folder `out`; returns what it is, for the manifest.

    Raises InputError for a checkpoint or an option that cannot be built, before anything is written.
    """
    if request.choice("network.frontend", _FRONTENDS) == "genai":
        return builder.run(request, out, reporter)
    operators = request.choice("network.operators", OPERATORS)
    dtype = _DTYPES[request.choice("model.dtype", tuple(_DTYPES))]
    checkpoint = Checkpoint.open(request.model)
    decoder = checkpoint.retied(parse(checkpoint.config))
    shapes = check(checkpoint, decoder, operators)
    write_config(checkpoint, out)
    fused = operators == "fused"
    original = convert.write(checkpoint, out)
    if fused:
        _tokens().say(out)
    chats = files.write(
        checkpoint.files,
        checkpoint.config,
        checkpoint.metadata,
        out,
        genai=fused,
        assumed=decoder.eos_token_ids,
    )
    compared = {}
    if fused:
        compared["texts"] = _tokens().check(out, original)  # as the tokenizers library reads them
        config.write(decoder, checkpoint, out, chats.settled)
    size = emit(checkpoint, decoder, operators, dtype, out / "model.onnx", reporter.percents("weights"))
    return {
        "architecture": decoder.architecture,
        "parameters": sum(math.prod(shape) for shape in shapes.values()),
        "tensors": len(shapes),
        "bytes": size,
        "operators": operators,
        "dtype": dtype.name,
        "sliding_window": decoder.sliding_window,
        **chats.facts,
        **compared,
        "notes": checkpoint.notes(),
    }


def _tokens() -> ModuleType:
    """`networks.tokens`, which needs onnxruntime-genai: where operators are standard ones, there is none."""
    return importlib.import_module("trtbuild.networks.tokenizer.tokens")


def write_config(checkpoint: Checkpoint, out: Path) -> None:
    """config.json and generation_config.json: as given, byte for byte, or made from GGUF metadata."""
    _copy_or_make(checkpoint, "config.json", dict(checkpoint.config), out)
    if checkpoint.metadata is not None:
        ids = {name: value for name, value in token_ids(checkpoint.metadata).items() if value is not None}
        _copy_or_make(checkpoint, "generation_config.json", ids, out)
    elif "generation_config.json" in checkpoint.files:
        _copy_or_make(checkpoint, "generation_config.json", {}, out)


def _copy_or_make(checkpoint: Checkpoint, name: str, content: Mapping[str, Any], out: Path) -> None:
    if name in checkpoint.files:
        read_json(checkpoint.files, name)  # refuse what no reader could parse
        (out / name).write_bytes(checkpoint.files[name].read_bytes())
    else:
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        (out / name).write_text(text + "\n", encoding="utf-8")
