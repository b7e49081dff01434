"""The fields of config.json that a decoder is made from, and those that are refused unless they change nothing.

Held to transformers 5.17: its four config classes, what its models, masks and caches read of a config, and what
it ignores although the field's name means other arithmetic elsewhere (Granite, MiniCPM, Gemma, SmolLM3, DeepSeek).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.networks.config.fields import is_number

if TYPE_CHECKING:
    from trtbuild.networks.config.decoder import Decoder

TAKE_OUT = "take the field out of config.json if the model was trained without it"


@dataclass(frozen=True)
class Rule:
    """Why a field is refused, and with which values it changes nothing.

    null changes nothing unless `null` is false; nor does a value equal to one of `unless`, nor one that
    `fits` the decoder that the rest of the config describes.
    """

    why: str
    unless: tuple[object, ...] = ()
    fits: Callable[[Decoder, object], bool] | None = None
    hint: str | None = TAKE_OUT
    null: bool = True

    def neutral(self, value: object) -> bool:
        """Whether the value changes nothing, whatever the decoder's sizes are."""
        if value is None:
            return self.null
        return any(same(value, each) for each in self.unless)


def same(value: Any, other: Any) -> bool:
    """Equal, within a rounding for numbers; true is not 1."""
    if is_number(value) and is_number(other):
        return bool(value == other or 0.999999 * other <= value <= 1.000001 * other)
    return type(value) is type(other) and value == other


def _sized(size: Callable[[Decoder], object]) -> Callable[[Decoder, object], bool]:
    return lambda decoder, value: same(value, size(decoder))


def _rules(rule: Rule, *names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


def _window_spans(decoder: Decoder, value: object) -> bool:
    return is_number(value) and value >= decoder.max_positions  # type: ignore[operator]


def _beyond_layers(decoder: Decoder, value: object) -> bool:
    return is_number(value) and value > decoder.layers  # type: ignore[operator]


_HONOURED = (
    "architectures",
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_QWEN = ("layer_types", "sliding_window", "use_sliding_window", "max_window_layers")
#: Read by `architectures.parse` and `rope`, by model_type.
HONOURED: Mapping[str, frozenset[str]] = {
    "llama": frozenset({*_HONOURED, "attention_bias", "mlp_bias"}),
    "mistral": frozenset({*_HONOURED, "layer_types", "sliding_window"}),
    "qwen2": frozenset({*_HONOURED, *_QWEN}),
    "qwen3": frozenset({*_HONOURED, *_QWEN, "attention_bias"}),
}

_CAUSAL = "each token would see the later ones, as in embedding models; engines here generate text from left to right"
_NESTED = "a model of several parts is not supported; this must be the config.json of the language model alone"
_QUANTIZED = "weights that are already quantized are not supported"
_UNQUANTIZED = "start from the unquantized checkpoint, or from GGUF"
_CAP = "a cap on scores or logits is not supported, and transformers ignores it for this architecture"
_SCALE = "a factor of this kind is not supported, and transformers ignores it for this architecture"
_SCORES = "attention's scores are scaled by head_dim**-0.5 here, as transformers does for this architecture"
_EXPERTS = "mixtures of experts are not supported"
_ROTARY = "only whole heads are rotated here"
_ROPE = "rotary positions are read from rope_parameters, or rope_scaling and rope_theta, alone"
_NOPE = "layers without rotary positions are not supported"
_WINDOW = "attention windows of this kind are not supported"
_BLOCK = "blocks of this kind are not supported, and transformers ignores the field for this architecture"
_BIAS = "transformers ignores it for this architecture, whose biases are fixed"
_MLA = "attention over compressed keys and values is not supported"
_ROTATED = Rule(_ROTARY, (1,))

#: Refused unless neutral, for each model_type that does not honour the field.
REFUSED: Mapping[str, Rule] = {
    **_rules(Rule(_CAUSAL, (True,), hint=None, null=False), "is_causal"),
    **_rules(Rule(_CAUSAL, (True,), hint=None), "causal", "causal_attention", "use_causal_mask"),
    **_rules(
        Rule(_CAUSAL, (False,), hint=None),
        "use_bidirectional_attention",
        "bidirectional",
        "bidirectional_attention",
        "is_bidirectional",
    ),
    **_rules(
        Rule(_NESTED, hint=None),
        "text_config",
        "vision_config",
        "audio_config",
        "llm_config",
        "language_config",
        "thinker_config",
        "text_encoder",
        "decoder",
        "generator",
        "encoder",
    ),
    **_rules(Rule(_NESTED, (False,), hint=None), "is_encoder_decoder", "add_cross_attention"),
    **_rules(
        Rule(_QUANTIZED, hint=_UNQUANTIZED),
        "quantization_config",
        "compression_config",
        "quantization",
        "quant_config",
    ),
    **_rules(Rule("fields that differ by layer are not supported", ({},)), "per_layer_config"),
    **_rules(Rule("weights are read from the usual files alone"), "transformers_weights", "fusion_config"),
    **_rules(Rule("fields under other names are not supported", ({},)), "attribute_map"),
    **_rules(Rule("heads that were removed are not supported", ({}, [])), "pruned_heads"),
    **_rules(
        Rule(_CAP, (0,)),
        "attn_logit_softcapping",
        "attn_logit_softcap",
        "attention_logit_softcapping",
        "final_logit_softcapping",
        "final_logit_softcap",
        "logits_soft_cap",
        "router_logit_softcapping",
    ),
    **_rules(
        Rule(_SCALE, (1,)),
        "embedding_multiplier",
        "residual_multiplier",
        "logits_scaling",
        "logit_scale",
        "logits_scale",
        "embedding_scale",
        "emb_scale",
        "scale_emb",
        "lm_head_multiplier",
        "key_multiplier",
        "attention_in_multiplier",
        "attention_out_multiplier",
        "residual_scale",
        "output_multiplier_scale",
        "embedding_multiplier_scale",
    ),
    **_rules(
        Rule(_SCALE, (False,)),
        "scale_embedding",
        "scale_embeddings",
        "normalize_embedding",
        "embed_layernorm",
        "mup_use_scaling",
        "use_mup",
    ),
    "scale_depth": Rule(_SCALE, fits=_sized(lambda d: d.layers**0.5)),  # MiniCPM: scale_depth / sqrt(layers)
    "dim_model_base": Rule(_SCALE, fits=_sized(lambda d: d.hidden)),  # MiniCPM: hidden / dim_model_base
    "mlp_multipliers": Rule(_SCALE, ([1, 1], [1.0, 1.0])),
    **_rules(
        Rule(_SCORES, fits=_sized(lambda d: d.head_dim**-0.5)),
        "attention_multiplier",
        "attention_scale",
        "attention_scaling",
        "softmax_scale",
    ),
    "query_pre_attn_scalar": Rule(_SCORES, fits=_sized(lambda d: d.head_dim)),
    **_rules(
        Rule(_SCORES, (False, 0)),
        "attn_temperature_tuning",
        "scale_attn_by_inverse_layer_idx",
        "log_n_scaling",
        "use_logn_attn",
    ),
    "scale_attn_weights": Rule(_SCORES, (True,)),
    **_rules(Rule(_BLOCK, (0,)), "clip_qkv", "attn_clip_qkv"),
    **_rules(
        Rule("queries and keys are normalised in Qwen3 alone", fits=lambda d, value: value is d.qk_norm),
        "qk_layernorm",
        "use_qk_norm",
        "use_qk_layernorm",
        "qk_norm",
    ),
    **_rules(
        Rule(_EXPERTS, (0,)),
        "num_experts",
        "num_local_experts",
        "n_routed_experts",
        "n_shared_experts",
        "num_shared_experts",
        "moe_num_experts",
    ),
    **_rules(_ROTATED, "partial_rotary_factor", "rotary_pct", "rope_pct", "rope_percent"),
    "rotary_dim": Rule(_ROTARY, fits=_sized(lambda d: d.head_dim)),
    "rope_ratio": Rule(_ROPE, (1,)),
    "rope_scaling_factor": Rule(_ROPE, (1,)),
    "rope_type": Rule(_ROPE, ("default",), fits=lambda d, value: value == d.rope.kind),
    **_rules(Rule(_ROPE, (False,)), "use_mrope", "mrope_interleaved", "rope_interleaved", "rope_interleave"),
    "mrope_section": Rule(_ROPE, ([],)),
    **_rules(
        Rule(_ROPE, fits=_sized(lambda d: d.rope.theta)),
        "rotary_base",
        "rotary_emb_base",
        "rope_base",
        "rope_local_base_freq",
        "global_rope_theta",
        "local_rope_theta",
    ),
    **_rules(Rule(_ROPE, (False,)), "alibi", "use_alibi"),
    "position_embedding_type": Rule(_ROPE, ("rope", "rotary")),
    **_rules(Rule(_NOPE, (True,)), "use_rope", "rope"),
    "use_nope": Rule(_NOPE, (False,)),
    # SmolLM3: 1 marks a layer that is rotated, and each n-th one is not.
    "no_rope_layers": Rule(_NOPE, ([],), fits=lambda d, value: value == [1] * d.layers),
    **_rules(Rule(_NOPE, (0,), fits=_beyond_layers), "no_rope_layer_interval", "nope_layer_interval"),
    "nope_layers": Rule(_NOPE, ([],)),
    "layer_types": Rule(_WINDOW, fits=lambda d, value: value == ["full_attention"] * d.layers),
    "sliding_window": Rule("transformers shortens the cache to it and not the prompt's attention", fits=_window_spans),
    # Mistral's layers have the window whatever this says; other loaders heed it.
    "use_sliding_window": Rule(_WINDOW, fits=lambda d, value: value is (d.sliding_window is not None)),
    **_rules(Rule(_WINDOW, fits=_window_spans), "attention_chunk_size", "attention_window_size"),
    **_rules(
        Rule(_WINDOW),
        "sliding_window_pattern",
        "sliding_window_layers",
        "interleaved_sliding_window",
        "global_attn_every_n_layers",
        "full_attention_interval",
        "local_attention",
    ),
    # Qwen2.5's 1M models: vLLM splits prompts longer than chunk_size, transformers does not.
    "dual_chunk_attention_config": Rule(
        _WINDOW, ({},), hint="take the field out of config.json to attend as transformers does"
    ),
    "num_kv_shared_layers": Rule("layers that share keys and values are not supported", (0,)),
    **_rules(
        Rule(_BLOCK, (False,)),
        "parallel_attn",
        "parallel_residual",
        "use_parallel_residual",
        "use_post_norm",
        "apply_residual_connection_post_layernorm",
    ),
    "norm_type": Rule(_BLOCK, ("rms_norm", "rmsnorm", "rms")),
    **_rules(
        Rule("only silu is supported", ("silu", "swish")),
        "hidden_activation",
        "activation_function",
        "mlp_hidden_act",
    ),
    "attention_bias": Rule(_BIAS, fits=lambda d, value: value is d.attention_bias),
    "mlp_bias": Rule(_BIAS, (False,)),
    **_rules(
        Rule(_BIAS, fits=lambda d, value: value is d.attention_bias),
        "qkv_bias",
        "use_qkv_bias",
        "add_qkv_bias",
        "attention_qkv_bias",
    ),
    **_rules(
        Rule(_BIAS, fits=lambda d, value: value is d.output_bias),
        "attention_out_bias",
        "attention_output_bias",
        "o_proj_bias",
    ),
    **_rules(Rule(_BIAS, (False,)), "bias", "use_bias", "add_bias_linear", "lm_head_bias"),
    **_rules(Rule(_MLA, (0,)), "kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim"),
    "v_head_dim": Rule(_MLA, fits=_sized(lambda d: d.head_dim)),
    **_rules(
        Rule("the embedding is as wide as the layers here", fits=_sized(lambda d: d.hidden)),
        "embedding_size",
        "word_embed_proj_dim",
    ),
}
#: The same for whole groups of names.
REFUSED_PREFIXES: Mapping[str, Rule] = {"mup_": Rule(_SCALE, (1, False))}
