"""The `engine` step: a float32 network becomes a folder that onnxruntime-genai runs.

Options, as the key names them: `quant.weights` "none", "int8" or "int4"; for the last two `quant.group_size`,
`quant.symmetric`, `quant.embedding` and `compiler.accuracy_level` (0 to 4, MatMulNBits' own numbers);
`compiler.optimization` "none", "basic", "extended" or "all"; `profile.max_seq_len` in tokens, or null.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnxruntime

from trtbuild import untrusted
from trtbuild.compilers.onnxruntime.blocks import BlockScheme
from trtbuild.compilers.onnxruntime.optimization import LEVELS, optimize
from trtbuild.compilers.onnxruntime.options import ACCURACY_LEVELS, GROUPS
from trtbuild.compilers.onnxruntime.quantization import quantize_network
from trtbuild.compilers.onnxruntime.tied_embedding import untranspose
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.weights.tensors import Network, settle
from trtbuild.worker import Reporter, StepRequest

MODEL = "model.onnx"
CONFIG = "genai_config.json"
_BITS = {"int8": 8, "int4": 4}
_QUANTIZED = ("MatMulNBits", "GatherBlockQuantized")


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Build the engine of the folder `request.inputs["network"]` in `out`; returns facts for the record.

    Raises InputError for options out of range, BuildError if the network is not one for ONNX Runtime.
    """
    options, folder = request.options, request.inputs["network"]
    scheme = _scheme(request)
    level = request.choice("compiler.optimization", ("none", *LEVELS))
    for name in (MODEL, CONFIG):
        if not (folder / name).is_file():
            raise BuildError(f"the network step made no {name}: it is not a network for ONNX Runtime")
    _copy_rest(folder, out, options.get("profile.max_seq_len"))
    network = Network.open(folder / MODEL)
    with tempfile.TemporaryDirectory(prefix="engine-", dir=out.parent) as scratch:
        stage = Path(scratch) / "quantized.onnx"
        if scheme is None:
            network = untranspose(network, stage)
        else:
            embedding = bool(options["quant.embedding"])
            network = quantize_network(network, scheme, embedding, stage, reporter.percents("quantize"))
        if level != "none":
            network = optimize(network.path, stage.with_name("optimized.onnx"), level)
        size = settle(network, out / MODEL)
    return _facts(network, size)


def _facts(network: Network, size: int) -> dict[str, Any]:
    graph = network.model.graph
    return {
        "bytes": size,
        "quantized_nodes": [node.name for node in graph.node if node.op_type in _QUANTIZED],
        "operators": dict(sorted(Counter(node.op_type for node in graph.node).items())),
        "inputs": [value.name for value in graph.input],
        "outputs": [value.name for value in graph.output],
        "onnxruntime": onnxruntime.__version__,
    }


def _scheme(request: StepRequest) -> BlockScheme | None:
    weights = request.choice("quant.weights", ("none", *_BITS))
    if weights == "none":
        return None
    group_size = request.choice("quant.group_size", GROUPS)
    level = request.choice("compiler.accuracy_level", ACCURACY_LEVELS)
    return BlockScheme(_BITS[weights], group_size, bool(request.options["quant.symmetric"]), level)


def _copy_rest(folder: Path, out: Path, max_seq_len: int | None) -> None:
    """Copy tokenizer and configs unchanged, but set the maximum length in genai_config.json. Raises InputError."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in (MODEL, MODEL + ".data", CONFIG):
            shutil.copyfile(path, out / path.name)
    config = untrusted.read_object(folder / CONFIG)
    if max_seq_len is not None:
        longest = config["model"]["context_length"]
        if not 0 < max_seq_len <= longest:
            raise InputError(
                f"profile.max_seq_len={max_seq_len} is not within the model's context of {longest} tokens",
                option="profile.max_seq_len",
                hint=f"choose at most {longest}, or leave it out",
            )
        config["model"]["context_length"] = config["search"]["max_length"] = max_seq_len
    (out / CONFIG).write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
