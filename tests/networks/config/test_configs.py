"""Configs are read as transformers reads them; what is unsupported is an error with the field and its value."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.networks.tiny_models import LLAMA3, YARN, config
from trtbuild.errors import InputError
from trtbuild.networks.config.architectures import SUPPORTED, architecture_of, parse
from trtbuild.networks.config.rope import Rope
from trtbuild.networks.gguf.config import config_from_gguf, shortest

QWEN_WINDOW = {"use_sliding_window": True, "sliding_window": 8}


@pytest.mark.parametrize(
    "changes, field, value",
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architectures", "'GPT2LMHeadModel'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures", "Sequence"),
        ({"hidden_act": "gelu"}, "hidden_act", "'gelu'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config.quant_method", "'gptq'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor", "0.5"),
        ({"num_key_value_heads": 3}, "num_key_value_heads", "3"),
        ({"head_dim": 15}, "head_dim", "15"),
        ({"hidden_size": 66, "head_dim": None}, "hidden_size", "66"),
        ({"hidden_size": None}, "hidden_size", "None"),
        ({"hidden_size": "64"}, "hidden_size", "'64'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers", "0"),
        ({"num_hidden_layers": 1.5}, "num_hidden_layers", "1.5"),
        ({"vocab_size": True}, "vocab_size", "True"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps", "-1e-05"),
        ({"eos_token_id": ["2"]}, "eos_token_id", "['2']"),
        ({"rope_parameters": [1]}, "rope_parameters", "[1]"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "rope_parameters.factor", "None"),
        ({"rope_scaling": {"type": "su", "factor": 2}}, "rope_scaling.rope_type", "'su'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "rope_parameters.factor", "None"),
        ({"rope_parameters": LLAMA3 | {"low_freq_factor": "1"}}, "rope_parameters.low_freq_factor", "'1'"),
        ({"rope_parameters": YARN | {"factor": 0}}, "rope_parameters.factor", "0"),
        ({"rope_parameters": YARN | {"partial_rotary_factor": 0.5}}, "partial_rotary_factor", "0.5"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "rope_parameters", "full_attention"),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.0]}},
            "rope_scaling.long_factor",
            "[1.0]",
        ),
    ],
)
def test_what_is_unsupported_is_named_with_its_value(changes: dict[str, Any], field: str, value: str):
    with pytest.raises(InputError) as caught:
        parse(config(**changes))
    assert f"{field}=" in caught.value.message
    assert value in caught.value.message
    assert caught.value.option == "model.source"


@pytest.mark.parametrize(
    "changes, field",
    [
        (QWEN_WINDOW | {"max_window_layers": 1}, "max_window_layers=1"),
        (QWEN_WINDOW | {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types=["),
    ],
)
def test_windows_on_some_layers_are_refused_by_name(changes: dict[str, Any], field: str):
    with pytest.raises(InputError, match="in one model are not supported") as caught:
        parse(config("Qwen2ForCausalLM", **changes))
    assert field in caught.value.message


@pytest.mark.parametrize(
    "architecture, changes, window",
    [
        ("LlamaForCausalLM", {"sliding_window": 128}, None),  # all of max_position_embeddings
        ("MistralForCausalLM", {"sliding_window": 128}, None),
        ("MistralForCausalLM", {"sliding_window": 8}, 8),
        ("MistralForCausalLM", {"sliding_window": None}, None),
        ("Qwen2ForCausalLM", {"sliding_window": 8}, None),
        ("Qwen2ForCausalLM", QWEN_WINDOW | {"max_window_layers": 0}, 8),
        ("Qwen2ForCausalLM", QWEN_WINDOW | {"max_window_layers": 2}, None),
        ("Qwen3ForCausalLM", QWEN_WINDOW | {"layer_types": ["full_attention"] * 2}, None),
        ("Qwen3ForCausalLM", QWEN_WINDOW, None),  # max_window_layers is 28 unless said otherwise
    ],
)
def test_a_window_counts_only_where_the_architecture_uses_it(
    architecture: str, changes: dict[str, Any], window: int | None
):
    assert parse(config(architecture, **changes)).sliding_window == window


def test_both_spellings_of_rotary_scaling_are_one():
    new = config(rope_parameters=YARN)
    old = {key: value for key, value in new.items() if key != "rope_parameters"}
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    old |= {"rope_theta": 1000.0, "rope_scaling": scaling}
    assert parse(old) == parse(new)
    assert parse(new).rope == Rope(1000.0, "yarn", factor=4.0, original_max_positions=16)


def test_the_architecture_is_named_even_when_it_is_not_supported():
    assert architecture_of({"architectures": ["Phi3ForCausalLM"]}) == "Phi3ForCausalLM"
    assert architecture_of({"model_type": "qwen3"}) == "Qwen3ForCausalLM"
    with pytest.raises(InputError, match="names no architecture"):
        architecture_of({"model_type": "bert"})
    with pytest.raises(InputError) as caught:
        parse({"architectures": ["Phi3ForCausalLM"]})
    assert all(name in caught.value.message for name in SUPPORTED)
    assert caught.value.hint is None  # whether another front end builds it is not known here


def test_token_ids_are_those_of_the_config():
    decoder = parse(config(eos_token_id=[2, 7], pad_token_id=0))
    assert (decoder.bos_token_id, decoder.eos_token_ids, decoder.pad_token_id) == (1, (2, 7), 0)


GGUF = {
    "general.architecture": "llama",
    "llama.context_length": 128,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.block_count": 2,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": [2, 2],
    "llama.attention.layer_norm_rms_epsilon": 9.999999747378752e-06,
    "llama.vocab_size": 96,
    "tokenizer.ggml.eos_token_id": 2,
}


def test_a_gguf_files_metadata_become_a_config():
    decoder = parse(config_from_gguf(GGUF, {"token_embd.weight"}))
    assert decoder.norm_eps == 1e-5  # not the float32 next to it
    assert (decoder.kv_heads, decoder.head_dim, decoder.vocab, decoder.tied) == (2, 16, 96, True)
    assert (decoder.bos_token_id, decoder.eos_token_ids) == (None, (2,))
    assert not parse(config_from_gguf(GGUF, {"output.weight"})).tied


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"general.architecture": "gemma3"}, "general.architecture='gemma3'"),
        ({"llama.expert_count": 8}, "llama.expert_count=8"),
        ({"llama.attention.head_count_kv": [2, 1]}, r"llama.attention.head_count_kv=\[2, 1\]"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count=8"),
        ({"llama.rope.scaling.type": "longrope"}, "llama.rope.scaling.type='longrope'"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.attn_factor": 2.0}, "attn_factor=2.0"),
    ],
)
def test_gguf_metadata_that_are_unsupported_are_named(changes: dict[str, Any], what: str):
    with pytest.raises(InputError, match=what):
        config_from_gguf(GGUF | changes)
    incomplete = {key: value for key, value in GGUF.items() if key != "llama.block_count"}
    with pytest.raises(InputError, match=r"lacks llama\.block_count"):
        config_from_gguf(incomplete)


@pytest.mark.parametrize("value", [1e-5, 1e-6, 5e-6, 10000.0, 500000.0, 1000000.0, 0.1, 3.14159])
def test_shortest_finds_the_number_that_was_rounded_to_float32(value: float):
    rounded = memoryview(bytearray(4)).cast("f")
    rounded[0] = value
    assert shortest(rounded[0]) == value


def test_reading_a_config_needs_the_standard_library_alone():
    code = (
        "import sys, trtbuild.networks.config.architectures, trtbuild.networks.gguf.config\n"
        "heavy = {'numpy', 'onnx', 'gguf', 'torch', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
