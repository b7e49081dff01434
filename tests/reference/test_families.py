"""Llama, Mistral, Qwen2 and Qwen3 as transformers saves them: our logits and greedy tokens are transformers' own.

Each odd switch of a family is on in one case; further tests say that the switch changes these logits at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compilers.support import make_engine, make_network
from tests.networks.graph_runner import Network, write_network
from tests.reference.families import (
    FAMILIES,
    POSITIONS,
    TOKENS,
    TOLERANCE,
    Fused,
    answer,
    difference,
    reference,
    reference_answer,
    saved,
)
from trtbuild.errors import InputError

pytestmark = pytest.mark.reference

SEEDS = (0, 1, 2)
PREFILL = 40

THETA = 1000.0
LINEAR = {"rope_type": "linear", "rope_theta": THETA, "factor": 3.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": THETA, "factor": 2.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": THETA,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": THETA, "factor": 4.0, "original_max_position_embeddings": 16}
ROPES: dict[str, dict[str, Any]] = {
    "theta": {"rope_type": "default", "rope_theta": 77.0},
    "linear": LINEAR,
    "llama3": LLAMA3,
    "yarn": YARN,
    "yarn-attention-factor": YARN | {"attention_factor": 0.7},
    "yarn-betas": YARN | {"beta_fast": 8.0, "beta_slow": 2.0},
    "yarn-mscale": YARN | {"mscale": 0.8, "mscale_all_dim": 0.5},
    "yarn-one-mscale": YARN | {"mscale": 0.8},
    "yarn-untruncated": YARN | {"truncate": False},
    "yarn-no-factor": {**YARN, "factor": None},
}
SLIDING, FULL = "sliding_attention", "full_attention"


def old_spelling(config: dict[str, Any]) -> dict[str, Any]:
    """As transformers 4.3x wrote it: rope_theta beside rope_scaling, torch_dtype, no head_dim where it is implied."""
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind} | rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.31.0"
    implied = config["head_dim"] * config["num_attention_heads"] == config["hidden_size"]
    if implied and config["model_type"] != "qwen3":  # whose heads are of 128 unless it says otherwise
        del config["head_dim"]
    return config


def half_old_spelling(config: dict[str, Any]) -> dict[str, Any]:
    """As transformers 4.43 to 4.57 wrote it: rope_scaling with `rope_type`, `rope_theta` outside."""
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.45.0"
    return config


def without(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A config.json that leaves these fields to transformers' defaults."""
    return lambda config: {name: value for name, value in config.items() if name not in names}


@dataclass(frozen=True)
class Case:
    architecture: str
    changes: dict[str, Any] = field(default_factory=dict)
    save: dict[str, Any] = field(default_factory=dict)
    plain: dict[str, Any] | None = None  # the same config.json with the switch off gives other logits
    cached: bool = True  # False where transformers' own cache is at odds with its whole forward pass

    def saved(self, folder: Path, seed: int) -> Path:
        return saved(folder, self.architecture, seed, **self.save, **self.changes)


def _common(architecture: str) -> dict[str, Case]:
    """What every family has."""
    default = {"rope_parameters": {"rope_type": "default", "rope_theta": THETA}}
    cases = {
        "plain": Case(architecture, default),
        "tied": Case(architecture, {"tie_word_embeddings": True}),
        "wide-heads": Case(architecture, {"head_dim": 32}),
        "narrow-heads": Case(architecture, {"hidden_size": 128, "head_dim": 16}),
        "one-kv-head": Case(architecture, {"num_key_value_heads": 1}),
        "a-kv-head-each": Case(architecture, {"num_key_value_heads": 4}),
        "epsilon": Case(architecture, {"rms_norm_eps": 0.3}, plain={"rms_norm_eps": 1e-6}),
        "bfloat16": Case(architecture, default, {"dtype": "bfloat16"}),
        "float16": Case(architecture, default, {"dtype": "float16"}),
        "sharded": Case(architecture, default, {"shard": "20KB"}),
        "sharded-tied": Case(architecture, {"tie_word_embeddings": True}, {"shard": "20KB"}),
        "old-default": Case(architecture, default, {"rewrite": old_spelling}),
        "old-linear": Case(architecture, {"rope_parameters": LINEAR}, {"rewrite": old_spelling}),
        "old-llama3": Case(architecture, {"rope_parameters": LLAMA3}, {"rewrite": half_old_spelling}),
        "old-yarn": Case(architecture, {"rope_parameters": YARN}, {"rewrite": half_old_spelling}),
        "no-defaults": Case(
            architecture,
            {"rms_norm_eps": 1e-6, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
            {"rewrite": without("rms_norm_eps", "rope_parameters", "hidden_act", "tie_word_embeddings")},
        ),
    }
    for name, rope in ROPES.items():
        cases[name] = Case(architecture, {"rope_parameters": rope}, plain=default)
    return cases


def _windows(architecture: str) -> dict[str, Case]:
    """The windows of Qwen: of the layers from one on, or listed by layer."""
    window = {"use_sliding_window": True, "sliding_window": 7}
    off = {"layer_types": [FULL] * 2}
    return {
        "window": Case(architecture, window | {"max_window_layers": 0}, plain=off),
        "window-listed": Case(architecture, window | {"layer_types": [SLIDING] * 2}, plain=off),
        "window-unlisted": Case(architecture, window | {"max_window_layers": 0}, {"rewrite": without("layer_types")}),
        "window-on-no-layer": Case(architecture, window | {"max_window_layers": 2}),
        "window-on-no-layer-unlisted": Case(
            architecture, window | {"max_window_layers": 2}, {"rewrite": without("layer_types")}
        ),
        "window-of-no-use": Case(
            architecture,
            {"layer_types": [SLIDING] * 2, "use_sliding_window": False, "max_window_layers": 0},
            {"rewrite": lambda config: config | {"sliding_window": 7, "layer_types": [FULL] * 2}},
        ),
        # transformers 5.17 keeps the last (window - 1) tokens as [-0:], which is all of them.
        "window-of-one": Case(
            architecture, window | {"sliding_window": 1, "max_window_layers": 0}, plain=off, cached=False
        ),
        "window-longer-than-text": Case(architecture, window | {"sliding_window": 100, "max_window_layers": 0}),
    }


BY_FAMILY: dict[str, dict[str, Case]] = {
    "LlamaForCausalLM": {
        "attention-bias": Case("LlamaForCausalLM", {"attention_bias": True}),
        "mlp-bias": Case("LlamaForCausalLM", {"mlp_bias": True}),
        "all-biases": Case("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
        "null-window": Case("LlamaForCausalLM", save={"rewrite": lambda config: config | {"sliding_window": None}}),
        "pretraining-tp": Case("LlamaForCausalLM", {"pretraining_tp": 2}),
        "implied-heads": Case(
            "LlamaForCausalLM",
            {"num_key_value_heads": 4},
            {"rewrite": without("head_dim", "num_key_value_heads")},
        ),
    },
    "MistralForCausalLM": {
        "window": Case("MistralForCausalLM", {"sliding_window": 7}, plain={"sliding_window": None}),
        "implied-window": Case("MistralForCausalLM", {"sliding_window": 4096}, {"rewrite": without("sliding_window")}),
        "window-and-linear": Case(
            "MistralForCausalLM",
            {"sliding_window": 7, "rope_parameters": LINEAR},
            plain={"sliding_window": None},
        ),
        "null-head-dim": Case("MistralForCausalLM", save={"rewrite": lambda config: config | {"head_dim": None}}),
    },
    "Qwen2ForCausalLM": _windows("Qwen2ForCausalLM"),
    "Qwen3ForCausalLM": {
        "attention-bias": Case("Qwen3ForCausalLM", {"attention_bias": True}),
        "implied-head-dim": Case("Qwen3ForCausalLM", {"head_dim": 128}, {"rewrite": without("head_dim")}),
        **_windows("Qwen3ForCausalLM"),
    },
}
CASES = {
    f"{architecture.removesuffix('ForCausalLM').lower()}-{name}": case
    for architecture in FAMILIES
    for name, case in (_common(architecture) | BY_FAMILY[architecture]).items()
}


def files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path):
    for seed in SEEDS:
        root = tmp_path / str(seed)
        folder = CASES[name].saved(root / "hf", seed)
        wanted = reference(folder)
        assert np.abs(wanted).max() > 1
        network = make_network(folder, root / "fused")
        for prefill in (POSITIONS, PREFILL):
            assert difference(Fused(network).logits(prefill), wanted) <= TOLERANCE
        decoder = write_network(files(folder), root / "standard", "standard")
        graph = Network(decoder, root / "standard", "standard")
        steps = [graph.step(TOKENS[None, :PREFILL])[0]]
        steps += [graph.step(TOKENS[None, at : at + 1])[0] for at in range(PREFILL, POSITIONS)]
        assert difference(np.concatenate(steps), wanted) <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_an_engine_answers_as_transformers_does(name: str, tmp_path: Path):
    case = CASES[name]
    folder = case.saved(tmp_path / "hf", 3)
    engine = tmp_path / "engine"
    make_engine(make_network(folder, tmp_path / "network"), engine)
    assert difference(Fused(engine).logits(PREFILL), reference(folder)) <= TOLERANCE
    said = answer(engine, TOKENS[:24], 16)
    assert len(said) == 16
    assert said == reference_answer(folder, TOKENS[:24], 16, cache=case.cached)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.plain is not None])
def test_the_switch_changes_these_logits(name: str, tmp_path: Path):
    """Else the comparison would not see a switch that is passed over."""
    case = CASES[name]
    folder = case.saved(tmp_path / "hf", 0)
    switched = reference(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | (case.plain or {})))
    assert difference(switched, reference(folder)) > 100 * TOLERANCE


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"rope_parameters": DYNAMIC}, id="dynamic"),
        pytest.param({"rope_parameters": DYNAMIC, "max_position_embeddings": 32}, id="dynamic-beyond"),
        pytest.param({"is_causal": False}, id="bidirectional"),
        pytest.param(
            {"layer_types": [FULL, SLIDING], "use_sliding_window": True, "sliding_window": 7},
            id="mixed-windows",
        ),
        pytest.param({"head_dim": 24}, id="odd-heads"),
        pytest.param({"head_dim": 8, "num_attention_heads": 8}, id="tiny-heads"),
        pytest.param({"hidden_act": "gelu"}, id="gelu"),
    ],
)
def test_what_is_hard_is_equal_or_refused(architecture: str, changes: dict[str, Any], tmp_path: Path):
    folder = saved(tmp_path / "hf", architecture, 0, **changes)
    tokens = TOKENS[: changes.get("max_position_embeddings", POSITIONS)]  # what lies beyond, no engine computes
    wanted = reference(folder, tokens)
    try:
        network = make_network(folder, tmp_path / "fused")
    except InputError as refusal:
        assert refusal.option == "model.source"
    else:
        assert difference(Fused(network).step(tokens), wanted) <= TOLERANCE
