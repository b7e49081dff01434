"""Every field of a config.json and every key of a GGUF file is in one list: none in two, none in none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gguf.constants import Keys

from tests.networks.config.test_configs import GGUF
from tests.networks.tiny_models import ARCHITECTURES, LINEAR, YARN, config
from trtbuild.errors import InputError
from trtbuild.networks.config import neutral as config_neutral
from trtbuild.networks.config import tables
from trtbuild.networks.config.architectures import audit, parse
from trtbuild.networks.config.audit import kind_of
from trtbuild.networks.gguf import config as gguf_config
from trtbuild.networks.gguf import tables as gguf_tables

LONGROPE = {"rope_type": "longrope", "short_factor": [1.5] * 8, "long_factor": [2.0] * 8}


def refusal(settings: dict[str, Any]) -> InputError:
    with pytest.raises(InputError) as caught:
        parse(settings)
    return caught.value


@pytest.mark.parametrize("model_type", tables.HONOURED)
def test_no_field_of_a_config_is_in_two_lists(model_type: str):
    honoured, neutral = tables.HONOURED[model_type], config_neutral.NEUTRAL.keys()
    refused = tables.REFUSED.keys()
    assert not refused & neutral
    # Where another architecture reads a field, it is told apart by the architecture.
    others = set().union(*tables.HONOURED.values()) - frozenset.intersection(*tables.HONOURED.values())
    assert honoured & (refused | neutral) <= others
    for name in honoured | refused | neutral:
        assert (kind_of(name, model_type) == "honoured") == (name in honoured)
        assert kind_of(name, model_type) != "unknown"


def test_a_group_of_names_holds_no_name_that_another_list_has():
    named = tables.REFUSED.keys() | set().union(*tables.HONOURED.values())
    groups = (config_neutral.NEUTRAL_PREFIXES, config_neutral.NEUTRAL_SUFFIXES)
    special = {"bos_token_id", "eos_token_id", "pad_token_id"}
    for name in named - special:
        assert not name.startswith(tuple(groups[0])) and not name.endswith(tuple(groups[1])), name
    assert not any(name.startswith(tuple(tables.REFUSED_PREFIXES)) for name in config_neutral.NEUTRAL)


def gguf_keys(owner: type = Keys, arch: str = "llama") -> Iterator[str]:
    """Every key that gguf's constants know, for one architecture."""
    for name, value in vars(owner).items():
        if name.startswith("__"):
            continue
        if isinstance(value, type):
            yield from gguf_keys(value, arch)
        else:
            yield value.format(arch=arch, id=0, name="tool_use", dense="dense_2")


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
def test_every_key_that_gguf_knows_is_in_one_list(arch: str):
    keys = sorted(gguf_keys(arch=arch))
    assert len(keys) > 150
    assert [key for key in keys if gguf_config.kind_of(key, arch) == "unknown"] == []
    own = gguf_tables
    assert not own.HONOURED & own.REFUSED.keys()
    assert not own.HONOURED & own.NEUTRAL.keys()
    assert not own.REFUSED.keys() & own.NEUTRAL.keys()


def test_what_is_neutral_or_honoured_is_passed_without_a_note():
    settings = config(
        attention_dropout=0.1,
        torch_dtype="bfloat16",
        transformers_version="4.40.0",
        _name_or_path="x/y",
        temperature=0.3,
        image_token_id=7,
        id2label={"0": "LABEL_0"},
        use_cache=False,
        final_logit_softcapping=None,
        embedding_multiplier=1.0,
        attention_multiplier=0.25,
        query_pre_attn_scalar=16,
        no_rope_layers=[1, 1],
        partial_rotary_factor=1,
        sliding_window=None,
        num_local_experts=0,
        is_causal=True,
    )
    assert audit(settings) == ()
    assert parse(settings) == parse(config())


def test_what_is_unknown_is_told():
    rope = {"rope_type": "default", "rope_theta": 1000.0, "flavour": 1}
    (note,) = audit(config(wibble=3, rope_parameters=rope))
    assert "rope_parameters.flavour, wibble" in note
    assert "LlamaForCausalLM" in note


def test_code_beside_a_config_is_told_and_not_run():
    (note,) = audit(config(auto_map={"AutoModelForCausalLM": "modeling_x.Model"}))
    assert "auto_map" in note and "not run" in note


def test_a_negative_id_names_no_token():
    settings = config(pad_token_id=-1, eos_token_id=[2, -1])
    decoder = parse(settings)
    assert (decoder.pad_token_id, decoder.eos_token_ids) == (None, (2,))
    assert [note.split(":")[0] for note in audit(settings)] == [
        "config.json has eos_token_id=[2, -1]",
        "config.json has pad_token_id=-1",
    ]


#: One value a field that would change the arithmetic if another loader read it.
REFUSED: dict[str, Any] = {
    "is_causal": False,
    "use_bidirectional_attention": True,
    "bidirectional": True,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.0078125,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
    "scale_emb": 12,
    "scale_depth": 1.4,
    "dim_model_base": 256,
    "query_pre_attn_scalar": 256,
    "attention_scale": 0.5,
    "logit_scale": 0.0625,
    "attn_temperature_tuning": True,
    "embedding_scale": 2.0,
    "clip_qkv": 8.0,
    "qk_layernorm": True,
    "use_qk_norm": True,
    "num_experts": 8,
    "num_local_experts": 8,
    "mup_width_scale": 0.5,
    "partial_rotary_factor": 0.5,
    "rotary_pct": 0.25,
    "no_rope_layers": [1, 0],
    "no_rope_layer_interval": 2,
    "mrope_section": [2, 3, 3],
    "layer_types": ["full_attention", "chunked_attention"],
    "sliding_window": 8,
    "use_sliding_window": True,
    "attention_chunk_size": 16,
    "num_kv_shared_layers": 1,
    "dual_chunk_attention_config": {"chunk_size": 64},
    "text_config": {"hidden_size": 64},
    "quantization": {"bits": 4, "group_size": 64},
    "per_layer_config": {"0": {"intermediate_size": 32}},
    "hidden_activation": "gelu_pytorch_tanh",
    "use_bias": True,
    "qkv_bias": True,
    "transformers_weights": "other.safetensors",
    "is_encoder_decoder": True,
}


@pytest.mark.parametrize("field", REFUSED)
def test_a_value_that_would_change_a_logit_is_refused_by_name(field: str):
    error = refusal(config(**{field: REFUSED[field]}))
    assert f"{field}={REFUSED[field]!r}" in error.message
    assert "genai" not in (error.hint or "")


def test_the_rule_of_a_field_depends_on_the_architecture():
    assert parse(config(attention_bias=True)).output_bias
    assert parse(config("Qwen2ForCausalLM", attention_bias=True)).attention_bias
    assert parse(config("Qwen3ForCausalLM", use_qk_norm=True)).qk_norm
    for settings in (
        config("MistralForCausalLM", attention_bias=True),
        config("MistralForCausalLM", sliding_window=8, use_sliding_window=False),
        config("Qwen2ForCausalLM", attention_bias=False),
        config("Qwen3ForCausalLM", mlp_bias=True),
        config("Qwen3ForCausalLM", use_qk_norm=False),
    ):
        refusal(settings)


def test_quantized_weights_are_refused_by_method_with_the_way_out():
    error = refusal(config(quantization_config={"quant_method": "awq", "bits": 4}))
    assert "quantization_config.quant_method='awq'" in error.message
    assert "unquantized" in (error.hint or "")
    assert "quantization_config={}" in refusal(config(quantization_config={})).message


@pytest.mark.parametrize(
    "architecture, changes, what",
    [
        ("LlamaForCausalLM", {"hidden_size": 64.0}, "hidden_size=64.0"),
        ("LlamaForCausalLM", {"tie_word_embeddings": None}, "tie_word_embeddings=None"),
        ("LlamaForCausalLM", {"tie_word_embeddings": "false"}, "tie_word_embeddings='false'"),
        ("LlamaForCausalLM", {"attention_bias": 1}, "attention_bias=1"),
        ("LlamaForCausalLM", {"rms_norm_eps": None}, "rms_norm_eps=None"),
        ("LlamaForCausalLM", {"rms_norm_eps": 0}, "rms_norm_eps=0:"),
        ("LlamaForCausalLM", {"max_position_embeddings": None}, "max_position_embeddings=None"),
        ("LlamaForCausalLM", {"hidden_act": "SiLU"}, "hidden_act='SiLU'"),
        ("LlamaForCausalLM", {"hidden_act": None}, "hidden_act=None"),
        ("LlamaForCausalLM", {"hidden_size": 66, "head_dim": None}, "hidden_size=66"),
        ("LlamaForCausalLM", {"bos_token_id": [1]}, "bos_token_id=[1]"),
        ("LlamaForCausalLM", {"eos_token_id": True}, "eos_token_id=True"),
        ("LlamaForCausalLM", {"architectures": ["LlamaForCausalLM", "X"]}, "architectures=["),
        ("LlamaForCausalLM", {"model_type": "mistral"}, "model_type='mistral'"),
        ("MistralForCausalLM", {"num_key_value_heads": None}, "num_key_value_heads=None"),
        ("MistralForCausalLM", {"sliding_window": 0}, "sliding_window=0"),
        ("MistralForCausalLM", {"layer_types": ["full_attention"] * 2}, "layer_types=["),
        ("Qwen2ForCausalLM", {"head_dim": None}, "head_dim=None"),
        ("Qwen3ForCausalLM", {"head_dim": None}, "head_dim=None"),
        ("Qwen2ForCausalLM", {"use_sliding_window": "true"}, "use_sliding_window='true'"),
        ("Qwen2ForCausalLM", {"layer_types": ["full_attention"] * 3}, "layer_types=["),
        ("Qwen2ForCausalLM", {"layer_types": ["sliding_attention"] * 2}, "layer_types=["),
        ("Qwen2ForCausalLM", {"layer_types": ["chunked_attention"] * 2}, "layer_types=["),
        ("Qwen2ForCausalLM", {"max_window_layers": None}, "max_window_layers=None"),
    ],
)
def test_what_transformers_does_not_load_is_refused(architecture: str, changes: dict[str, Any], what: str):
    assert what in refusal(config(architecture, **changes)).message


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"rope_parameters": {"rope_theta": None}}, "rope_parameters.rope_theta=None"),
        ({"rope_parameters": None, "rope_theta": None}, "rope_theta=None"),
        ({"rope_theta": 500.0}, "rope_theta=500.0"),  # 1000.0 in rope_parameters
        ({"rope_scaling": {"factor": 2.0}}, "rope_scaling.factor=2.0"),
        ({"rope_scaling": {"type": "linear", "rope_type": "yarn"}}, "rope_scaling.type='linear'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_parameters="),
        ({"rope_parameters": {**LINEAR, "attention_factor": 0.5}}, "rope_parameters.attention_factor=0.5"),
        ({"rope_parameters": {**LINEAR, "rope_type": "mrope"}}, "rope_parameters.rope_type='mrope'"),
        ({"rope_parameters": {**LINEAR, "mrope_section": [2, 3, 3]}}, "rope_parameters.mrope_section="),
        (
            {"rope_parameters": {k: v for k, v in YARN.items() if k != "factor"}},
            "rope_parameters.factor=None",
        ),
        ({"rope_parameters": YARN | {"rope_theta": 1.0}}, "rope_parameters.rope_theta=1.0"),
        (
            {"rope_parameters": YARN, "original_max_position_embeddings": None},
            "original_max_position_embeddings",
        ),
        ({"rope_parameters": {"rope_type": "proportional"}}, "rope_parameters.rope_type='proportional'"),
        (
            {"rope_parameters": LONGROPE, "original_max_position_embeddings": 64},
            "rope_parameters.short_factor=",
        ),
    ],
)
def test_rotary_fields_that_loaders_read_in_different_ways_are_refused(changes: dict[str, Any], what: str):
    error = refusal(config(**changes))
    assert what in error.message
    assert "genai" not in (error.hint or "")


def test_rotation_that_would_change_beyond_the_context_alone_is_kept_and_told():
    dynamic = config(rope_parameters={"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 4.0})
    assert parse(dynamic) == parse(config())
    (note,) = audit(dynamic)
    assert "'dynamic'" in note and "128" in note
    spanning = config(rope_parameters=LONGROPE, original_max_position_embeddings=128)
    assert parse(spanning).rope.factors == (1.5,) * 8
    assert "'longrope'" in audit(spanning)[0]


def test_layers_of_both_kinds_are_one_where_the_window_spans_the_context():
    changes = {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"]}
    assert parse(config("Qwen2ForCausalLM", sliding_window=128, **changes)).sliding_window is None
    refusal(config("Qwen2ForCausalLM", sliding_window=127, **changes))


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"llama.attention.causal": False}, "llama.attention.causal=False"),
        ({"llama.attention.sliding_window": 64}, "llama.attention.sliding_window=64"),
        ({"llama.attention.sliding_window_pattern": [False, True]}, "sliding_window_pattern="),
        ({"llama.attention.clamp_kqv": 8.0}, "llama.attention.clamp_kqv=8.0"),
        ({"llama.attention.max_alibi_bias": 8.0}, "max_alibi_bias=8.0"),
        ({"llama.use_parallel_residual": True}, "use_parallel_residual=True"),
        ({"llama.logit_scale": 0.5}, "llama.logit_scale=0.5"),
        ({"llama.embedding_scale": 12.0}, "llama.embedding_scale=12.0"),
        ({"llama.attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        ({"llama.final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0"),
        ({"llama.attention.scale": 0.5}, "llama.attention.scale=0.5"),
        ({"llama.rope.dimension_sections": [2, 3, 3, 0]}, "rope.dimension_sections="),
        ({"llama.rope.freq_base_swa": 500.0}, "rope.freq_base_swa=500.0"),
        ({"llama.rope.scaling.attn_factor": 2.0}, "rope.scaling.attn_factor=2.0"),
        ({"llama.rope.scaling.yarn_ext_factor": 1.0}, "rope.scaling.yarn_ext_factor=1.0"),
        ({"llama.rope.scaling.yarn_log_multiplier": 0.1}, "yarn_log_multiplier=0.1"),
        ({"llama.nextn_predict_layers": 1}, "nextn_predict_layers=1"),
        ({"llama.dense_2_feat_in": 64}, "dense_2_feat_in=64"),
        ({"tokenizer.ggml.tokens": ["a"] * 95}, "llama.vocab_size=96"),
        ({"general.type": "adapter"}, "general.type='adapter'"),
        ({"general.type": "mmproj", "general.architecture": "clip"}, "general.type='mmproj'"),
    ],
)
def test_a_key_of_a_gguf_file_that_would_change_a_logit_is_refused(changes: dict[str, Any], what: str):
    with pytest.raises(InputError) as caught:
        gguf_config.config_from_gguf(GGUF | changes)
    assert what in caught.value.message


def test_an_adapter_in_gguf_is_told_as_one_although_it_lacks_a_models_keys():
    adapter = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    with pytest.raises(InputError, match=r"general\.type='adapter'"):
        gguf_config.config_from_gguf(adapter)


def test_factors_by_the_prompts_length_in_a_gguf_file_are_refused():
    with pytest.raises(InputError, match=r"rope_factors_long\.weight"):
        gguf_config.config_from_gguf(GGUF, {"token_embd.weight", "rope_factors_long.weight"})


def test_keys_of_a_gguf_file_that_change_nothing_are_passed_and_unknown_ones_are_told():
    neutral = {
        "general.file_type": 7,
        "general.type": "model",
        "general.quantization_version": 2,
        "quantize.imatrix.file": "x.dat",
        "tokenizer.ggml.pre": "default",
        "llama.attention.causal": True,
        "llama.attention.scale": 0.25,
        "llama.attention.sliding_window": 128,
        "llama.expert_count": 0,
        "llama.logit_scale": 0.0,
        "llama.rope.dimension_sections": [0, 0, 0, 0],
        "llama.rope.freq_base_swa": 10000.0,
        "llama.pooling_type": 3,
    }
    assert gguf_config.config_from_gguf(GGUF | neutral) == gguf_config.config_from_gguf(GGUF)
    assert gguf_config.audit(GGUF | neutral) == ()
    (note,) = gguf_config.audit(GGUF | {"llama.wibble": 1, "qwen2.block_count": 2})
    assert "llama.wibble, qwen2.block_count" in note


def test_every_architecture_has_its_lists():
    assert set(tables.HONOURED) == set(ARCHITECTURES.values())
