"""Refuses what TensorRT-LLM would refuse, before any work: each message names the rule and an alternative.

The facts come from the contract. Standard library only: the worker of the checkpoint checks again, with the config of a
model that was not at hand when the build was planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trtbuild.compilers.tensorrt_llm.algorithms import (
    DEFAULT_GROUP,
    KV_CACHES,
    NAMES,
    SMOOTHQUANT,
    AlgorithmScheme,
)
from trtbuild.compilers.tensorrt_llm.contract import FAMILIES, contract, takes
from trtbuild.errors import InputError

Options = Mapping[str, Any]
Config = Mapping[str, Any]  # a parsed config.json, or what is known of it


@dataclass(frozen=True)
class Ranks:
    """How many GPUs an engine has for tensor, pipeline and context parallelism."""

    tp: int
    pp: int
    cp: int

    @property
    def world(self) -> int:
        return self.tp * self.pp * self.cp


def family(architecture: str) -> str:
    """The folder of the converter that reads `architecture`. Raises InputError."""
    if architecture in FAMILIES:
        return FAMILIES[architecture]
    if architecture in contract()["model_map"]:
        raise InputError(
            f"TensorRT-LLM has {architecture}, and trtbuild does not drive its converter",
            option="model.source",
            hint=f"trtbuild drives those of {', '.join(FAMILIES)}",
        )
    raise InputError(
        f"TensorRT-LLM 1.2's engines have no {architecture}: it is not in its model map",
        option="model.source",
        hint=f"it has {', '.join(FAMILIES)}; compiler=onnxruntime or TensorRT-LLM's PyTorch backend may have this one",
    )


def scheme(quant: tuple[str, str, str, str], architecture: str, options: Options) -> AlgorithmScheme:
    """The algorithm and script for `quant` (weights, activations, method, kv_cache). Raises InputError."""
    weights, activations, method, cache = quant
    if cache not in KV_CACHES:
        raise InputError(
            f"TensorRT-LLM's engine backend has no {cache} KV cache",
            option="quant.kv_cache",
            hint=f"it has {', '.join(name for name, algorithm in KV_CACHES.items() if algorithm)}",
        )
    algorithm, kv_cache = NAMES[weights, activations, method], KV_CACHES[cache]
    where = family(architecture)
    alpha = options["compiler.smoothquant"]
    if algorithm == "W8A8_SQ_PER_CHANNEL" and alpha is not None:
        algorithm = SMOOTHQUANT[options["compiler.per_channel"], options["compiler.per_token"]]
        if not 0 < alpha <= 1:
            raise InputError(f"{alpha} is not above 0 and at most 1", option="compiler.smoothquant")
        _need(takes(where, "--smoothquant"), architecture, "SmoothQuant", "leave compiler.smoothquant out")
    else:
        for name in ("smoothquant", "per_channel", "per_token"):
            if options[f"compiler.{name}"] not in (None, False):
                raise InputError(
                    "this option belongs to SmoothQuant by the converter",
                    option=f"compiler.{name}",
                    hint="it goes with quant=int8_sq and compiler.smoothquant=0.5",
                )
    return AlgorithmScheme(algorithm, kv_cache, weights, _tool(algorithm, kv_cache, where, architecture))


def _tool(algorithm: str, kv_cache: str | None, where: str, architecture: str) -> str:
    if algorithm in SMOOTHQUANT.values():
        tool = "convert"
    elif algorithm in ("W8A16", "W4A16", "W8A16_GPTQ", "W4A16_GPTQ"):
        precision = {"W8A16": "int8", "W4A16": "int4", "W8A16_GPTQ": "int8_gptq", "W4A16_GPTQ": "int4_gptq"}
        named = precision[algorithm]
        other = "quant=int4_awq and quant=fp8 go through quantize.py, which takes every architecture"
        _need(takes(where, "--weight_only_precision", named), architecture, named, other)
        tool = "convert"
    elif (algorithm == "NO_QUANT" and kv_cache is None) or (
        algorithm == "FP8_PER_CHANNEL_PER_TOKEN" and takes(where, "--use_fp8_rowwise")
    ):
        tool = "convert"
    else:
        tool = "quantize"
    if tool == "convert" and kv_cache is not None:
        flag = "--int8_kv_cache" if kv_cache == "INT8" else "--fp8_kv_cache"
        _need(takes(where, flag), architecture, f"a KV cache in {kv_cache}", "leave quant.kv_cache=auto")
    return tool


def _need(there: bool, architecture: str, what: str, hint: str) -> None:
    if not there:
        raise InputError(f"TensorRT-LLM's converter of {architecture} has no {what}", option="quant", hint=hint)


def check_hardware(scheme: AlgorithmScheme, capability: str, preset: str, target: str) -> None:
    """Check the algorithm against the compute capability. Raises InputError."""
    rules = contract()
    option = f"quant={preset}"
    wanted = rules["min_compute_capability"]
    need = max(wanted[scheme.algorithm], wanted["FP8"] if scheme.kv_cache == "FP8" else "0.0", key=_number)
    if _number(capability) < _number(need):
        what = scheme.algorithm if need == wanted[scheme.algorithm] else "an FP8 KV cache"
        if _number(capability) < _number(wanted["NO_QUANT"]):
            raise InputError(
                f"TensorRT-LLM 1.2 starts at compute capability {wanted['NO_QUANT']}, and target={target} has "
                f"{capability}",
                option=f"target={target}",
                hint="compiler=tensorrt and compiler=tensorrt_rtx build for it",
            )
        raise InputError(
            f"{what} needs compute capability {need}, and target={target} has {capability}",
            option=option,
            hint=f"for it: {_alternatives(capability)}",
        )
    blackwell = 100 <= _sm(capability) < 120
    refused = rules["rejected_on_sm_100_to_119"]
    for what in (scheme.algorithm, f"kv_cache:{scheme.kv_cache}"):
        if blackwell and what in refused:
            words = "an INT8 KV cache" if what.startswith("kv_cache") else what
            raise InputError(
                f"TensorRT-LLM refuses {words} on compute capability 10.0 to 11.9 "
                f"({rules['max_compute_capability_rejected']['line']}), and target={target} has {capability}",
                option=option,
                hint=f"for it: {_alternatives(capability)}",
            )


def _alternatives(capability: str) -> str:
    number = _number(capability)
    if 100 <= _sm(capability) < 120:
        return "quant=fp8, quant=fp8_kv, quant=nvfp4, quant=nvfp4_kv or quant=none"
    names = ["quant=int8", "quant=int4_awq"]
    names += ["quant=fp8"] if number >= _number("8.9") else []
    return f"{', '.join(names)} or quant=none"


def check_plugins(options: Options, capability: str, target: str) -> None:
    """Check plugins against the compute capability. Raises InputError."""
    if not 100 <= _sm(capability) < 120:
        return
    for name in contract()["plugins_rejected_on_sm"]["100"]:
        if options[f"compiler.{name}"] not in ("disable", False):
            raise InputError(
                f"TensorRT-LLM refuses it on compute capability 10.0 to 11.9, and target={target} has {capability}",
                option=f"compiler.{name}",
                hint="leave it out",
            )


def check_options(options: Options) -> None:
    """Check options against each other. Raises InputError."""
    mode, length = options["compiler.speculative_decoding_mode"], options["compiler.max_draft_len"]
    if mode in ("medusa", "explicit_draft_tokens", "eagle"):
        raise InputError(
            f"{mode} needs a checkpoint with draft heads, which trtbuild does not convert",
            option=f"compiler.speculative_decoding_mode={mode}",
            hint="draft_tokens_external and lookahead_decoding take any checkpoint",
        )
    if (mode != "none") != (length > 0):
        raise InputError(
            "speculative decoding needs both a mode and a length",
            option="compiler.max_draft_len" if mode != "none" else "compiler.speculative_decoding_mode",
            hint="such as compiler.speculative_decoding_mode=draft_tokens_external compiler.max_draft_len=5",
        )
    for module in options["compiler.lora_target_modules"]:
        known = contract()["trtllm_build_flags"]["--lora_target_modules"]["choices"]
        if module not in known:
            raise InputError(
                f"{module} is none of TensorRT-LLM's LoRA modules",
                option="compiler.lora_target_modules",
                hint=f"there are: {', '.join(known)}",
            )
    lora = bool(options["compiler.lora_dir"] or options["compiler.lora_target_modules"])
    if lora != (options["compiler.lora_plugin"] != "disable"):
        raise InputError(
            "LoRA needs the plugin, and adapters or modules",
            option="compiler.lora_plugin",
            hint="compiler.lora_plugin=auto with compiler.lora_dir=[/path/to/adapter] or compiler.lora_target_modules",
        )
    if options["compiler.embedding_sharding_dim"] not in (0, 1):
        raise InputError(
            f"{options['compiler.embedding_sharding_dim']} is neither 0 (vocabulary) nor 1 (hidden)",
            option="compiler.embedding_sharding_dim",
        )


def check_mapping(options: Options, scheme: AlgorithmScheme, where: str) -> None:
    """Check the options of the mapping against the flags of the script. Raises InputError."""
    defaults = {"cp_size": 1, "moe_tp_size": -1, "moe_ep_size": -1, "use_parallel_embedding": False}
    for name, default in {**defaults, "embedding_sharding_dim": 0}.items():
        if options[f"compiler.{name}"] == default or (scheme.tool == "quantize" and name == "cp_size"):
            continue
        if scheme.tool == "quantize" or not takes(where, f"--{name}"):
            script = "quantize.py" if scheme.tool == "quantize" else f"the converter of {where}"
            raise InputError(
                f"{script}, which makes {scheme.algorithm}, has no such flag",
                option=f"compiler.{name}",
                hint="leave it out",
            )
    if options["compiler.quantize_lm_head"] and scheme.tool != "quantize":
        raise InputError(
            f"the converter, which makes {scheme.algorithm}, leaves the head as it is",
            option="compiler.quantize_lm_head",
            hint="quant=fp8 and the other calibrated schemes take it",
        )


def check_shapes(config: Config, ranks: Ranks, grouped: bool, group: int | None) -> None:
    """Check the model's sizes against ranks and groups of weights, as far as `config` tells. Raises InputError."""
    heads, layers = config.get("num_attention_heads"), config.get("num_hidden_layers")
    if isinstance(heads, int) and heads % (ranks.tp * ranks.cp):
        fits = [n for n in range(1, ranks.tp) if heads % (n * ranks.cp) == 0]
        raise InputError(
            f"{heads} attention heads do not divide by tp x cp = {ranks.tp * ranks.cp}",
            option="parallel.tp",
            hint=f"those that do: {', '.join(map(str, fits))}" if fits else "compiler.cp_size=1",
        )
    kv = config.get("num_key_value_heads")
    if isinstance(kv, int) and kv % ranks.tp and ranks.tp % kv:
        raise InputError(
            f"{kv} KV heads neither divide by parallel.tp={ranks.tp} nor divide it",
            option="parallel.tp",
            hint=f"such as parallel.tp={kv}",
        )
    if isinstance(layers, int) and ranks.pp > layers:
        raise InputError(f"the model has {layers} layers", option=f"parallel.pp={ranks.pp}")
    if grouped:
        size = group or DEFAULT_GROUP
        inner = config.get("intermediate_size")
        hidden = config.get("hidden_size")
        for name, columns, parts in (
            ("hidden_size", hidden, 1),
            ("intermediate_size", inner, ranks.tp),
        ):
            if isinstance(columns, int) and columns % (size * parts):
                share = f" of {parts} ranks" if parts > 1 else ""
                fits = [n for n in (128, 64, 32, 16) if columns % (n * parts) == 0]
                raise InputError(
                    f"groups of {size} do not divide the model's {name} of {columns}{share}",
                    option="quant.group_size",
                    hint=f"such as quant.group_size={fits[0]}" if fits else "another quantization: quant=int8",
                )


def check_gptq(config: Config, scheme: AlgorithmScheme) -> None:
    """Raises InputError for GPTQ, if the checkpoint is not quantized by it already."""
    if not scheme.algorithm.endswith("_GPTQ"):
        return
    quantized = config.get("quantization_config")
    if config and (not isinstance(quantized, Mapping) or quantized.get("quant_method") != "gptq"):
        raise InputError(
            "TensorRT-LLM converts checkpoints that are quantized by GPTQ already, and this one is not",
            option="model.source",
            hint="name one that is, or take quant=int4_awq, which quantizes",
        )


def positions(config: Config) -> int | None:
    """The model's limit of tokens, as trtllm-build computes it; None if it is not known."""
    trained = config.get("max_position_embeddings")
    if not isinstance(trained, int):
        return None
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(scaling, Mapping):
        return trained
    kind = scaling.get("type", scaling.get("rope_type"))
    factor = scaling.get("factor", 1.0)
    if kind in ("su", "longrope", "llama3", "default", "mrope", None) or not isinstance(factor, int | float):
        return trained
    return int(trained * factor)


def _number(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor)


def _sm(capability: str) -> int:
    major, minor = _number(capability)
    return 10 * major + minor
