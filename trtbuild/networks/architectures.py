"""What a decoder is: its sizes and switches, read from a Hugging Face config.json and checked by name.

Standard library only: the command line reads a model's config here before any weight is downloaded.
Defaults of absent fields are those of transformers' LlamaConfig, MistralConfig, Qwen2Config and Qwen3Config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks.config_fields import Config, count, number, refuse
from trtbuild.networks.rope_config import Rope, parse_rope


@dataclass(frozen=True)
class Decoder:
    """One decoder-only transformer with grouped-query attention and a gated SiLU feed-forward.

    `attention_bias` is that of q, k and v; `output_bias` that of o. `sliding_window` is in tokens, the
    current one included, and holds for every layer. Token ids are as config.json gives them.
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


@dataclass(frozen=True)
class _Family:
    """What config.json need not say about an architecture."""

    model_type: str
    defaults: Mapping[str, Any]


_FAMILIES: Mapping[str, _Family] = {
    "LlamaForCausalLM": _Family("llama", {"max_position_embeddings": 2048, "bos": 1, "eos": 2}),
    "MistralForCausalLM": _Family(
        "mistral",
        {"max_position_embeddings": 131072, "bos": 1, "eos": 2, "sliding_window": 4096, "kv_heads": 8},
    ),
    "Qwen2ForCausalLM": _Family(
        "qwen2", {"max_position_embeddings": 32768, "sliding_window": 4096, "kv_heads": 32}
    ),
    "Qwen3ForCausalLM": _Family(
        "qwen3", {"max_position_embeddings": 32768, "sliding_window": 4096, "kv_heads": 32, "head_dim": 128}
    ),
}

SUPPORTED: tuple[str, ...] = tuple(_FAMILIES)

# GGUF's general.architecture -> ours. Its "llama" is also what Mistral's models are converted to: the file
# does not tell them apart, and the graph is the same.
GGUF_ARCHITECTURES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
GGUF_SUPPORTED: tuple[str, ...] = tuple(GGUF_ARCHITECTURES)


def architecture_of(config: Config) -> str:
    """The architecture's name, supported or not. Raises InputError when the config names none."""
    named = config.get("architectures")
    if isinstance(named, list) and named:
        return str(named[0])
    for architecture, family in _FAMILIES.items():
        if config.get("model_type") == family.model_type:
            return architecture
    raise InputError(
        "the model's config.json names no architecture (`architectures`), so it cannot be built",
        option="model.source",
        hint="choose a causal language model's folder or repository",
    )


def parse(config: Config) -> Decoder:
    """The decoder that `config` (a parsed config.json) describes.

    Raises InputError that names the field and its value for whatever this front end does not support.
    """
    architecture = architecture_of(config)
    family = _FAMILIES.get(architecture)
    if family is None:
        raise refuse(
            "architectures",
            architecture,
            f"supported are {', '.join(SUPPORTED)}",
            hint="network.frontend=auto takes onnxruntime-genai's builder for those of the others that it gets right",
        )
    _refuse_unsupported(config)
    hidden, heads = count(config, "hidden_size"), count(config, "num_attention_heads")
    implied = family.defaults.get("kv_heads", heads)  # when absent; null means one per query head
    kv_heads = count({"num_key_value_heads": implied} | dict(config), "num_key_value_heads", heads)
    head_dim = _head_dim(config, family, hidden, heads)
    if heads % kv_heads:
        raise refuse("num_key_value_heads", kv_heads, f"it must divide num_attention_heads={heads}")
    positions = count(config, "max_position_embeddings", family.defaults["max_position_embeddings"])
    layers = count(config, "num_hidden_layers")
    bias = family.model_type in ("llama", "qwen3") and bool(config.get("attention_bias", False))
    return Decoder(
        architecture=architecture,
        model_type=family.model_type,
        layers=layers,
        hidden=hidden,
        intermediate=count(config, "intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=count(config, "vocab_size"),
        norm_eps=number(config, "rms_norm_eps", 1e-6),
        max_positions=positions,
        rope=parse_rope(config, positions, head_dim),
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=bias or family.model_type == "qwen2",
        output_bias=bias,
        mlp_bias=family.model_type == "llama" and bool(config.get("mlp_bias", False)),
        qk_norm=family.model_type == "qwen3",
        sliding_window=_window(config, family, layers),
        bos_token_id=_token_id(config, "bos_token_id", family.defaults.get("bos")),
        eos_token_ids=token_ids(config, "eos_token_id", family.defaults.get("eos")),
        pad_token_id=_token_id(config, "pad_token_id"),
    )


def _refuse_unsupported(config: Config) -> None:
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise refuse("hidden_act", activation, "only silu is supported")
    quantized = config.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method", quantized) if isinstance(quantized, Mapping) else quantized
        raise refuse(
            "quantization_config.quant_method", method, "start from the unquantized checkpoint, or from GGUF"
        )
    rotary = config.get("partial_rotary_factor")
    if rotary not in (None, 1, 1.0):
        raise refuse("partial_rotary_factor", rotary, "only whole heads are rotated here")


def _head_dim(config: Config, family: _Family, hidden: int, heads: int) -> int:
    default = family.defaults.get("head_dim")
    if config.get("head_dim", default) is None and hidden % heads:
        raise refuse("hidden_size", hidden, f"it is not a multiple of num_attention_heads={heads}")
    head_dim = count(config, "head_dim", default or hidden // heads)
    if head_dim % 2:
        raise refuse("head_dim", head_dim, "rotary positions need an even number")
    return head_dim


def token_ids(config: Config, field: str, default: int | None = None) -> tuple[int, ...]:
    """One token's number or several, as config.json may have either. Raises InputError for anything else."""
    value = config.get(field, default)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(each, int) for each in ids):
        raise refuse(field, value, "a token's number, or a list of such, is needed")
    return tuple(ids)


def _token_id(config: Config, field: str, default: int | None = None) -> int | None:
    ids = token_ids(config, field, default)
    return ids[0] if ids else None


def _window(config: Config, family: _Family, layers: int) -> int | None:
    """Sliding window of every layer; Qwen's counts only with use_sliding_window, Llama has none."""
    window = config.get("sliding_window", family.defaults.get("sliding_window"))
    qwen = family.model_type in ("qwen2", "qwen3")
    if family.model_type == "llama" or window is None or (qwen and not config.get("use_sliding_window")):
        return None
    why = "layers with and without a sliding window in one model are not supported"
    kinds = config.get("layer_types")
    if kinds is not None:
        if kinds == ["full_attention"] * len(kinds):
            return None
        if kinds != ["sliding_attention"] * len(kinds):
            raise refuse("layer_types", kinds, why)
    elif qwen:
        # The layers from max_window_layers on have the window.
        full = config.get("max_window_layers", 28)
        if full:
            if count(config, "max_window_layers", 28) >= layers:
                return None
            raise refuse("max_window_layers", full, why)
    return count(config, "sliding_window", family.defaults.get("sliding_window"))
