"""Schemes and models of which ModelOpt 0.37 makes checkpoints for TensorRT-LLM 1.2, without TensorRT-LLM.

Standard library only: the command line checks them when it plans, and the worker again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trtbuild.compilers.modelopt import exclusions
from trtbuild.compilers.modelopt.schemes import SCHEMES as UNIFIED
from trtbuild.compilers.modelopt.schemes import ModelOptScheme
from trtbuild.errors import InputError

_Parts = tuple[str, str, str]
_NONE, _FP8 = ("none", "none", "rtn"), ("fp8", "fp8", "minmax")
#: (weights, activations, method) -> the scheme. TensorRT-LLM's loader quantizes W8A16 and W4A16 itself: the checkpoint
#: stores the original weights, so their loss has no bound here.
SCHEMES: Mapping[_Parts, ModelOptScheme] = {
    _NONE: UNIFIED[_NONE],
    ("int8", "none", "rtn"): ModelOptScheme(None, "W8A16", 0, math.inf),
    ("int4", "none", "rtn"): ModelOptScheme(None, "W4A16", 0, math.inf),
    **{
        parts: UNIFIED[parts]
        for parts in (("int8", "int8", "smoothquant"), ("int4", "none", "awq"), ("int4", "fp8", "awq"), _FP8)
    },
}
#: Architectures whose config.json ModelOpt writes without tensorrt_llm.
ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
_SCRIPTS = "compiler.checkpoint_by=scripts asks NVIDIA's own, in their image"


def lacks(parts: _Parts, cache: str, architecture: str, config: Mapping[str, Any]) -> str | None:
    """Why ModelOpt alone cannot make that; None if it can."""
    if architecture not in ARCHITECTURES:
        return f"ModelOpt writes {' and '.join(ARCHITECTURES)} by itself, and this model is a {architecture}"
    for name in ("attention_bias", "mlp_bias"):
        if config.get(name):
            return f"ModelOpt does not say in config.json that the model has {name}"
    if parts == ("nvfp4", "nvfp4", "minmax"):
        return "ModelOpt 0.37 packs NVFP4 on a GPU alone"
    if parts not in SCHEMES:
        return f"ModelOpt's export has no {'/'.join(parts)} here"
    if cache == "fp8" and SCHEMES[parts].recipe is None:
        return "ModelOpt writes an FP8 KV cache with calibrated weights alone"
    return None if cache in ("auto", "fp8") else f"ModelOpt's {cache} KV cache is not offered"


def check_model(config: Mapping[str, Any]) -> None:
    """Check a model that was not known when the build was planned. Raises InputError."""
    named = str((config.get("architectures") or ["?"])[0])
    why = lacks(_NONE, "auto", named, config)
    if why is not None:
        raise InputError(why, option="compiler.checkpoint_by=modelopt", hint=_SCRIPTS)


def check_ranks(config: Mapping[str, Any], scheme: ModelOptScheme, tp: int, pp: int) -> None:
    """Check ModelOpt's own rules for ranks, as far as `config` tells. Raises InputError."""
    layers, kv = config.get("num_hidden_layers"), config.get("num_key_value_heads")
    if isinstance(layers, int) and layers % pp:
        raise InputError(
            f"{layers} layers do not divide by {pp}, as ModelOpt wants",
            option=f"parallel.pp={pp}",
            hint=_SCRIPTS,
        )
    if scheme.algorithm == "W8A8_SQ_PER_CHANNEL" and isinstance(kv, int) and kv < tp:
        raise InputError(
            f"ModelOpt shares {kv} KV heads out to {kv} ranks at most in W8A8_SQ_PER_CHANNEL",
            option=f"parallel.tp={tp}",
            hint=f"parallel.tp={kv}, or another quantization: quant=fp8",
        )


def check_excluded(
    patterns: Sequence[str], config: Mapping[str, Any], scheme: ModelOptScheme, quant: str, pp: int
) -> None:
    """Check that these maps can stay unquantized, as far as `config` tells. Raises InputError."""
    exclusions.check(patterns, config, scheme.algorithm, quant)
    if patterns and scheme.recipe is None:
        raise InputError(
            f"TensorRT-LLM's loader quantizes the weights of {scheme.algorithm} itself, all of them",
            option=exclusions.OPTION,
            hint="a calibrated scheme leaves out what you name: quant=fp8, int4_awq",
        )
    if patterns and pp > 1:
        raise InputError(
            "the checkpoint numbers layers within each stage, so it cannot name layers of one stage",
            option=exclusions.OPTION,
            hint=f"parallel.tp={pp} in place of parallel.pp={pp}",
        )
