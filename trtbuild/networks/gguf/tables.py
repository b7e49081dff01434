"""The keys of a GGUF file's metadata: read for the config, refused unless they change nothing, or neutral.

Held to the keys that gguf's `constants.py` lists and to llama.cpp's loader, where 0 turns most factors off. Keys of
a model stand here without the architecture before them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trtbuild.networks.config.tables import same

Fits = Callable[[Mapping[str, Any], object], bool]


@dataclass(frozen=True)
class GgufRule:
    """Why a key is refused, unless its value is one of `unless` or `fits` the config made of the others.

    An array changes nothing if none of its values does.
    """

    why: str
    unless: tuple[object, ...] = (0, False)
    fits: Fits | None = None
    hint: str | None = None

    def neutral(self, value: object, config: Mapping[str, Any]) -> bool:
        values = value if isinstance(value, list) else [value]
        return all(
            any(same(each, other) for other in self.unless) or (self.fits is not None and self.fits(config, each))
            for each in values
        )


def _words(names: str) -> frozenset[str]:
    return frozenset(names.split())


def _rules(rule: GgufRule, names: str) -> dict[str, GgufRule]:
    return dict.fromkeys(names.split(), rule)


def _is(field: str) -> Fits:
    return lambda config, value: same(value, config[field])


def _ext_factor(config: Mapping[str, Any], value: object) -> bool:
    """Negative stands for what the kind implies: 1 with yarn, else 0."""
    return same(value, -1) or same(value, int(config["rope_parameters"]["rope_type"] == "yarn"))


HONOURED = _words(
    "vocab_size context_length embedding_length block_count feed_forward_length attention.head_count "
    "attention.head_count_kv attention.key_length attention.value_length attention.layer_norm_rms_epsilon "
    "rope.dimension_count rope.freq_base rope.scale_linear rope.scaling.type rope.scaling.factor "
    "rope.scaling.original_context_length rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow"
)

_SAFETENSORS = "name the same model as safetensors, whose config.json says which layers have it"
_OTHER = "it belongs to another architecture"

REFUSED: Mapping[str, GgufRule] = {
    "attention.causal": GgufRule(
        "each token would see the later ones, as in embedding models; engines here generate text from left to right",
        (True,),
    ),
    "attention.sliding_window": GgufRule(
        "attention windows in GGUF files are not supported",
        fits=lambda config, value: isinstance(value, int) and value >= config["max_position_embeddings"],
        hint=_SAFETENSORS,
    ),
    "attention.sliding_window_pattern": GgufRule(
        "attention windows in GGUF files are not supported", hint=_SAFETENSORS
    ),
    **_rules(GgufRule("limits on queries, keys and values are not supported"), "attention.clamp_kqv"),
    **_rules(GgufRule("positions by a bias on the scores are not supported"), "attention.max_alibi_bias"),
    **_rules(
        GgufRule("a factor of this kind is not supported", (0, 1)),
        "logit_scale residual_scale embedding_scale attention.output_scale",
    ),
    **_rules(
        GgufRule("a cap on scores or logits is not supported"),
        "attn_logit_softcapping final_logit_softcapping router_logit_softcapping",
    ),
    "attention.scale": GgufRule(
        "attention's scores are scaled by 1 / sqrt(attention.key_length) here",
        fits=lambda config, value: same(value, config["head_dim"] ** -0.5),
    ),
    **_rules(
        GgufRule("scores that are scaled by position are not supported"),
        "attention.temperature_length attention.temperature_scale",
    ),
    **_rules(
        GgufRule("mixtures of experts are not supported"),
        "expert_count expert_used_count expert_shared_count moe_every_n_layers interleave_moe_layer_step",
    ),
    **_rules(GgufRule("layers without rotary positions are not supported"), "no_rope_layer_interval"),
    "rope.dimension_sections": GgufRule("rotary positions of several dimensions are not supported"),
    "rope.dimension_count_swa": GgufRule("it must equal the head's size", fits=_is("head_dim")),
    "rope.freq_base_swa": GgufRule(
        "rotary positions that differ by layer are not supported",
        fits=lambda config, value: same(value, config["rope_parameters"]["rope_theta"]),
    ),
    **_rules(GgufRule("only 1 is supported", (1,)), "rope.scaling.attn_factor rope.scaling.yarn_attn_factor"),
    "rope.scaling.yarn_ext_factor": GgufRule("only what the kind implies is supported", (), _ext_factor),
    "rope.scaling.yarn_log_multiplier": GgufRule("only 0 is supported"),
    "rope.scaling.alpha": GgufRule("rotary positions scaled by alpha are not supported", (0, 1)),
    "nextn_predict_layers": GgufRule("layers that predict later tokens are not supported"),
    "use_parallel_residual": GgufRule("attention and feed-forward side by side are not supported"),
    "embedding_length_out": GgufRule("the output is as wide as the layers here", fits=_is("hidden_size")),
    **_rules(
        GgufRule("it must equal the head's size", fits=_is("head_dim")),
        "attention.key_length_swa attention.value_length_swa",
    ),
    "attention.shared_kv_layers": GgufRule("layers that share keys and values are not supported"),
    # llama's old converters wrote it; both name rows in the order that `checkpoint` undoes
    "tensor_data_layout": GgufRule("rows in another order are not supported", ("reference", "Meta AI original pth")),
    **_rules(
        GgufRule(_OTHER),
        "attention.q_lora_rank attention.kv_lora_rank attention.decay_lora_rank attention.iclr_lora_rank "
        "attention.value_residual_mix_lora_rank attention.gate_lora_rank attention.key_length_mla "
        "attention.value_length_mla attention.relative_buckets_count attention.group_norm_groups "
        "attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k "
        "features_length leading_dense_block_count n_deepstack_layers decoder_start_token_id decoder_block_count "
        "swin_norm rescale_every_n_layers time_mix_extra_dim time_decay_extra_dim token_shift_count "
        "full_attention_interval activation_sparsity_scale altup.active_idx altup.num_inputs "
        "embedding_length_per_layer_input swiglu_clamp_exp swiglu_clamp_shexp moe_latent_size "
        "ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count ssm.dt_b_c_rms "
        "kda.head_dim wkv.head_size posnet.embedding_length posnet.block_count convnext.embedding_length "
        "convnext.block_count shortconv.l_cache",
    ),
}
#: Keys that end so are of layers after the last one, which make embeddings.
REFUSED_SUFFIXES: Mapping[str, GgufRule] = {"_feat_in": GgufRule(_OTHER), "_feat_out": GgufRule(_OTHER)}

NEUTRAL: Mapping[str, str] = {
    "pooling_type": "how embeddings are made of the last layer; no logit depends on it",
    "classifier.output_labels": "names of classes; no logit of a token depends on them",
    "rope.scaling.finetuned": "says how the model was trained",
    "attention.layer_norm_epsilon": "attention.layer_norm_rms_epsilon is the one that is read",
    "attention.group_norm_epsilon": "read only with attention.group_norm_groups",
    **dict.fromkeys(
        _words(
            "expert_feed_forward_length expert_shared_feed_forward_length expert_chunk_feed_forward_length "
            "expert_group_count expert_group_used_count expert_weights_scale expert_weights_norm "
            "expert_gating_func expert_group_scale experts_per_group"
        ),
        "read only with expert_count",
    ),
}

#: Keys that stand without an architecture.
GLOBAL_HONOURED = frozenset(
    {"general.architecture", "general.alignment", "split.no", "split.count", "split.tensors.count"}
)
GLOBAL_REFUSED: Mapping[str, GgufRule] = {
    "general.type": GgufRule("a model's own file is needed", ("model",), hint="name the GGUF file of the model"),
}
GLOBAL_REFUSED_PREFIXES: Mapping[str, GgufRule] = {
    "adapter.": GgufRule("an adapter alone is no model", hint="merge it into its model first"),
    "clip.": GgufRule(_OTHER),
    "diffusion.": GgufRule(_OTHER),
    "xielu.": GgufRule(_OTHER),
}
GLOBAL_NEUTRAL_PREFIXES: Mapping[str, str] = {
    "general.": "a note on where the file comes from, or on how tokens are chosen",
    "tokenizer.": "the tokenizer's, which is made of it apart",
    "quantize.": "a note on how the weights were quantized",
    "imatrix.": "a note on how the weights were quantized",
}
