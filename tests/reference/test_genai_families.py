"""Each family that goes to onnxruntime-genai's builder: a tiny model of it has the logits of transformers."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.compilers.support import make_engine
from tests.reference.genai_models import (
    Running,
    build,
    builder,
    change,
    difference,
    engine_of,
    save,
    wanted,
)
from tests.support import tiny
from trtbuild.compilers.onnxruntime.runtime import Engine, Sampling, generate_text
from trtbuild.errors import InputError
from trtbuild.networks.genai import builder as genai_builder
from trtbuild.networks.genai import families

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.reference, pytest.mark.xdist_group("genai-families")]

TOLERANCE = 1e-4  # of the largest logit
TOKENS = np.random.default_rng(1).integers(0, 256, 120).tolist()

GEMMA2 = {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 32, "num_hidden_layers": 3}
GRANITE = {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22}
GRANITE |= {"attention_multiplier": 0.1}
HYBRID = GRANITE | {"layer_types": ["attention"] * 2, "shared_intermediate_size": 96, "num_local_experts": 0}
ROPE_HYBRID = HYBRID | {"position_embedding_type": "rope"}
GPT_OSS = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16, "head_dim": 64}
MIXED = {"layer_types": ["conv", "full_attention"]}
LFM2_MOE = MIXED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LFM2_MOE |= {"num_dense_layers": 1}
ROPE = {"rope_theta": 10000.0}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.1 + 0.01 * i for i in range(16)],
    "long_factor": [2 + 0.1 * i for i in range(16)],
    **ROPE,
}
PHI4 = LONG | {"partial_rotary_factor": 0.5}
PHI4 |= {"short_factor": LONG["short_factor"][:8], "long_factor": LONG["long_factor"][:8]}
LONGER = {"original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    **ROPE,
    **LONGER,
}
YARN = {"rope_type": "yarn", "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0, "rope_theta": 150000.0}
YARN |= {"original_max_position_embeddings": 4096}
WINDOW = {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 0}

# The epsilon of norms is large: one that is passed over would show.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ernie": ("Ernie4_5", {"head_dim": 16, "rms_norm_eps": 1e-3}),
    "ernie with biases, untied": (
        "Ernie4_5",
        {"head_dim": 32, "use_bias": True, "tie_word_embeddings": False},
    ),
    "gemma": ("Gemma", {"head_dim": 16, "num_key_value_heads": 1, "rms_norm_eps": 1e-3}),
    "gemma with gelu and biases": ("Gemma", {"head_dim": 16, "hidden_act": "gelu", "attention_bias": True}),
    "gemma 2": ("Gemma2", GEMMA2 | {"attn_logit_softcapping": 1.0, "final_logit_softcapping": 5.0}),
    "gemma 2 without caps, untied": (
        "Gemma2",
        GEMMA2 | {"attn_logit_softcapping": None, "final_logit_softcapping": None, "tie_word_embeddings": False},
    ),
    "gpt-oss": ("GptOss", GPT_OSS | {"rms_norm_eps": 1e-3}),
    "gpt-oss with yarn": (
        "GptOss",
        GPT_OSS | {"rope_parameters": YARN | {"truncate": False}, "num_experts_per_tok": 3},
    ),
    "granite": ("Granite", GRANITE | {"rms_norm_eps": 1e-3}),
    "granite with biases, tied": (
        "Granite",
        GRANITE | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "granite 4": ("GraniteMoeHybrid", ROPE_HYBRID | {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
    "hunyuan": ("HunYuanDenseV1", {"head_dim": 24, "rms_norm_eps": 1e-3}),
    "hunyuan, dynamic": (
        "HunYuanDenseV1",
        {"head_dim": 32, "attention_bias": True, "tie_word_embeddings": True}
        | {"rope_parameters": {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0, **ROPE}},
    ),
    "lfm2": ("Lfm2", MIXED | {"norm_eps": 1e-3}),
    "lfm2 with a longer convolution": ("Lfm2", MIXED | {"conv_L_cache": 4, "tie_word_embeddings": False}),
    "lfm2 moe": ("Lfm2Moe", LFM2_MOE | {"norm_eps": 1e-3}),
    "lfm2 moe, scaled, without expert biases": (
        "Lfm2Moe",
        LFM2_MOE | {"routed_scaling_factor": 2.5, "use_expert_bias": False},
    ),
    "llama": ("Llama", {"rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True}),
    "mistral with a window": ("Mistral", {"sliding_window": 16, "head_dim": 16}),
    "nemotron": ("Nemotron", {"norm_eps": 1e-3, "attention_bias": True}),
    "nemotron, tied": ("Nemotron", {"tie_word_embeddings": True}),
    "phi": ("Phi", {"layer_norm_eps": 1e-3, "num_key_value_heads": 4}),
    "phi with groups, tied": ("Phi", {"hidden_act": "gelu", "tie_word_embeddings": True}),
    "phi 3": ("Phi3", {"rms_norm_eps": 1e-3}),
    "phi 3 with a window": ("Phi3", {"sliding_window": 16}),
    "phi 3 with a part rotated": (
        "Phi3",
        {"tie_word_embeddings": True, "rope_parameters": {"partial_rotary_factor": 0.5, **ROPE}},
    ),
    "phi 3 with longrope": ("Phi3", LONGER | {"rope_parameters": LONG}),
    "phi 4 mini": ("Phi3", LONGER | {"rope_parameters": PHI4, "tie_word_embeddings": True}),
    "qwen 2 with a window": ("Qwen2", WINDOW),
    "qwen 3": ("Qwen3", {"head_dim": 16, "attention_bias": True, "rms_norm_eps": 1e-3}),
}

# What the list's conditions refuse, and what the builder makes of it: other logits, or an error.
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gemma 3": ("Gemma3", {"head_dim": 16}, "KeyError: 'rope_type'"),
    "olmo": ("Olmo", {}, ""),
    "smollm 3": ("SmolLM3", {"num_hidden_layers": 4}, "KeyError: 'position_ids'"),
    "a limit of gpt-oss": ("GptOss", GPT_OSS | {"swiglu_limit": 0.5}, ""),
    "other windows of gpt-oss": (
        "GptOss",
        GPT_OSS | {"layer_types": ["full_attention", "sliding_attention"]},
        "",
    ),
    "yarn of whole dimensions": ("GptOss", GPT_OSS | {"rope_parameters": YARN | {"truncate": True}}, ""),
    "gpt-oss without yarn": (
        "GptOss",
        GPT_OSS | {"rope_parameters": {"rope_type": "default", **ROPE}},
        "KeyError: 'rescale_inv_freq'",
    ),
    "granite 4 without positions": ("GraniteMoeHybrid", HYBRID, ""),
    "granite 4 with experts": ("GraniteMoeHybrid", ROPE_HYBRID | {"num_local_experts": 4}, ""),
    "biases of lfm2": ("Lfm2", MIXED | {"conv_bias": True}, ""),
    "biases of nemotron": ("Nemotron", {"mlp_bias": True}, ""),
    "norms of phi": ("Phi", {"qk_layernorm": True}, ""),
    "llama with linear rope": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, **ROPE}},
        "",
    ),
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[genai_builder.Start]:
    with builder(tmp_path_factory.mktemp("builder")) as starts:
        yield starts


@pytest.mark.parametrize("name", CASES)
def test_its_logits_are_those_of_transformers(name: str, start: genai_builder.Start, tmp_path: Path) -> None:
    family, switches = CASES[name]
    model = save(f"{family}ForCausalLM", tmp_path / "model", **switches)
    engine = engine_of(model, tmp_path, start)
    ids = TOKENS[:48]
    expected = wanted(model, ids)
    assert difference(engine, ids, expected, 24) < TOLERANCE
    spoken = generate_text(Engine.load(engine), ids, 4, Sampling(), lambda _: None)
    assert spoken.tokens[0] == expected[-1].argmax()


def test_every_family_on_the_list_has_a_tiny_model() -> None:
    assert {f"{family}ForCausalLM" for family, _ in CASES.values()} == set(families.PROVEN)


def test_the_builders_other_architectures_are_refused_by_name() -> None:
    """The builder's source is read, and it is not imported."""
    distribution = importlib.metadata.distribution("onnxruntime-genai")
    source = Path(str(distribution.locate_file("onnxruntime_genai/models/builder.py"))).read_text("utf-8")
    known = set(re.findall(r'config\.architectures\[0\] == "(\w+)"', source))
    assert known == set(families.PROVEN) | set(families.REFUSED)
    assert not set(families.PROVEN) & set(families.REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_wrong(name: str, start: genai_builder.Start, tmp_path: Path) -> None:
    """A refusal that the locked builder no longer needs would be one too many."""
    family, switches, failure = REFUSED[name]
    model = save(f"{family}ForCausalLM", tmp_path / "model", **switches)
    config = json.loads((model / "config.json").read_text())
    assert families.refusal(config)
    shown = (
        change(model, **families.PROVEN[f"{family}ForCausalLM"].given(config))
        if family
        in (
            "Nemotron",
            "Phi",
        )
        else model
    )
    network = tmp_path / "network"
    arguments = [
        "-i",
        str(shown),
        "-o",
        str(network),
        "-p",
        "fp32",
        "-e",
        "cpu",
        "-c",
        str(tmp_path / "cache"),
    ]
    code, output = start([*arguments, "--extra_options", "windowed_kv_cache=false"], tmp_path)
    if failure:
        assert code
        assert genai_builder.headline(output.splitlines()) == failure
        return
    make_engine(network, tmp_path / "engine")
    assert difference(tmp_path / "engine", TOKENS[:48], wanted(model, TOKENS[:48]), 24) > 10 * TOLERANCE


@pytest.fixture(scope="module")
def longrope(start: genai_builder.Start, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Phi-3 with two sets of factors, and its network: the tables of both lie in the branches of an If."""
    folder = tmp_path_factory.mktemp("longrope")
    model = save("Phi3ForCausalLM", folder / "model", rope_parameters=LONG, **LONGER)
    build(model, folder / "network", start)
    return model, folder / "network"


@pytest.mark.parametrize("optimization", ["none", "all"])
@pytest.mark.parametrize("length", [64, 65, 120])
def test_longrope_reads_a_prompt_below_and_above_its_length(
    length: int, optimization: str, longrope: tuple[Path, Path], tmp_path: Path
) -> None:
    make_engine(longrope[1], tmp_path / "engine", compiler__optimization=optimization)
    expected = wanted(longrope[0], TOKENS[:length])
    got = Running(tmp_path / "engine").logits(TOKENS[:length])
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_longrope_keeps_its_tables_when_quantized(weights: str, longrope: tuple[Path, Path], tmp_path: Path) -> None:
    make_engine(longrope[1], tmp_path / "engine", quant__weights=weights)
    expected = wanted(longrope[0], TOKENS)
    got = Running(tmp_path / "engine").logits(TOKENS)
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > (0.99 if weights == "int8" else 0.8)


def test_longrope_holds_no_more_than_it_gets_right(longrope: tuple[Path, Path], tmp_path: Path) -> None:
    """Beyond, keys that are kept would have the rotation of the short factors, and transformers reads them anew."""
    make_engine(longrope[1], tmp_path / "engine")
    assert Engine.load(tmp_path / "engine").context == 64


def test_longrope_grows_beyond_4096_as_in_transformers(start: genai_builder.Start, tmp_path: Path) -> None:
    """onnxruntime-genai reads the sequence anew there, for the length that all of Phi-3's have."""
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 1, "max_position_embeddings": 8192}
    model = save("Phi3ForCausalLM", tmp_path / "model", rope_parameters=LONG, **sizes)
    change(model, eos_token_id=258)
    (model / "generation_config.json").unlink()
    engine = Engine.load(engine_of(model, tmp_path, start))
    assert engine.context == 8192
    ids = np.random.default_rng(2).integers(0, 256, 4094).tolist()
    spoken = generate_text(engine, ids, 5, Sampling(), lambda _: None)
    sequence = [*ids, *spoken.tokens]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    for end in range(len(ids), len(sequence)):
        with torch.no_grad():
            expected = loaded(torch.tensor([sequence[:end]]), logits_to_keep=1).logits[0, -1]
        assert sequence[end] == int(expected.argmax()), end


def test_an_answer_may_be_shorter_than_the_window(start: genai_builder.Start, tmp_path: Path) -> None:
    model = save("Gemma2ForCausalLM", tmp_path / "model", **(GEMMA2 | {"sliding_window": 128}))
    engine = Engine.load(engine_of(model, tmp_path, start))
    assert len(generate_text(engine, TOKENS[:8], 4, Sampling(), lambda _: None).tokens) == 4


def test_both_spellings_of_longrope_build(start: genai_builder.Start, tmp_path: Path) -> None:
    model = save("Phi3ForCausalLM", tmp_path / "model", rope_parameters=LONG, **LONGER)
    factors = {name: LONG[name] for name in ("short_factor", "long_factor")}
    expected = wanted(model, TOKENS[:48])
    change(model, rope_parameters=None, rope_theta=10000.0, rope_scaling={"type": "su", **factors})
    engine = engine_of(model, tmp_path, start)
    assert difference(engine, TOKENS[:48], expected, 24) < TOLERANCE
    assert (engine / "config.json").read_bytes() == (model / "config.json").read_bytes()


def test_a_tensor_that_is_missing_is_named(start: genai_builder.Start, tmp_path: Path) -> None:
    """transformers would fill it with random numbers, and the builder would write those."""
    model = save("GraniteForCausalLM", tmp_path / "model", **GRANITE)
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks the tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        build(model, tmp_path / "network", start)


def test_the_end_of_an_answer_is_the_models(start: genai_builder.Start, tmp_path: Path) -> None:
    model = save("GraniteForCausalLM", tmp_path / "model", **GRANITE)
    facts = build(model, tmp_path / "network", start)
    settings = json.loads((tmp_path / "network" / "genai_config.json").read_text())
    assert settings["model"]["eos_token_id"] == tiny.EOS
    assert set(facts["builder"]) == {"onnxruntime-genai", "transformers", "torch", "onnx-ir"}
    assert "GraniteForCausalLM" in facts["proof"]
