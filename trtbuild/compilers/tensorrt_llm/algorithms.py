"""How weights, activations and KV cache are quantized: TensorRT-LLM's algorithms for the schemes of conf/quant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: (weights, activations, method) -> TensorRT-LLM's name of the algorithm
NAMES: Mapping[tuple[str, str, str], str] = {
    ("none", "none", "rtn"): "NO_QUANT",
    ("int8", "none", "rtn"): "W8A16",
    ("int4", "none", "rtn"): "W4A16",
    ("int8", "none", "gptq"): "W8A16_GPTQ",
    ("int4", "none", "gptq"): "W4A16_GPTQ",
    ("int4", "none", "awq"): "W4A16_AWQ",
    ("int4", "fp8", "awq"): "W4A8_AWQ",
    ("int8", "int8", "smoothquant"): "W8A8_SQ_PER_CHANNEL",
    ("fp8", "fp8", "minmax"): "FP8",
    ("fp8", "fp8", "rowwise"): "FP8_PER_CHANNEL_PER_TOKEN",
    ("nvfp4", "nvfp4", "minmax"): "NVFP4",
}
KV_CACHES: Mapping[str, str | None] = {"auto": None, "int8": "INT8", "fp8": "FP8"}

#: SmoothQuant by the converter: (per_channel, per_token) -> the algorithm
SMOOTHQUANT: Mapping[tuple[bool, bool], str] = {
    (False, False): "W8A8_SQ_PER_TENSOR_PLUGIN",
    (True, False): "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN",
    (False, True): "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN",
    (True, True): "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN",
}

#: Bits of a weight in a linear layer, with those of large scales (16 bits for groups of 128, 8 bits for blocks of 16).
BITS: Mapping[str, float] = {"none": 16.0, "int8": 8.0, "int4": 4.25, "fp8": 8.0, "nvfp4": 4.5}

#: Algorithms in which groups of weights along the input share a scale.
GROUPED = ("W4A16_AWQ", "W4A8_AWQ", "W4A16_GPTQ", "W8A16_GPTQ")
DEFAULT_GROUP = 128  # --awq_block_size and --group_size
#: Algorithms of quantize.py -> its --qformat.
QFORMATS: Mapping[str, str] = {
    "W4A16_AWQ": "int4_awq",
    "W4A8_AWQ": "w4a8_awq",
    "W8A8_SQ_PER_CHANNEL": "int8_sq",
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8_pc_pt",
    "NVFP4": "nvfp4",
    "NO_QUANT": "full_prec",
}


@dataclass(frozen=True)
class AlgorithmScheme:
    """The algorithm of weights and activations, that of the KV cache, and the script that quantizes so."""

    algorithm: str
    kv_cache: str | None  # INT8 or FP8; None: as the activations
    weights: str  # a key of BITS
    tool: str  # "convert" or "quantize"

    @property
    def calibrated(self) -> bool:
        """Whether scales are measured on text."""
        if self.tool == "convert":
            return self.algorithm in SMOOTHQUANT.values() or self.kv_cache == "INT8"
        return self.kv_cache is not None or self.algorithm not in ("NO_QUANT", "FP8_PER_CHANNEL_PER_TOKEN")

    @property
    def grouped(self) -> bool:
        return self.algorithm in GROUPED


def schemes(presets: Mapping[tuple[str, str, str, str], str]) -> frozenset[str]:
    """The name of every scheme: that of its preset, else its four parts joined by "/"."""
    caches = (*KV_CACHES, "nvfp4")  # the rules refuse the last one, with a better message
    combinations = [(*parts, cache) for parts in NAMES for cache in caches]
    return frozenset(presets.get(parts, "/".join(parts)) for parts in combinations)
