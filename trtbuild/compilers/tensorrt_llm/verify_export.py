"""Verifies a checkpoint that ModelOpt wrote for TensorRT-LLM 1.2: its config, its numbers, and its loss on a text.

It uses neither ModelOpt nor TensorRT-LLM. It finds a missing rope base, swapped gate and fc, heads cut in two, or a
rank with the scales of another, before the checkpoint is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trtbuild import untrusted
from trtbuild.compilers.modelopt import exclusions, verify_export
from trtbuild.compilers.modelopt.exported import Exported, Linear
from trtbuild.compilers.modelopt.schemes import ModelOptScheme
from trtbuild.compilers.tensorrt_llm import ranks
from trtbuild.errors import BuildError
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.weights.arrays import Array
from trtbuild.networks.weights.checkpoint import Checkpoint

#: field of Hugging Face's config.json -> the same field in TensorRT-LLM's
_SAME = {
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "head_dim": "head_size",
    "rms_norm_eps": "norm_epsilon",
    "max_position_embeddings": "max_position_embeddings",
    "hidden_act": "hidden_act",
    "rope_theta": "rotary_base",
    "rope_scaling": "rotary_scaling",
}
#: linear map in Hugging Face's layout -> in TensorRT-LLM's
_LOADED = {
    **{f"self_attn.{letter}_proj": "attention.qkv" for letter in "qkv"},
    "self_attn.o_proj": "attention.dense",
    "mlp.gate_proj": "mlp.fc",
    "mlp.up_proj": "mlp.gate",
    "mlp.down_proj": "mlp.proj",
}
#: Algorithms whose weights TensorRT-LLM's loader quantizes -> bits of a weight.
LOADER_BITS = {"W8A16": 8, "W4A16": 4}
_PADDED = 64  # with AWQ a vocabulary is padded to a multiple of it


def verify(
    source: Checkpoint, folder: Path, scheme: ModelOptScheme, facts: Mapping[str, Any], tokens: Sequence[int]
) -> dict[str, Any]:
    """As `modelopt.verify_export.verify`, for a folder with config.json and a file for each rank. Raises BuildError.

    `facts` are the step's: `model.dtype`, `quant.group_size`, `quant.kv_cache`, `parallel.tp`, `parallel.pp` and
    `compiler.exclude_modules`.
    """
    config = untrusted.read_object(folder / "config.json")
    decoder = source.retied(parse(source.config))
    tp, pp = int(facts["parallel.tp"]), int(facts["parallel.pp"])
    _check_config(config, source.config, decoder, facts)
    excluded = exclusions.modules(exclusions.read(facts), decoder.layers)
    _check_quantization(config.get("quantization") or {}, scheme, facts, decoder.layers // pp, excluded)
    bits = LOADER_BITS.get(scheme.algorithm or "")
    algorithm = None if bits else scheme.algorithm
    entries = ranks.entries(folder, decoder, tp, pp, algorithm)
    exported = Exported(entries, algorithm, facts.get("quant.group_size"), excluded)
    weights = verify_export.ExportedWeights(exported) if bits is None else _QuantizedByLoader(exported, bits)
    cache = "fp8" if facts["quant.kv_cache"] == "fp8" else None
    return verify_export.verify_numbers(decoder, source, weights, scheme, str(facts["model.dtype"]), cache, tokens)


def _check_config(
    config: Mapping[str, Any], source: Mapping[str, Any], decoder: Decoder, facts: Mapping[str, Any]
) -> None:
    """Check what the builder reads about the model. Raises BuildError."""
    stated = {name: value for name, value in source.items() if name not in ("rope_parameters", *_SAME)}
    stated |= {ours: config[theirs] for ours, theirs in _SAME.items() if theirs in config}
    if "rotary_base" not in config:
        raise BuildError("the checkpoint's config.json has no rotary_base: TensorRT-LLM would take 10000")
    verify_export.check_same_model(decoder, stated)
    tp, pp = facts["parallel.tp"], facts["parallel.pp"]
    vocab = config.get("vocab_size")
    fits = {decoder.vocab, -(-decoder.vocab // _PADDED) * _PADDED}
    wanted = {
        "architecture": decoder.architecture,
        "dtype": facts["model.dtype"],
        "vocab_size": vocab if vocab in fits else decoder.vocab,
        "position_embedding_type": "rope_gpt_neox",
        "share_embedding_table": False,
        "mapping": {"world_size": tp * pp, "tp_size": tp, "pp_size": pp},
    }
    for name, expected in wanted.items():
        if config.get(name) != expected:
            raise BuildError(f"the checkpoint's config.json says {name} = {config.get(name)}, not {expected}")


def _check_quantization(
    quantization: Mapping[str, Any],
    scheme: ModelOptScheme,
    facts: Mapping[str, Any],
    layers: int,
    excluded: frozenset[str],
) -> None:
    """Check what the builder reads about the quantization, for the `layers` of a stage. Raises BuildError."""
    cache = "FP8" if facts["quant.kv_cache"] == "fp8" else None
    wanted: dict[str, Any] = {"quant_algo": scheme.algorithm, "kv_cache_quant_algo": cache}
    if scheme.grouped:
        wanted |= {"group_size": facts["quant.group_size"], "has_zero_point": False, "pre_quant_scale": True}
    for name, expected in wanted.items():
        if quantization.get(name) != expected:
            stated = f"quantization.{name} = {quantization.get(name)}"
            raise BuildError(f"the checkpoint's config.json says {stated}, and {expected} was asked for")
    patterns = quantization.get("exclude_modules") or ()
    if scheme.recipe and "lm_head" not in patterns:
        raise BuildError("the checkpoint's config.json does not say that lm_head is left as it is")
    if scheme.recipe:
        maps = list(dict.fromkeys(map(_loaded, exclusions.names(layers))))
        verify_export.check_excluded("config.json", patterns, maps, frozenset(map(_loaded, excluded)))


def _loaded(module: str) -> str:
    """TensorRT-LLM's name of a linear map in Hugging Face's layout."""
    _, _, layer, part = module.split(".", 3)
    return f"transformer.layers.{layer}.{_LOADED[part]}"


class _QuantizedByLoader(verify_export.ExportedWeights):
    """A checkpoint whose weights the loader will quantize: `linear` rounds them as it does.

    Each output has one scale, its largest weight divided by 128 (or 8), as in `symmetric_quantize` in TensorRT-LLM's
    cutlass_preprocessors.cpp.
    """

    def __init__(self, exported: Exported, bits: int) -> None:
        super().__init__(exported)
        self._codes = 1 << (bits - 1)

    def linear(self, module: str) -> Linear:
        linear = super().linear(module)
        scale = np.abs(linear.weight).max(-1, keepdims=True) / self._codes
        scale = np.where(scale == 0, 1, scale)
        codes: Array = np.clip(np.rint(linear.weight / scale), -self._codes, self._codes - 1)
        return Linear(codes * scale, linear.step, None, None)
