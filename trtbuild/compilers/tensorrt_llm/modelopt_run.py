"""Runs ModelOpt for TensorRT-LLM 1.2: loads a model, measures it, quantizes, and writes a file for each rank.

config.json           the model and its quantization
rank0.safetensors, …  the weights, as `ranks` reads them
tokenizer/            the model's own, for servers
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from modelopt.torch.export import export_tensorrt_llm_checkpoint
from transformers import AutoConfig

from trtbuild import untrusted
from trtbuild.compilers.modelopt import exclusions, texts
from trtbuild.compilers.modelopt.modelopt_run import Calibration, original, quantized
from trtbuild.compilers.modelopt.schemes import KV_CACHES, scheme_of
from trtbuild.compilers.tensorrt_llm import modelopt_schemes, scripts_checkpoint, verify_export
from trtbuild.compilers.tensorrt_llm.engine_folder import copy_tokenizer
from trtbuild.errors import BuildError
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.config.decoder import Decoder
from trtbuild.worker import Reporter, StepRequest

_CAPABILITIES = {"x86_64_v3": "AVX2", "x86_64_v4": "AVX512"}  # torch's names


def run(request: StepRequest, source: Path, config: Mapping[str, Any], out: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the checkpoint of the model in `source`, whose config.json is `config`, to `out`, and verify it.

    Returns facts for the record. Raises InputError, BuildError.
    """
    facts = request.options
    scheme = scheme_of(facts, modelopt_schemes.SCHEMES)
    cache = KV_CACHES[str(facts["quant.kv_cache"])]
    decoder = parse(config)
    tp, pp = int(facts["parallel.tp"]), int(facts["parallel.pp"])
    device = str(facts.get("compiler.calib_device", "cpu"))
    if device == "cpu" and "compiler.calib_level" in facts:
        _check_cpu(str(facts["compiler.calib_level"]))
    calibration = Calibration.read(request, device, "calib_max_seq_length")
    dtype, group = str(facts["model.dtype"]), facts.get("quant.group_size")
    measures = scheme.calibrated or cache is not None
    # A CPU measures scales in float32; the export then rounds what is not quantized to `dtype`.
    loaded = "float32" if measures and device == "cpu" else dtype
    patterns, model_config = exclusions.read(facts), _config(source, config, decoder)
    model, used, tokens = quantized(source, loaded, scheme, cache, group, calibration, reporter, patterns, model_config)
    _export(model, dtype, out, tp, pp)
    del model
    _complete(out, scheme.algorithm)
    copy_tokenizer(source, out)
    scripts_checkpoint.check_files(out, tp * pp)
    proof = verify_export.verify(original(source), out, scheme, facts, tokens(texts.evaluation_text()))
    return {
        "algorithm": scheme.algorithm or "NO_QUANT",
        "kv_cache": cache[1] if cache else None,
        "tool": "nvidia-modelopt",
        "architecture": decoder.architecture,
        "device": device,
        "calibration": used,
        **proof,
    }


def _export(model: Any, dtype: str, out: Path, tp: int, pp: int) -> None:
    try:
        with torch.inference_mode():
            export_tensorrt_llm_checkpoint(
                model,
                decoder_type="llama",
                dtype=getattr(torch, dtype),
                export_dir=str(out),
                inference_tensor_parallel=tp,
                inference_pipeline_parallel=pp,
            )
    except (AssertionError, NotImplementedError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "it does not say why")
        raise BuildError(f"ModelOpt cannot write this checkpoint: {reason}") from error


def _check_cpu(level: str) -> None:
    """Raises BuildError if this CPU lacks `level`: torch would silently use a lower one."""
    wanted, machine = _CAPABILITIES.get(level), platform.machine()
    if wanted is None:
        right = machine == level
    else:
        right = machine == "x86_64" and torch.backends.cpu.get_cpu_capability() == wanted
    if not right:
        raise BuildError(
            f"scales are to be measured with {wanted or level}, which this machine's CPU lacks",
            option=f"compiler.calib_level={level}",
            hint="choose one that it has: compiler.calib_level=x86_64_v3, x86_64_v4 or aarch64",
        )


def _config(source: Path, content: Mapping[str, Any], decoder: Decoder) -> Any:
    """transformers' config, with rotary parameters where this release of transformers reads them.

    A base that it does not find counts as 10000, in the calibration and in what ModelOpt writes.
    """
    config = AutoConfig.from_pretrained(source, local_files_only=True)
    parameters = content.get("rope_parameters")
    if isinstance(parameters, Mapping):
        scaling = {name: value for name, value in parameters.items() if name != "rope_theta"}
        plain = scaling.get("rope_type", "default") == "default"
        config.rope_scaling = None if plain else scaling
    config.rope_theta = decoder.rope.theta
    return config


def _complete(out: Path, algorithm: str | None) -> None:
    """Write config.json the same way on every machine, with the algorithm if the loader quantizes the weights."""
    path = out / "config.json"
    config = untrusted.read_object(path)
    if algorithm in verify_export.LOADER_BITS:
        config["quantization"]["quant_algo"] = algorithm  # as quantize.py does
    if "exclude_modules" in config["quantization"]:  # ModelOpt writes a set, in any order
        config["quantization"]["exclude_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (out / "quant_cfg.json").unlink(missing_ok=True)  # for mixed precision; it is empty here
