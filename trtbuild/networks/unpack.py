"""The `unpack` step: a GGUF becomes a folder as Hugging Face's tools write it, for compilers that read no GGUF.

Weights in `model.dtype` ("float32", "float16" or "bfloat16"), one tensor in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trtbuild.errors import InputError
from trtbuild.networks.chat import files
from trtbuild.networks.gguf.config import token_ids
from trtbuild.networks.tokenizer import convert
from trtbuild.networks.weights import safetensors_writer
from trtbuild.networks.weights.checkpoint import Checkpoint
from trtbuild.worker import Reporter, StepRequest, serve

WEIGHTS = "model.safetensors"
_DTYPES = ("float32", "float16", "bfloat16")


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the folder `out`; returns facts for the record. Raises InputError for what cannot be unpacked."""
    name = request.choice("model.dtype", _DTYPES)
    checkpoint = Checkpoint.open(request.model)
    if checkpoint.metadata is None:
        raise InputError("the checkpoint is no GGUF", option="model.source")
    _write(out / "config.json", _config(checkpoint.config, name))
    ids = {key: value for key, value in token_ids(checkpoint.metadata).items() if value is not None}
    _write(out / "generation_config.json", ids)
    convert.write(checkpoint, out)
    files.write(checkpoint.files, checkpoint.config, checkpoint.metadata, out)
    size = _weights(checkpoint, name, out / WEIGHTS, reporter)
    return {
        "architecture": checkpoint.config["architectures"][0],
        "tensors": len(checkpoint.stored),
        "bytes": size,
    }


def _config(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """With the rotation as both transformers 4 and 5 call it: 4 reads `rope_theta` alone, and has a default for it."""
    rope = dict(config["rope_parameters"])
    if rope["rope_type"] == "longrope":  # one divisor a frequency: how a GGUF holds what Llama 3.1 and later have
        raise InputError(
            "the GGUF scales its rotation by rope_freqs.weight, which no config.json of a Llama can say again",
            option="model.source",
            hint="name the same model as safetensors",
        )
    theta = rope.pop("rope_theta")
    scaled = rope if rope["rope_type"] != "default" else None
    return {**config, "rope_theta": theta, "rope_scaling": scaled, "dtype": dtype, "torch_dtype": dtype}


def _weights(checkpoint: Checkpoint, dtype: str, path: Path, reporter: Reporter) -> int:
    names, kind = checkpoint.names(), safetensors_writer.DTYPES[dtype]
    tensors = {name: (dtype, checkpoint.shape(name)) for name in names}
    pieces = (np.ascontiguousarray(checkpoint.read(name).astype(kind)).tobytes() for name in names)
    return safetensors_writer.write(path, tensors, pieces, reporter.percents("weights"))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    serve("trtbuild.networks.unpack:run")
