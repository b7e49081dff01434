"""A Hugging Face config.json made from a GGUF file's metadata.

Keys are those of the GGUF specification (ggml/docs/gguf.md) as llama.cpp's converter writes them. Standard
library only, like `architectures`.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from trtbuild.errors import InputError
from trtbuild.networks.config.architectures import GGUF_ARCHITECTURES, GGUF_SUPPORTED
from trtbuild.networks.gguf import tables as tables
from trtbuild.networks.gguf import types

Metadata = Mapping[str, Any]

Kind = Literal["honoured", "refused", "neutral", "unknown"]
_FACTORS = ("rope_factors_long.weight", "rope_factors_short.weight")  # longrope's, by the prompt's length


def config_from_gguf(
    metadata: Metadata, tensors: Collection[str] = (), rope_factors: Sequence[float] | None = None
) -> dict[str, Any]:
    """The config.json that a GGUF file stands for.

    `tensors` are the file's tensor names (they alone say whether the head is tied and which biases exist),
    `rope_factors` the values of its `rope_freqs.weight`, one per frequency. Raises InputError.
    """
    types.check(metadata)
    _refuse_unfit(metadata, {key: rule for key in metadata if (rule := _foreign(key)) is not None}, {})
    name = str(metadata.get("general.architecture"))
    if name not in GGUF_ARCHITECTURES:
        raise InputError(
            f"the GGUF file has general.architecture={name!r}: supported are {', '.join(GGUF_SUPPORTED)}",
            option="model.source",
        )
    for tensor in _FACTORS:
        if tensor in tensors:
            raise InputError(
                f"the GGUF file has {tensor}: rotary positions that change with the prompt's length are not supported",
                option="model.source",
            )
    heads = _uniform(metadata, f"{name}.attention.head_count")
    hidden = _uniform(metadata, f"{name}.embedding_length")
    positions = _uniform(metadata, f"{name}.context_length")
    config = {
        "architectures": [GGUF_ARCHITECTURES[name]],
        "model_type": name,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": _uniform(metadata, f"{name}.feed_forward_length"),
        "num_hidden_layers": _uniform(metadata, f"{name}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _uniform(metadata, f"{name}.attention.head_count_kv", heads),
        "head_dim": _head_dim(metadata, name, hidden, heads),
        "max_position_embeddings": positions,
        "rms_norm_eps": shortest(_required(metadata, f"{name}.attention.layer_norm_rms_epsilon")),
        "rope_parameters": _rope_parameters(metadata, name, positions, rope_factors),
        "tie_word_embeddings": "output.weight" not in tensors,
        "vocab_size": _vocab(metadata, name),
        "use_cache": True,
        "dtype": "float32",
    }
    if name != "qwen2":
        config["attention_bias"] = "blk.0.attn_q.bias" in tensors
    if name == "llama":
        config["mlp_bias"] = "blk.0.ffn_gate.bias" in tensors
    _refuse_unfit(metadata, {key: rule for key in metadata if (rule := _rule_of(key, name)) is not None}, config)
    return config | token_ids(metadata)


def audit(metadata: Metadata, tensors: Collection[str] = ()) -> tuple[str, ...]:
    """Sentences about what in the metadata has no effect although one might expect it.

    Raises InputError as `config_from_gguf` does.
    """
    name = config_from_gguf(metadata, tensors)["model_type"]
    unknown = sorted(key for key in metadata if kind_of(key, name) == "unknown")
    if not unknown:
        return ()
    return (f"the GGUF file has keys that are unknown here, and are ignored: {', '.join(unknown)}",)


def kind_of(key: str, name: str) -> Kind:
    """What becomes of a key in a file of such an architecture ("refused": unless its value changes nothing)."""
    own = key.removeprefix(f"{name}.")
    if key in tables.GLOBAL_HONOURED or (own != key and own in tables.HONOURED):
        return "honoured"
    if _rule_of(key, name) is not None:
        return "refused"
    neutral = own in tables.NEUTRAL if own != key else key.startswith(tuple(tables.GLOBAL_NEUTRAL_PREFIXES))
    return "neutral" if neutral else "unknown"


def _rule_of(key: str, name: str) -> tables.GgufRule | None:
    own = key.removeprefix(f"{name}.")
    if own == key:
        return _foreign(key)
    suffixes = tables.REFUSED_SUFFIXES
    return tables.REFUSED.get(own) or next((suffixes[part] for part in suffixes if own.endswith(part)), None)


def _foreign(key: str) -> tables.GgufRule | None:
    """The rule for a key of no architecture, if it may be refused: asked first, as an adapter lacks the others."""
    groups = tables.GLOBAL_REFUSED_PREFIXES
    exact = tables.GLOBAL_REFUSED.get(key)
    return exact or next((groups[part] for part in groups if key.startswith(part)), None)


def _refuse_unfit(metadata: Metadata, rules: Mapping[str, tables.GgufRule], config: Mapping[str, Any]) -> None:
    for key, rule in rules.items():
        if not rule.neutral(metadata[key], config):
            raise _refuse(key, metadata[key], rule.why, rule.hint)


def check_factors(shape: Sequence[int], config: Mapping[str, Any]) -> None:
    """Raises InputError unless `rope_freqs.weight` of that shape has a divisor for each frequency."""
    frequencies = config["head_dim"] // 2
    if tuple(shape) != (frequencies,):
        raise InputError(
            f"the GGUF file has rope_freqs.weight of the shape {list(shape)}: one divisor for each of the "
            f"{frequencies} frequencies is needed",
            option="model.source",
            hint="convert the model again with a current llama.cpp",
        )


def token_ids(metadata: Metadata) -> dict[str, int | None]:
    """`bos_token_id`, `eos_token_id` and `pad_token_id`; null where the file names none."""
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    return {f"{hf}_token_id": metadata.get(f"tokenizer.ggml.{gguf}_token_id") for hf, gguf in names.items()}


def shortest(value: float) -> float:
    """The double with the fewest digits that rounds to the same float32 (GGUF stores 1e-5 as a float32)."""
    single = struct.pack("<f", value)
    for digits in range(1, 9):
        candidate = float(f"{value:.{digits}g}")
        if struct.pack("<f", candidate) == single:
            return candidate
    return value


def _refuse(key: str, value: object, why: str, hint: str | None = None) -> InputError:
    return InputError(f"the GGUF file has {key}={value!r}: {why}", option="model.source", hint=hint)


def _required(metadata: Metadata, key: str) -> Any:
    if key not in metadata:
        raise InputError(f"the GGUF file lacks {key}", option="model.source", hint="convert the model again")
    return metadata[key]


def _uniform(metadata: Metadata, key: str, default: int | None = None) -> int:
    """A count, or an array of one count per layer when all are equal."""
    value = metadata.get(key, default) if default is not None else _required(metadata, key)
    if isinstance(value, list):
        if len(set(value)) != 1:
            raise _refuse(key, value, "layers of different sizes are not supported")
        value = value[0]
    return int(value)


def _head_dim(metadata: Metadata, name: str, hidden: int, heads: int) -> int:
    dim = _uniform(metadata, f"{name}.attention.key_length", hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        other = _uniform(metadata, f"{name}.{key}", dim)
        if other != dim:
            raise _refuse(f"{name}.{key}", other, f"it must equal the head's size, {dim}")
    return dim


def _vocab(metadata: Metadata, name: str) -> int:
    tokens, key = metadata.get("tokenizer.ggml.tokens"), f"{name}.vocab_size"
    if not tokens:
        return _uniform(metadata, key)
    if _uniform(metadata, key, len(tokens)) != len(tokens):
        raise _refuse(key, metadata[key], f"tokenizer.ggml.tokens has {len(tokens)}")
    return len(tokens)


def _rope_parameters(metadata: Metadata, name: str, positions: int, factors: Sequence[float] | None) -> dict[str, Any]:
    theta = shortest(metadata.get(f"{name}.rope.freq_base", 10000.0))
    scaling = f"{name}.rope.scaling"
    kind = metadata.get(f"{scaling}.type", "linear")
    factor = shortest(metadata.get(f"{scaling}.factor", metadata.get(f"{name}.rope.scale_linear", 0.0)) or 1.0)
    if kind not in ("none", "linear", "yarn"):
        raise _refuse(f"{scaling}.type", kind, "supported are none, linear and yarn")
    if factors is not None:
        # llama.cpp stores llama3's scaling as one divisor per frequency; "longrope" with equal factors for
        # short and long contexts is Hugging Face's way to say the same.
        if kind == "yarn" or (kind == "linear" and factor != 1.0):
            raise _refuse(f"{scaling}.type", kind, "together with rope_freqs.weight this is not supported")
        divisors = [float(value) for value in factors]
        return {
            "rope_type": "longrope",
            "rope_theta": theta,
            "factor": 1.0,
            "attention_factor": 1.0,
            "short_factor": divisors,
            "long_factor": divisors,
            "original_max_position_embeddings": positions,
        }
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return {"rope_type": "default", "rope_theta": theta}
    if kind == "linear":
        return {"rope_type": "linear", "rope_theta": theta, "factor": factor}
    return _yarn(metadata, scaling, theta, factor, positions)


def _yarn(metadata: Metadata, scaling: str, theta: float, factor: float, positions: int) -> dict[str, Any]:
    return {
        "rope_type": "yarn",
        "rope_theta": theta,
        "factor": factor,
        "original_max_position_embeddings": metadata.get(f"{scaling}.original_context_length") or positions,
        "beta_fast": shortest(metadata.get(f"{scaling}.yarn_beta_fast", 32.0)),
        "beta_slow": shortest(metadata.get(f"{scaling}.yarn_beta_slow", 1.0)),
    }
