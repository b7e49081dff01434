"""Logits against transformers, on tiny random models of every architecture and rotary scaling.

Both sides read the same files. The sequence goes far beyond `original_max_position_embeddings`, where scaled
frequencies matter, and is fed as a prefill followed by single steps with a cache.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.networks.graph_runner import Network, write_network
from tests.networks.tiny_models import LINEAR, LLAMA3, YARN, config, save, save_gguf, weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.reference

TOKENS = np.random.default_rng(5).integers(0, 96, 100)
PREFILL = 88
TOLERANCE = 2e-4


def old_spelling(rope: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A config as transformers 4 wrote it: `rope_theta` beside `rope_scaling`, whose kind may be `type`."""
    settings = config(**changes)
    del settings["rope_parameters"]
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "rope_type")}
    return settings | {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": scaling | {"type": rope["rope_type"]},
    }


ROPES = {
    "linear": LINEAR,
    "llama3": LLAMA3,
    "yarn": YARN,
    "yarn-factor": YARN | {"attention_factor": 0.7, "beta_fast": 8.0, "beta_slow": 2.0},
    "yarn-mscale": YARN | {"mscale": 0.8, "mscale_all_dim": 0.5},
    "yarn-untruncated": YARN | {"truncate": False},
}
CASES = {
    **{
        f"{architecture}-{name}": config(architecture, rope_parameters=rope)
        for architecture in ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
        for name, rope in {"default": config()["rope_parameters"], **ROPES}.items()
    },
    "llama-old-linear": old_spelling(LINEAR),
    "llama-old-llama3": old_spelling(LLAMA3),
    "llama-old-yarn": old_spelling(YARN),
    "llama-old-default": {k: v for k, v in config(rope_theta=500.0).items() if k != "rope_parameters"},
    "llama-no-rope-fields": {k: v for k, v in config().items() if k != "rope_parameters"},
    "llama-tied": config(tie_word_embeddings=True),
    "llama-attention-bias": config(attention_bias=True),
    "llama-all-biases": config(attention_bias=True, mlp_bias=True),
    "llama-single-key": config(num_key_value_heads=1),
    "llama-wide-heads": config(head_dim=48),
    "llama-implied-heads": {k: v for k, v in config().items() if k not in ("head_dim", "num_key_value_heads")},
    "mistral-window": config("MistralForCausalLM", sliding_window=7),
    "mistral-implied-window": {k: v for k, v in config("MistralForCausalLM").items() if k != "sliding_window"},
    "mistral-null-head-size": config("MistralForCausalLM", head_dim=None),
    "qwen2-null-key-heads": config("Qwen2ForCausalLM", num_key_value_heads=None),
    "qwen2-tied": config("Qwen2ForCausalLM", tie_word_embeddings=True),
    "qwen2-unused-window": config("Qwen2ForCausalLM", sliding_window=7, use_sliding_window=False),
    "qwen2-window": config("Qwen2ForCausalLM", sliding_window=7, use_sliding_window=True, max_window_layers=0),
    "qwen2-window-on-no-layer": config(
        "Qwen2ForCausalLM", sliding_window=7, use_sliding_window=True, max_window_layers=2
    ),
    "qwen3-bias": config("Qwen3ForCausalLM", attention_bias=True),
    "qwen3-tied-wide-heads": config("Qwen3ForCausalLM", head_dim=32, tie_word_embeddings=True),
    "qwen3-window": config(
        "Qwen3ForCausalLM", use_sliding_window=True, sliding_window=9, layer_types=["sliding_attention"] * 2
    ),
}


def reference(folder: Path) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS[None])).logits[0].numpy()


def emitted(files: dict[str, Path], folder: Path, operators: str) -> np.ndarray:
    network = Network(write_network(files, folder, operators), folder, operators)
    steps = [network.step(TOKENS[None, :PREFILL])[0]]
    steps += [network.step(TOKENS[None, at : at + 1])[0] for at in range(PREFILL, len(TOKENS))]
    return np.concatenate(steps)


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_transformers(name: str, tmp_path: Path):
    files = save(tmp_path / "hf", CASES[name], weights(CASES[name]))
    wanted = reference(tmp_path / "hf")
    assert np.abs(wanted).max() > 1
    for operators in ("fused", "standard"):
        found = emitted(files, tmp_path / operators, operators)
        assert np.abs(found - wanted).max() <= TOLERANCE, operators


@pytest.mark.parametrize("rope", ["linear", "yarn", "llama3"])
def test_scaling_changes_the_logits_of_this_sequence(rope: str, tmp_path: Path):
    """Else the comparison above would not see a scaling that was left out."""
    tensors = weights(config())
    save(tmp_path / "scaled", config(rope_parameters=ROPES[rope]), tensors)
    save(tmp_path / "plain", config(), tensors)
    assert np.abs(reference(tmp_path / "scaled") - reference(tmp_path / "plain")).max() > 100 * TOLERANCE


def llama_cpp_factors(rope: dict[str, Any], dim: int) -> np.ndarray:
    """rope_freqs.weight as llama.cpp's converter writes it: what each frequency is divided by."""
    factors = []
    for i in range(0, dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / dim)
        context, low, high = (
            rope[k] for k in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
        )
        smooth = min(max((context / wavelength - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


YARN_KEYS = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 16,
}
GGUF_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama": (config(), {}),
    "llama-tied": (config(tie_word_embeddings=True), {}),
    "llama-linear": (
        config(rope_parameters=LINEAR),
        {"extra": {"rope.scaling.type": "linear", "rope.scaling.factor": 3.0}},
    ),
    "llama-yarn": (config(rope_parameters=YARN), {"extra": YARN_KEYS}),
    "llama-llama3": (config(rope_parameters=LLAMA3), {"rope_factors": llama_cpp_factors(LLAMA3, 16)}),
    "mistral": (config("MistralForCausalLM"), {}),
    "qwen2": (config("Qwen2ForCausalLM", tie_word_embeddings=True), {}),
    "qwen2-yarn": (config("Qwen2ForCausalLM", rope_parameters=YARN), {"extra": YARN_KEYS}),
    "qwen3": (config("Qwen3ForCausalLM", head_dim=32), {}),
}


@pytest.mark.parametrize("name", GGUF_CASES)
def test_a_gguf_file_computes_what_transformers_computes_from_its_origin(name: str, tmp_path: Path):
    settings, stored = GGUF_CASES[name]
    tensors = weights(settings)
    save(tmp_path / "hf", settings, tensors)
    wanted = reference(tmp_path / "hf")
    files = save_gguf(tmp_path / "model.gguf", settings, tensors, **stored)
    for operators in ("fused", "standard"):
        found = emitted(files, tmp_path / operators, operators)
        assert np.abs(found - wanted).max() <= TOLERANCE, operators
