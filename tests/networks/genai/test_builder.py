"""Which models go to onnxruntime-genai's builder, and what is said when it fails: without running it."""

from __future__ import annotations

from typing import Any

import pytest

from trtbuild.errors import InputError
from trtbuild.networks.genai import families
from trtbuild.networks.genai.builder import headline
from trtbuild.networks.genai.families import PROVEN, REFUSED

SIZES = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
SIZES |= {"num_hidden_layers": 2, "vocab_size": 300, "max_position_embeddings": 256}
LONGROPE = {"type": "longrope", "short_factor": [1.1] * 8, "long_factor": [2.0] * 8}


def config(family: str, **fields: Any) -> dict[str, Any]:
    architecture = f"{family}ForCausalLM"
    kind = PROVEN[architecture].model_type
    return {"architectures": [architecture], "model_type": kind, **SIZES, "head_dim": 32, **fields}


HYBRID = {"layer_types": ["attention"] * 2, "num_local_experts": 0, "position_embedding_type": "rope"}


@pytest.mark.parametrize("architecture", PROVEN)
def test_a_plain_model_of_each_family_is_taken(architecture: str) -> None:
    family = architecture.removesuffix("ForCausalLM")
    needed = HYBRID if family == "GraniteMoeHybrid" else {}
    assert families.refusal(config(family, **needed)) is None


@pytest.mark.parametrize(
    ("family", "fields", "reason"),
    [
        ("Phi", {"qk_layernorm": True}, "qk_layernorm=True"),
        ("Phi", {"head_dim": 16}, "16 and 8"),
        ("Nemotron", {"mlp_bias": True}, "mlp_bias=True"),
        ("Lfm2", {"conv_bias": True}, "conv_bias=True"),
        ("Lfm2Moe", {"norm_topk_prob": False}, "norm_topk_prob=False"),
        ("GptOss", {"swiglu_limit": 1.0}, "swiglu_limit=1.0"),
        ("GptOss", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("GptOss", {"rope_scaling": {"rope_type": "yarn", "factor": 32.0}}, "truncate"),
        ("GptOss", {"quantization_config": {"quant_method": "mxfp4"}}, "quantized already"),
        ("GraniteMoeHybrid", HYBRID | {"layer_types": ["mamba", "attention"]}, "Mamba"),
        ("GraniteMoeHybrid", HYBRID | {"num_local_experts": 8}, "experts"),
        ("GraniteMoeHybrid", HYBRID | {"position_embedding_type": None}, "position_embedding_type"),
        ("Granite", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ("Granite", {"model_type": "llama"}, "another family's"),
        ("Granite", {"is_causal": False}, "is_causal=False"),
        ("Granite", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        ("Granite", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ("Gemma", {"hidden_act": "silu"}, "'silu'"),
        ("Gemma", {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}, "transformers takes"),
        ("Gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ("HunYuanDenseV1", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "alpha"),
        ("Phi3", {"rope_scaling": LONGROPE}, "below max_position_embeddings"),
        (
            "Phi3",
            {"original_max_position_embeddings": 64, "rope_scaling": LONGROPE | {"factor": 2}},
            "factor=2",
        ),
        (
            "Phi3",
            {"original_max_position_embeddings": 64, "rope_scaling": LONGROPE | {"long_mscale": 1.2}},
            "long_mscale=1.2",
        ),
        ("Ernie4_5", {"compression_ratio": 2.0}, "compression_ratio=2.0"),
    ],
)
def test_what_it_gets_wrong_is_refused_with_the_reason(family: str, fields: dict[str, Any], reason: str) -> None:
    assert reason in (families.refusal(config(family, **fields)) or "")


def test_what_our_own_definition_refuses_the_builder_is_not_asked() -> None:
    with pytest.raises(InputError, match="short_factor"):
        families.check(config("Llama", original_max_position_embeddings=64, rope_scaling=LONGROPE))


@pytest.mark.parametrize(("architecture", "reason"), [*REFUSED.items(), ("OPTForCausalLM", "lacks this")])
def test_other_architectures_are_refused_by_name(architecture: str, reason: str) -> None:
    with pytest.raises(InputError, match=architecture) as caught:
        families.check({"architectures": [architecture]})
    assert reason in caught.value.message
    assert "Gemma2ForCausalLM" in (caught.value.hint or "")


@pytest.mark.parametrize(("original", "longest"), [(64, 64), (4096, None)])
def test_longrope_is_right_up_to_its_length_or_where_it_is_read_anew(original: int, longest: int | None) -> None:
    positions = {"original_max_position_embeddings": original, "max_position_embeddings": 131072}
    assert families.longest(config("Phi3", **positions, rope_scaling=LONGROPE)) == longest
    assert families.longest(config("Phi3", **positions)) is None


TRACEBACK = """WARNING: This model loses accuracy with float16 precision.
Traceback (most recent call last):
  File "builder.py", line 10, in <module>
    raise KeyError("x") from None
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "base.py", line 3, in make
    rope["rope_type"]
KeyError: 'rope_type'
"""


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (TRACEBACK, "KeyError: 'rope_type'"),
        (TRACEBACK + "Loading weights: 100%|####|\nWARNING: odd\n", "KeyError: 'rope_type'"),
        ("Traceback (most recent call last):\n  File\nAssertionError\n", "AssertionError"),
        (
            "Traceback (most recent call last):\n  File\na.b_c.OddError: it: is\nsecond\n",
            "a.b_c.OddError: it: is",
        ),
        ("Killed\n", "Killed"),
        ("", None),
    ],
)
def test_a_failure_is_told_by_the_exception(output: str, line: str | None) -> None:
    assert headline([each for each in output.splitlines() if each.strip()]) == line
