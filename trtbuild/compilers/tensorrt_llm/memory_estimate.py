"""Estimates the GPU memory of an engine from the model's sizes, as docs/tensorrt-llm.md explains.

weights      parameters of the layers x bits / 8, embedding and head in 16 bits; shared by tp x pp ranks
KV cache     2 x layers x KV heads x head size x bytes, for each token; shared by tp x pp x cp ranks
activations  max_num_tokens x (4 x hidden + 2 x inner / tp) x 2 bytes, and for the logits
             max_batch_size x vocabulary x 4

CUDA's context and libraries count as RESERVED. Experts and plugins are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trtbuild.compilers.tensorrt_llm.algorithms import BITS, AlgorithmScheme
from trtbuild.compilers.tensorrt_llm.rules import Ranks

RESERVED = 1_000_000_000  # bytes: CUDA context, cuBLAS workspaces, TensorRT's own
KV_BYTES: Mapping[str | None, int] = {None: 2, "INT8": 1, "FP8": 1}


@dataclass(frozen=True)
class DecoderSizes:
    """The sizes of a decoder, by their names in config.json."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    head_dim: int
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> DecoderSizes | None:
        """None if the config lacks one of them, or has experts, which the estimate does not count."""
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        known = {name: config[name] for name in names if isinstance(config.get(name), int)}
        experts = any("expert" in name and value for name, value in config.items())
        if len(known) < len(names) or experts or min(known.values()) <= 0:
            return None
        heads = known["num_attention_heads"]
        kv_heads = config.get("num_key_value_heads") or heads
        head_dim = config.get("head_dim") or known["hidden_size"] // heads
        if not all(isinstance(size, int) and size >= 0 for size in (kv_heads, head_dim)):
            return None
        tied = bool(config.get("tie_word_embeddings"))
        return cls(**known, num_key_value_heads=kv_heads, head_dim=head_dim, tied=tied)


@dataclass(frozen=True)
class GpuMemory:
    """Bytes on each GPU. `token` is the size of one token in the KV cache."""

    weights: int
    token: int
    activations: int

    def sequences(self, memory: int, length: int) -> int:
        """How many sequences of `length` tokens fit into `memory` bytes beside the rest; 0 if not even one does."""
        free = memory - RESERVED - self.weights - self.activations
        return int(free // (self.token * length)) if free > 0 else 0


def estimate(shape: DecoderSizes, scheme: AlgorithmScheme, ranks: Ranks, tokens: int, batch: int) -> GpuMemory:
    """The memory for at most `tokens` tokens and `batch` sequences in one step."""
    q, kv = (heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads))
    attention = shape.hidden_size * (2 * q + 2 * kv)
    layers = shape.num_hidden_layers * (attention + 3 * shape.hidden_size * shape.intermediate_size)
    ends = shape.vocab_size * shape.hidden_size * (1 if shape.tied else 2)
    shared = ranks.tp * ranks.pp
    weights = (layers * BITS[scheme.weights] / 8 + ends * 2) / shared
    token = 2 * shape.num_hidden_layers * kv * KV_BYTES[scheme.kv_cache] / (shared * ranks.cp)
    widest = 4 * shape.hidden_size + 2 * shape.intermediate_size / ranks.tp
    activations = tokens * widest * 2 + batch * shape.vocab_size * 4
    return GpuMemory(int(weights), max(int(token), 1), int(activations))
