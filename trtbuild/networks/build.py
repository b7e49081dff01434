"""The `network` step: a checkpoint becomes an ONNX graph with its weights, config and tokenizer.

Options: `network.frontend` "native" (this package) or "genai" (onnxruntime-genai's builder, which needs
torch), `network.operators` "fused" (ONNX Runtime) or "standard" (TensorRT), `model.dtype` "float32" or
"float16".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trtbuild.errors import InputError
from trtbuild.networks import genai_builder, genai_config, tokenizer
from trtbuild.networks.architectures import parse
from trtbuild.networks.checkpoint import Checkpoint, read_json
from trtbuild.networks.emit import OPERATORS, check, emit
from trtbuild.networks.gguf_config import token_ids
from trtbuild.worker import Reporter, Request

_DTYPES = ("float32", "float16")
_FRONTENDS = ("native", "genai")


def run(request: Request, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the network of `request.model` to the folder `out`; returns what it is, for the manifest.

    Raises InputError for a checkpoint or an option that cannot be built, before anything is written.
    """
    if _choice(request.options, "network.frontend", _FRONTENDS) == "genai":
        return genai_builder.run(request, out, reporter)
    operators = _choice(request.options, "network.operators", OPERATORS)
    dtype = np.dtype(_choice(request.options, "model.dtype", _DTYPES))
    checkpoint = Checkpoint.open(request.model)
    decoder = parse(checkpoint.config)
    shapes = check(checkpoint, decoder, operators)
    _write_config(checkpoint, out)
    tokenizer.write(checkpoint, out)
    if operators == "fused":
        genai_config.write(decoder, checkpoint, out)
    size = emit(checkpoint, decoder, operators, dtype, out / "model.onnx", _progress(reporter))
    return {
        "architecture": decoder.architecture,
        "parameters": sum(math.prod(shape) for shape in shapes.values()),
        "tensors": len(shapes),
        "bytes": size,
        "operators": operators,
        "dtype": dtype.name,
        "sliding_window": decoder.sliding_window,
    }


def _choice(options: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> str:
    value = options.get(name)
    if value not in allowed:
        raise InputError(f"{name}={value} is not one of {', '.join(allowed)}", option=name)
    return str(value)


def _progress(reporter: Reporter) -> Callable[[int, int], None]:
    """Reports each percent of the weights once."""
    shown = -1

    def done(written: int, total: int) -> None:
        nonlocal shown
        percent = written * 100 // total
        if percent > shown:
            shown = percent
            reporter.progress("weights", written, total)

    return done


def _write_config(checkpoint: Checkpoint, out: Path) -> None:
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
