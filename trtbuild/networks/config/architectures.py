"""What a decoder is: its sizes and switches, read from a Hugging Face config.json and checked by name.

Standard library only: the command line reads a model's config here before any weight is downloaded.
Defaults of absent fields are those of transformers' LlamaConfig, MistralConfig, Qwen2Config and Qwen3Config, and
so are the values that are refused: null where they want a number, a float for a count. What else a config may
hold is `audit`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks.config import audit as config_audit
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.config.fields import MOST_POSITIONS, Config, count, flag, layers_of, number, refuse
from trtbuild.networks.config.rope import parse_rope


@dataclass(frozen=True)
class _Family:
    """What config.json need not say about an architecture."""

    model_type: str
    defaults: Mapping[str, Any]
    nulls: frozenset[str] = frozenset()  # fields that may be null, for the default


_FAMILIES: Mapping[str, _Family] = {
    "LlamaForCausalLM": _Family(
        "llama",
        {"max_position_embeddings": 2048, "bos": 1, "eos": 2},
        frozenset({"head_dim", "num_key_value_heads"}),
    ),
    "MistralForCausalLM": _Family(
        "mistral",
        {"max_position_embeddings": 131072, "bos": 1, "eos": 2, "sliding_window": 4096, "kv_heads": 8},
        frozenset({"head_dim"}),
    ),
    "Qwen2ForCausalLM": _Family(
        "qwen2",
        {"max_position_embeddings": 32768, "sliding_window": 4096, "kv_heads": 32},
        frozenset({"num_key_value_heads"}),
    ),
    "Qwen3ForCausalLM": _Family(
        "qwen3",
        {"max_position_embeddings": 32768, "sliding_window": 4096, "kv_heads": 32, "head_dim": 128},
        frozenset({"num_key_value_heads"}),
    ),
}

SUPPORTED: tuple[str, ...] = tuple(_FAMILIES)
_MAX_WINDOW_LAYERS = 28  # in Qwen's configs

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
        raise refuse("architectures", architecture, f"supported are {', '.join(SUPPORTED)}")
    _refuse_other_names(config, architecture, family)
    config_audit.refuse_outright(config, family.model_type)
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise refuse("hidden_act", activation, "only silu is supported")
    decoder = _decoder(config, architecture, family)
    config_audit.refuse_unfit(config, decoder)
    return decoder


def audit(config: Config) -> tuple[str, ...]:
    """Sentences about what in `config` has no effect although one might expect it. Raises InputError as `parse`."""
    return config_audit.notes(config, parse(config))


def _refuse_other_names(config: Config, architecture: str, family: _Family) -> None:
    """transformers builds what `model_type` says; other loaders what `architectures` says."""
    named, kind = config.get("architectures"), config.get("model_type")
    if named and (not isinstance(named, list) or len(named) > 1):
        raise refuse("architectures", named, "a list of one name is needed")
    if kind is not None and kind != family.model_type and named:
        raise refuse("model_type", kind, f"architectures={architecture!r} needs model_type={family.model_type!r}")


def _decoder(config: Config, architecture: str, family: _Family) -> Decoder:
    heads, kv_heads, head_dim = _heads(config, family)
    positions = count(config, "max_position_embeddings", family.defaults["max_position_embeddings"])
    if positions > MOST_POSITIONS:
        why = f"rotary positions are tabulated up to {MOST_POSITIONS}"
        raise refuse("max_position_embeddings", positions, why)
    layers = layers_of(config)
    bias = family.model_type in ("llama", "qwen3") and flag(config, "attention_bias", False)
    return Decoder(
        architecture=architecture,
        model_type=family.model_type,
        layers=layers,
        hidden=count(config, "hidden_size"),
        intermediate=count(config, "intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=count(config, "vocab_size"),
        norm_eps=_epsilon(config),
        max_positions=positions,
        rope=parse_rope(config, positions, head_dim),
        tied=flag(config, "tie_word_embeddings", False),
        attention_bias=bias or family.model_type == "qwen2",
        output_bias=bias,
        mlp_bias=family.model_type == "llama" and flag(config, "mlp_bias", False),
        qk_norm=family.model_type == "qwen3",
        sliding_window=_window(config, family, layers, positions),
        bos_token_id=_token_id(config, "bos_token_id", family.defaults.get("bos")),
        eos_token_ids=token_ids(config, "eos_token_id", family.defaults.get("eos")),
        pad_token_id=_token_id(config, "pad_token_id"),
    )


def _epsilon(config: Config) -> float:
    """0.0 is allowed, and divides by zero only where a whole vector is 0; transformers wants a float."""
    epsilon = config.get("rms_norm_eps", 1e-6)
    if epsilon != 0.0:
        number({"rms_norm_eps": epsilon}, "rms_norm_eps")
    if not isinstance(epsilon, float):
        raise refuse("rms_norm_eps", epsilon, "a number with a decimal point is needed")
    return epsilon


def _heads(config: Config, family: _Family) -> tuple[int, int, int]:
    """Query heads, key-value heads, and a head's size."""
    hidden, heads = count(config, "hidden_size"), count(config, "num_attention_heads")
    nulls = {field for field in family.nulls if config.get(field, 0) is None}
    given = {field: value for field, value in config.items() if field not in nulls}
    implied = heads if "num_key_value_heads" in nulls else family.defaults.get("kv_heads", heads)
    kv_heads = count(given, "num_key_value_heads", implied)
    if heads % kv_heads:
        raise refuse("num_key_value_heads", kv_heads, f"it must divide num_attention_heads={heads}")
    default = family.defaults.get("head_dim")
    if hidden % heads and default is None and "head_dim" not in given:
        raise refuse("hidden_size", hidden, f"it is not a multiple of num_attention_heads={heads}")
    head_dim = count(given, "head_dim", default or hidden // heads)
    if head_dim % 2:
        raise refuse("head_dim", head_dim, "rotary positions need an even number")
    return heads, kv_heads, head_dim


def token_ids(config: Config, field: str, default: int | None = None) -> tuple[int, ...]:
    """One token's number or several, as config.json may have either; negative ones name no token.

    Raises InputError for anything else.
    """
    value = config.get(field, default)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in ids):
        raise refuse(field, value, "a token's number, or a list of such, is needed")
    return tuple(each for each in ids if each >= 0)


def _token_id(config: Config, field: str, default: int | None = None) -> int | None:
    if isinstance(config.get(field), list):
        raise refuse(field, config[field], "one token's number is needed")
    ids = token_ids(config, field, default)
    return ids[0] if ids else None


def _window(config: Config, family: _Family, layers: int, positions: int) -> int | None:
    """Sliding window of every layer; None where there is none, or it spans all positions."""
    if family.model_type == "llama":
        return None  # `tables` refuses a window
    window = config.get("sliding_window", family.defaults["sliding_window"])
    if window is not None and type(window) is not int:
        raise refuse("sliding_window", window, "a whole number of tokens is needed, or null")
    if family.model_type != "mistral" and not flag(config, "use_sliding_window", False):
        window = None
    kinds = _layer_kinds(config, family, layers, window)
    if window is None:
        return None
    size = count({"sliding_window": window}, "sliding_window")
    if "sliding_attention" not in kinds or size >= positions:
        return None
    if "full_attention" in kinds:
        field = "max_window_layers" if config.get("layer_types") is None else "layer_types"
        why = "layers with and without a sliding window in one model are not supported"
        raise refuse(field, config.get(field, _MAX_WINDOW_LAYERS), why)
    return size


def _layer_kinds(config: Config, family: _Family, layers: int, window: object) -> list[str]:
    """The kind of attention of each layer. Raises InputError where it and the window contradict each other."""
    kinds, mistral = config.get("layer_types"), family.model_type == "mistral"
    full = config.get("max_window_layers", _MAX_WINDOW_LAYERS)
    if not mistral and type(full) is not int:
        raise refuse("max_window_layers", full, "a whole number is needed")
    if kinds is None and mistral:
        kinds = ["sliding_attention"] * layers
    elif kinds is None:
        # The layers from max_window_layers on have the window.
        kinds = ["full_attention" if window is None or i < full else "sliding_attention" for i in range(layers)]
    elif not isinstance(kinds, list) or len(kinds) != layers:
        raise refuse("layer_types", kinds, f"one for each of num_hidden_layers={layers} is needed")
    elif not all(kind in ("full_attention", "sliding_attention") for kind in kinds):
        raise refuse("layer_types", kinds, "supported are full_attention and sliding_attention")
    # transformers takes a Mistral that has the field for a Ministral, whose masks want a window
    wanted = "layer_types" in config if mistral else "sliding_attention" in kinds
    if window is None and wanted:
        off = " with use_sliding_window=false" if config.get("sliding_window", 1) is not None else ""
        raise refuse("layer_types", config["layer_types"], f"it needs sliding_window, which is null{off}")
    return list(kinds)
