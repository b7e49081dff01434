"""Checkpoints drawn at random: what transformers saves of a random config, then changed as people's files are.

A draw is plain data and prints as such. Most draws are of checkpoints that exist in some spelling; some are odd on
purpose (fields of other families, heads stored twice, names with a prefix), and none is read with our own code.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.reference.families import FAMILIES, safetensors_torch, saved, torch

Dice = random.Random

#: Fields that some family or tool writes, and values; many change nothing for the four families.
ODD_FIELDS: Mapping[str, tuple[Any, ...]] = {
    "is_causal": (True, False, None),
    "use_bidirectional_attention": (True, False, None),
    "attn_logit_softcapping": (None, 0.5, 50.0),
    "final_logit_softcapping": (None, 0.5, 30.0),
    "query_pre_attn_scalar": (None, 4, 256),
    "logit_scale": (None, 1.0, 0.0625),
    "logits_scaling": (1.0, 8.0),
    "residual_multiplier": (1.0, 0.22),
    "embedding_multiplier": (1.0, 12.0),
    "attention_multiplier": (None, 0.015625),
    "scale_emb": (1, 12),
    "scale_depth": (1.4,),
    "mup_denominator": (32,),
    "partial_rotary_factor": (1.0, 0.5, None),
    "rotary_pct": (1.0, 0.25),
    "rope_interleaved": (False, True),
    "no_rope_layers": ([1, 1], [1, 0], []),
    "no_rope_layer_interval": (4, 2),
    "use_qk_norm": (False, True),
    "qk_layernorm": (False, True),
    "clip_qkv": (None, 8.0),
    "attention_chunk_size": (None, 8),
    "attention_dropout": (0.0, 0.1),
    "hidden_act": ("silu", "swish", "gelu", "relu"),
    "attention_bias": (True, False, None),
    "mlp_bias": (True, False, None),
    "qkv_bias": (True, False),
    "use_bias": (True, False),
    "bias": (True, False),
    "attention_out_bias": (True, False),
    "sliding_window": (None, 0, 3, 4096),
    "use_sliding_window": (True, False),
    "max_window_layers": (0, 1, 2, 28),
    "layer_types": (
        None,
        ["full_attention"] * 2,
        ["sliding_attention"] * 2,
        ["sliding_attention", "full_attention"],
        ["full_attention"],
        ["linear_attention", "full_attention"],
        ["chunked_attention", "full_attention"],
    ),
    "sliding_window_pattern": (2, 6),
    "num_hidden_layers": (1, 2, 3),
    "num_key_value_heads": (None, 1, 2, 4, 3),
    "num_attention_heads": (4, 8),
    "head_dim": (None, 16, 32, 0),
    "rms_norm_eps": (1e-6, 0.1, 0.0),
    "norm_eps": (0.1,),
    "layer_norm_eps": (0.1,),
    "layer_norm_epsilon": (0.1,),
    "rope_theta": (10000.0, 50, 1e6, None),
    "rope_base": (50.0,),
    "rotary_emb_base": (50,),
    "rope_parameters": ({}, None, {"rope_theta": 123.0}, {"rope_type": "default", "rope_theta": None}),
    "rope_scaling": (
        None,
        {},
        {"type": "linear", "factor": 2.0},
        {"rope_type": "linear", "type": "yarn", "factor": 2.0},
        {"type": "mrope", "mrope_section": [2, 3, 3]},
        {"rope_type": "default", "mrope_section": [2, 3, 3]},
        {"type": "ntk", "factor": 2.0},
        {"type": "su", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
        {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "finetuned": True},
        {"type": "linear", "factor": 2.0, "rope_theta": 55.0},
        {"factor": 2.0},
        {"alpha": 1000.0, "type": "dynamic"},
    ),
    "original_max_position_embeddings": (16, 64, None),
    "max_position_embeddings": (64, 128, 1000),
    "tie_word_embeddings": (True, False, None),
    "tie_encoder_decoder": (False, True),
    "vocab_size": (259, 258, 260),
    "hidden_size": (64, 128),
    "intermediate_size": (96, 64),
    "quantization_config": (None, {}),
    "pretraining_tp": (1, 2),
    "use_cache": (True, False, None),
    "torch_dtype": ("bfloat16", "float32", None),
    "dtype": ("bfloat16", "float16", None),
    "pad_token_id": (None, 0, 258, -1),
    "unsloth_version": ("2024.9",),
    "unsloth_fixed": (True,),
    "_name_or_path": ("org/base",),
    "is_llama_config": (True,),
    "dual_chunk_attention_config": (
        None,
        {"chunk_size": 16, "local_size": 4, "original_max_position_embeddings": 32},
    ),
    "auto_map": ({"AutoConfig": "configuration_other.OtherConfig"},),
    "model_type": ("llama", "mistral", "qwen2", "qwen3"),
    "architectures": (
        ["LlamaForCausalLM"],
        ["MistralForCausalLM"],
        ["Qwen2ForCausalLM"],
        ["Qwen3ForCausalLM"],
        ["LlamaModel"],
        [],
        None,
    ),
    "num_experts": (None, 0, 4),
    "is_decoder": (True, False),
    "add_cross_attention": (False, True),
    "chunk_size_feed_forward": (0, 4),
    "output_attentions": (False, True),
    "attn_implementation": ("sdpa", "eager"),
    "use_parallel_residual": (False, True),
    "parallel_attn": (False, True),
    "attention_head_scale": (0.5,),
    "value_scale": (0.5, 1),
    "a_field_that_nobody_knows": (1, "word", [1, 2], {"a": 1}, None),
}

PREFIXES = (
    "bare",
    "_orig_mod.",
    "language_model.",
    "model.language_model.",
    "base_model.model.",
    "module.",
    "transformer.",
)
HEADS = ("equal", "different", "missing", "alone", "twice")
STRAYS = (
    "inv_freq",
    "masked_bias",
    "causal_mask",
    "unknown",
    "extra_layer",
    "zero_bias",
    "bias",
    "integer",
    "score",
)


@dataclass(frozen=True)
class Draw:
    """One checkpoint: `fields` are the config class's, `edits` are set in the saved config.json, `gone` are removed."""

    architecture: str
    seed: int
    fields: dict[str, Any]
    dtype: str = "float32"
    shard: str = "1GB"
    old: str | None = None
    edits: dict[str, Any] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    prefix: str | None = None
    head: str | None = None
    stray: str | None = None
    cast: str | None = None
    standard: bool = False  # in standard ONNX operators, as TensorRT takes them


def draw(dice: Dice) -> Draw:
    """Any of these; each choice is shared by many draws, so that pairs of them meet."""
    architecture = dice.choice(FAMILIES)
    odd = dice.choices((0, 1, 2, 3), (5, 4, 2, 1))[0]
    edits = {name: dice.choice(ODD_FIELDS[name]) for name in dice.sample(sorted(ODD_FIELDS), odd)}
    if dice.random() < 0.9:  # mostly transformers would only say that sizes differ
        edits = {name: value for name, value in edits.items() if name not in _SIZES}
    return Draw(
        architecture,
        dice.randrange(1000),
        _fields(dice, architecture),
        dtype=dice.choices(("float32", "bfloat16", "float16"), (4, 1, 1))[0],
        shard=dice.choices(("1GB", "20KB", "60KB"), (5, 1, 1))[0],
        old=dice.choices((None, "type", "rope_type", "bare"), (5, 1, 1, 1))[0],
        edits=edits,
        gone=tuple(dice.sample(_MAY_BE_GONE, dice.choices((0, 1, 2), (6, 2, 1))[0])),
        prefix=dice.choice(PREFIXES) if dice.random() < 0.15 else None,
        head=dice.choice(HEADS) if dice.random() < 0.15 else None,
        stray=dice.choice(STRAYS) if dice.random() < 0.1 else None,
        cast=dice.choice(("float64", "mixed", "float8")) if dice.random() < 0.05 else None,
        standard=dice.random() < 0.2,
    )


_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
_MAY_BE_GONE = (
    "architectures",
    "attention_bias",
    "dtype",
    "head_dim",
    "hidden_act",
    "layer_types",
    "max_window_layers",
    "mlp_bias",
    "model_type",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "sliding_window",
    "tie_word_embeddings",
    "use_sliding_window",
    "max_position_embeddings",
)


def _fields(dice: Dice, architecture: str) -> dict[str, Any]:
    heads = dice.choice((2, 4, 8))
    fields: dict[str, Any] = {
        "hidden_size": dice.choices((64, 128, 96), (4, 2, 1))[0],
        "intermediate_size": dice.choice((96, 64, 160, 40)),
        "num_hidden_layers": dice.choice((1, 2, 2, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": dice.choice([n for n in (1, 2, 4, 8) if heads % n == 0]),
        "head_dim": dice.choices((16, 32, 48, 64, 8, 24), (9, 3, 2, 2, 1, 1))[0],
        "rms_norm_eps": dice.choice((1e-5, 1e-6, 0.05)),
        "max_position_embeddings": dice.choice((48, 64, 128, 128, 512, 20)),
        "tie_word_embeddings": dice.random() < 0.4,
    }
    if dice.random() < 0.15:
        del fields["head_dim"]
    if dice.random() < 0.7:
        fields["rope_parameters"] = _rope(dice, fields)
    return fields | _own(dice, architecture, fields["num_hidden_layers"])


def _own(dice: Dice, architecture: str, layers: int) -> dict[str, Any]:
    """Switches of one family alone."""
    if architecture == "LlamaForCausalLM":
        return {"attention_bias": dice.random() < 0.3, "mlp_bias": dice.random() < 0.3}
    if architecture == "MistralForCausalLM":
        return {"sliding_window": dice.choice((None, None, 1, 5, 17, 4096))}
    own: dict[str, Any] = {}
    if dice.random() < 0.5:
        own["use_sliding_window"] = dice.random() < 0.7
        own["sliding_window"] = dice.choice((None, 5, 17, 4096))
        own["max_window_layers"] = dice.choice((0, 0, layers, 1, 28))
    if dice.random() < 0.2:
        kinds = ("full_attention", "sliding_attention")
        own["layer_types"] = dice.choice(
            ([kinds[0]] * layers, [kinds[1]] * layers, [dice.choice(kinds) for _ in range(layers)])
        )
    if architecture == "Qwen3ForCausalLM":
        own["attention_bias"] = dice.random() < 0.3
    return own


def _rope(dice: Dice, fields: Mapping[str, Any]) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_theta": round(10 ** dice.uniform(1.2, 6), 1)}
    kind = dice.choice(("default", "linear", "dynamic", "llama3", "yarn", "yarn", "longrope", "proportional"))
    if dice.random() < 0.1:
        rope["partial_rotary_factor"] = dice.choice((1.0, 1.0, 0.5))
    return rope | {"rope_type": kind} | _KINDS[kind](dice, fields)


def _factor(dice: Dice) -> float:
    return round(dice.uniform(1, 8), 2)


def _llama3(dice: Dice, _: Mapping[str, Any]) -> dict[str, Any]:
    low = round(dice.uniform(0.5, 2), 2)
    original = dice.choice((8, 16, 32, 100))
    return {
        "factor": _factor(dice),
        "low_freq_factor": low,
        "high_freq_factor": round(low + dice.uniform(0.5, 4), 2),
        "original_max_position_embeddings": original,
    }


def _yarn(dice: Dice, _: Mapping[str, Any]) -> dict[str, Any]:
    rope: dict[str, Any] = {"factor": _factor(dice)}
    optional: dict[str, Callable[[], Any]] = {
        "original_max_position_embeddings": lambda: dice.choice((8, 16, 32, 100)),
        "attention_factor": lambda: round(dice.uniform(0.5, 1.5), 2),
        "beta_fast": lambda: dice.choice((8.0, 16, 32, None)),
        "beta_slow": lambda: dice.choice((0.5, 1, 2.0, None)),
        "mscale": lambda: dice.choice((0.7, 1.0, 0.0)),
        "mscale_all_dim": lambda: dice.choice((0.5, 1.0, 0)),
        "truncate": lambda: dice.choice((True, False)),
    }
    return rope | {name: make() for name, make in optional.items() if dice.random() < 0.4}


def _longrope(dice: Dice, fields: Mapping[str, Any]) -> dict[str, Any]:
    size = (fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"]) // 2
    short = [round(dice.uniform(1, 3), 2) for _ in range(size)]
    long = short if dice.random() < 0.5 else [round(dice.uniform(1, 9), 2) for _ in range(size)]
    rope: dict[str, Any] = {"short_factor": short, "long_factor": long}
    rope["original_max_position_embeddings"] = dice.choice((16, 32, 64, 100))
    if dice.random() < 0.5:
        rope["factor"] = _factor(dice)
    if dice.random() < 0.3:
        rope["attention_factor"] = round(dice.uniform(0.5, 1.5), 2)
    return rope


_KINDS: Mapping[str, Callable[[Dice, Mapping[str, Any]], dict[str, Any]]] = {
    "default": lambda *_: {},
    "linear": lambda dice, _: {"factor": _factor(dice)},
    "dynamic": lambda dice, _: {"factor": _factor(dice)},
    "proportional": lambda dice, _: {"partial_rotary_factor": dice.choice((1.0, 0.5))},
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}


def simpler(made: Draw) -> Iterator[Draw]:
    """The same with one thing less, for each thing."""
    for name in made.edits:
        yield replace(made, edits={other: value for other, value in made.edits.items() if other != name})
    for name in made.gone:
        yield replace(made, gone=tuple(other for other in made.gone if other != name))
    for name in made.fields:
        yield replace(made, fields={other: value for other, value in made.fields.items() if other != name})
    usual = Draw(made.architecture, 0, {})
    for name in ("seed", "dtype", "shard", "old", "prefix", "head", "stray", "cast", "standard"):
        if getattr(made, name) != getattr(usual, name):
            yield replace(made, **{name: getattr(usual, name)})


def write(made: Draw, folder: Path) -> tuple[Path, Path]:
    """The drawn checkpoint under usual names, and under the drawn ones: one folder where these are the same.

    Raises whatever transformers does when it does not take the config.
    """
    clean = saved(folder / "clean", made.architecture, made.seed, dtype=made.dtype, shard=made.shard, **made.fields)
    config = json.loads((clean / "config.json").read_text())
    config = _old(config, made.old) | made.edits
    config = {name: value for name, value in config.items() if name not in made.gone}
    (clean / "config.json").write_text(json.dumps(config))
    tensors: dict[str, Any] = {}
    for path in sorted(clean.glob("*.safetensors")):
        tensors |= safetensors_torch.load_file(path)
    if made.head or made.stray or made.cast:
        tensors = _stray(_cast(_head(tensors, made), made), made)
        clean = _copy(clean, folder / "drawn", tensors)
    return clean, _copy(clean, folder / "renamed", _renamed(tensors, made)) if made.prefix else clean


def _copy(folder: Path, out: Path, tensors: Mapping[str, Any]) -> Path:
    """The folder's other files beside these weights."""
    out.mkdir()
    for path in folder.iterdir():
        if "safetensors" not in path.name:
            (out / path.name).write_bytes(path.read_bytes())
    whole = {name: values.contiguous() for name, values in tensors.items()}
    safetensors_torch.save_file(whole, out / "model.safetensors", {"format": "pt"})
    return out


def _old(config: dict[str, Any], old: str | None) -> dict[str, Any]:
    """rope_theta outside and rope_scaling beside it, with `type` or `rope_type`, or no word of either when default."""
    rope = config.get("rope_parameters")
    if old is None or not rope:
        return config
    config = {name: value for name, value in config.items() if name != "rope_parameters"}
    rest = {name: value for name, value in rope.items() if name not in ("rope_theta", "rope_type")}
    kind = rope["rope_type"]
    config["rope_theta"] = rope["rope_theta"]
    config["torch_dtype"] = config.pop("dtype")
    if kind != "default" or rest:
        config["rope_scaling"] = {"rope_type" if old == "rope_type" else "type": kind} | rest
    elif old != "bare":
        config["rope_scaling"] = None
    return config


def _head(tensors: dict[str, Any], made: Draw) -> dict[str, Any]:
    embedding = tensors["model.embed_tokens.weight"]
    other = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(7)).to(embedding.dtype) * 0.15
    rest = {name: values for name, values in tensors.items() if name != "lm_head.weight"}
    if made.head == "equal":
        return rest | {"lm_head.weight": embedding.clone()}
    if made.head == "different":
        return rest | {"lm_head.weight": other}
    if made.head == "missing":
        return rest
    if made.head == "alone":  # the embedding is missing
        rest.pop("model.embed_tokens.weight")
        return rest | {"lm_head.weight": tensors.get("lm_head.weight", embedding)}
    if made.head == "twice":
        return rest | {"lm_head.weight": embedding.clone(), "model.lm_head.weight": other}
    return tensors


def _cast(tensors: dict[str, Any], made: Draw) -> dict[str, Any]:
    if made.cast == "float64":
        return {name: values.double() for name, values in tensors.items()}
    if made.cast == "mixed":
        kinds = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
        return {name: values.to(kinds[at % 4]) for at, (name, values) in enumerate(sorted(tensors.items()))}
    if made.cast == "float8":
        return {
            name: values.to(torch.float8_e4m3fn) if values.ndim == 2 else values for name, values in tensors.items()
        }
    return tensors


def _stray(tensors: dict[str, Any], made: Draw) -> dict[str, Any]:
    """One tensor more that the model has no place for."""
    if made.stray is None:
        return tensors
    layer, size = "model.layers.0.", len(tensors["model.norm.weight"])
    rows = len(tensors[layer + "self_attn.q_proj.weight"])
    more = {
        "inv_freq": (layer + "self_attn.rotary_emb.inv_freq", torch.ones(8)),
        "masked_bias": (layer + "attn.masked_bias", torch.tensor(-1e4)),
        "causal_mask": (layer + "self_attn.bias", torch.ones(1, 1, 8, 8, dtype=torch.bool)),
        "unknown": ("model.other.weight", torch.ones(3)),
        "extra_layer": ("model.layers.9.input_layernorm.weight", torch.ones(size)),
        "zero_bias": (layer + "self_attn.q_proj.bias", torch.zeros(rows)),
        "bias": (layer + "self_attn.q_proj.bias", torch.ones(rows)),
        "integer": ("model.position_ids", torch.arange(8)),
        "score": ("score.weight", torch.ones(2, size)),
    }[made.stray]
    return dict([more]) | tensors


def _renamed(tensors: dict[str, Any], made: Draw) -> dict[str, Any]:
    if made.prefix is None:
        return tensors
    if made.prefix == "bare":
        return {name.removeprefix("model."): values for name, values in tensors.items()}
    if made.prefix == "model.language_model.":
        return {
            name.replace("model.", made.prefix, 1) if name.startswith("model.") else name: values
            for name, values in tensors.items()
        }
    if made.prefix == "transformer.":
        return {name.replace("model.", "transformer.", 1): values for name, values in tensors.items()}
    return {made.prefix + name: values for name, values in tensors.items()}
