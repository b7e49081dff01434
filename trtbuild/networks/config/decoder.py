"""What `config.json` says of a decoder-only transformer, once it is read and checked."""

from __future__ import annotations

from dataclasses import dataclass

from trtbuild.networks.config.rope import Rope


@dataclass(frozen=True)
class Decoder:
    """One decoder-only transformer with grouped-query attention and a gated SiLU feed-forward.

    `attention_bias` is that of q, k and v; `output_bias` that of o. `sliding_window` is in tokens, the
    current one included, holds for every layer, and is less than `max_positions`. Token ids are as config.json
    gives them, without negative ones.
    """

    architecture: str
    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    norm_eps: float
    max_positions: int
    rope: Rope
    tied: bool
    attention_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    sliding_window: int | None
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None
