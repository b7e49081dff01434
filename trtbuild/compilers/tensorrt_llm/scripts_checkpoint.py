"""The worker of `checkpoint` by NVIDIA's scripts: a Hugging Face folder becomes a TensorRT-LLM checkpoint.

config.json           the model and its quantization
rank0.safetensors, …  the weights of each rank
tokenizer/            the model's own, for servers
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.compilers.tensorrt_llm import arguments, rules, tools
from trtbuild.compilers.tensorrt_llm.algorithms import AlgorithmScheme
from trtbuild.compilers.tensorrt_llm.arguments import Places
from trtbuild.compilers.tensorrt_llm.contract import UNEXECUTED
from trtbuild.compilers.tensorrt_llm.engine_folder import copy_tokenizer
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.weights import as_transformers
from trtbuild.worker import Reporter, StepRequest, serve


def run(request: StepRequest, out: Path, _reporter: Reporter) -> dict[str, Any]:
    """Write the checkpoint to the folder `out`; returns facts for the record. Raises InputError, BuildError."""
    facts = request.options
    home = Path(os.environ["TMPDIR"])
    model = request.folder(home)
    config = untrusted.read_object(model / "config.json")
    architecture = str((config.get("architectures") or ["?"])[0])
    scheme = _check(config, architecture, facts)
    as_transformers.check_folder(model)
    dataset = request.inputs.get("calib_dataset") if scheme.calibrated else None
    if dataset is not None and not dataset.is_dir():
        raise InputError(
            "NVIDIA's scripts read a folder, and this is a file",
            option="compiler.calib_dataset",
            hint="name a folder that datasets.load_dataset reads, with a split `train` and a column `text`",
        )
    places = Places(model, out, dataset=dataset)
    if scheme.tool == "convert":
        family = rules.family(architecture)
        name = f"models/{family}/convert_checkpoint.py"
        words = arguments.convert(facts, places, family)
    else:
        name = "quantization/quantize.py"
        words = arguments.quantize(facts, places)
    peak = tools.run([*tools.script(name), *words], home)
    written = check_files(out, int(facts["parallel.tp"]) * int(facts["parallel.pp"]))
    copy_tokenizer(model, out)
    return {
        "algorithm": scheme.algorithm,
        "kv_cache": scheme.kv_cache,
        "tool": name,
        "architecture": written.get("architecture"),
        "quantization": written.get("quantization"),
        "peak_memory_bytes": peak,
        "validated": UNEXECUTED,
    }


def check_files(folder: Path, ranks: int) -> dict[str, Any]:
    """The config of a checkpoint with the files of all its ranks. Raises BuildError if one is missing."""
    try:
        config = untrusted.read_object(folder / "config.json")
    except (OSError, ValueError):
        raise BuildError("the checkpoint has no readable config.json") from None
    missing = [f"rank{rank}.safetensors" for rank in range(ranks)]
    missing = [name for name in missing if not (folder / name).is_file()]
    if missing or not isinstance(config, dict):
        raise BuildError(
            f"the checkpoint lacks {', '.join(missing) or 'its config'}, and no tool reported an error",
            hint="it has tp x pp files; the log may tell which rank failed",
        )
    return config


def _check(config: Mapping[str, Any], architecture: str, facts: Mapping[str, Any]) -> AlgorithmScheme:
    """Check the rules again: nothing was known about a model that was downloaded after planning. Raises InputError."""
    weights, activations, method, cache = (
        str(facts[f"quant.{name}"]) for name in ("weights", "activations", "method", "kv_cache")
    )
    scheme = rules.scheme((weights, activations, method, cache), architecture, facts)
    rules.check_mapping(facts, scheme, rules.family(architecture))
    rules.check_gptq(config, scheme)
    ranks = rules.Ranks(facts["parallel.tp"], facts["parallel.pp"], facts["compiler.cp_size"])
    rules.check_shapes(config, ranks, scheme.grouped, facts.get("quant.group_size"))
    return scheme


if __name__ == "__main__":
    serve("trtbuild.compilers.tensorrt_llm.scripts_checkpoint:run")
