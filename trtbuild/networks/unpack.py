"""The `unpack` step: a GGUF becomes a folder as Hugging Face's tools write it, for compilers that read no GGUF.

Weights in `model.dtype` ("float32", "float16" or "bfloat16"), one tensor in memory at a time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from trtbuild.errors import InputError
from trtbuild.networks import tokenizer
from trtbuild.networks.checkpoint import Checkpoint
from trtbuild.networks.gguf_config import token_ids
from trtbuild.worker import Reporter, Request, serve

WEIGHTS = "model.safetensors"
# ml_dtypes, which onnx brings, is how numpy knows bfloat16. The second is safetensors' name.
_DTYPES: Mapping[str, tuple[np.dtype[Any], str]] = {
    "float32": (np.dtype("<f4"), "F32"),
    "float16": (np.dtype("<f2"), "F16"),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), "BF16"),
}


def run(request: Request, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the folder `out`; returns facts for the record. Raises InputError for what cannot be unpacked."""
    name = request.choice("model.dtype", tuple(_DTYPES))
    checkpoint = Checkpoint.open(request.model)
    if checkpoint.metadata is None:
        raise InputError("the checkpoint is no GGUF", option="model.source")
    _write(out / "config.json", _config(checkpoint.config, name))
    ids = {key: value for key, value in token_ids(checkpoint.metadata).items() if value is not None}
    _write(out / "generation_config.json", ids)
    tokenizer.write(checkpoint, out)
    size = _weights(checkpoint, name, out / WEIGHTS, reporter)
    return {
        "architecture": checkpoint.config["architectures"][0],
        "tensors": len(checkpoint.stored),
        "bytes": size,
    }


def _config(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """With the rotation as both transformers 4 and 5 call it: 4 reads `rope_theta` alone, and has a default for it."""
    rope = dict(config["rope_parameters"])
    if (
        rope["rope_type"] == "longrope"
    ):  # one divisor a frequency: how a GGUF holds what Llama 3.1 and later have
        raise InputError(
            "the GGUF scales its rotation by rope_freqs.weight, which no config.json of a Llama can say again",
            option="model.source",
            hint="name the same model as safetensors",
        )
    theta = rope.pop("rope_theta")
    scaled = rope if rope["rope_type"] != "default" else None
    return {**config, "rope_theta": theta, "rope_scaling": scaled, "dtype": dtype, "torch_dtype": dtype}


def _weights(checkpoint: Checkpoint, dtype: str, path: Path, reporter: Reporter) -> int:
    """A file of the safetensors format: the length of a JSON header, the header, the tensors in its order."""
    kind, code = _DTYPES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in checkpoint.names():
        shape = checkpoint.shape(name)
        size = math.prod(shape) * kind.itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    done, report = 0, reporter.percents("weights")
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in checkpoint.names():
            values = np.ascontiguousarray(checkpoint.read(name).astype(kind))
            file.write(values.tobytes())
            done += values.nbytes
            report(done, at)
    return at


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(
        json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    serve("trtbuild.networks.unpack:run")
