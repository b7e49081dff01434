"""GGUF files of the four families compute what transformers computes from the checkpoint that they were made of."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.networks.graph_runner import write_network
from tests.networks.tiny_models import save_gguf
from tests.reference.families import FAMILIES, POSITIONS, TOLERANCE, Fused, difference, reference, saved

pytestmark = pytest.mark.reference

SEEDS = (0, 1, 2)
THETA = 1000.0
YARN = {"rope_type": "yarn", "rope_theta": THETA, "factor": 4.0, "original_max_position_embeddings": 16}
YARN_KEYS = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": THETA, "factor": 3.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": THETA,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def rope_factors(rope: dict[str, Any], dim: int) -> np.ndarray:
    """rope_freqs.weight, what each frequency is divided by, as llama.cpp's convert_hf_to_gguf.py reckons it."""
    context, low, high = (
        rope[key] for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    factors = []
    for at in range(0, dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (at / dim)
        smooth = min(max((context / wavelength - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


# name -> (fields of the config class, what save_gguf is told beside)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "tied": ({"tie_word_embeddings": True}, {}),
    "wide-heads": ({"head_dim": 32}, {}),
    "one-kv-head": ({"num_key_value_heads": 1}, {}),
    "theta": ({"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}}, {}),
    "linear": (
        {"rope_parameters": LINEAR},
        {"extra": {"rope.scaling.type": "linear", "rope.scaling.factor": 3.0}},
    ),
    "old-linear": ({"rope_parameters": LINEAR}, {"extra": {"rope.scale_linear": 3.0}}),
    "yarn": ({"rope_parameters": YARN}, {"extra": YARN_KEYS}),
}
PER_FAMILY: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "LlamaForCausalLM": {
        "biases": ({"attention_bias": True, "mlp_bias": True}, {}),
        "llama3": ({"rope_parameters": LLAMA3}, {"rope_factors": rope_factors(LLAMA3, 16)}),
    },
}
ALL = [
    pytest.param(architecture, *case, id=f"{architecture.removesuffix('ForCausalLM').lower()}-{name}")
    for architecture in FAMILIES
    for name, case in (CASES | PER_FAMILY.get(architecture, {})).items()
]


def checkpoint(folder: Path, architecture: str, seed: int, changes: dict[str, Any]) -> tuple[Path, Any, Any]:
    """A folder that transformers saved, its config and its tensors."""
    default = {"rope_parameters": {"rope_type": "default", "rope_theta": THETA}}
    saved(folder, architecture, seed, **(default | changes))
    return folder, json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


@pytest.mark.parametrize("architecture, changes, stored", ALL)
def test_logits_of_a_gguf_file_are_those_of_transformers(
    architecture: str, changes: dict[str, Any], stored: dict[str, Any], tmp_path: Path
):
    for seed in SEEDS:
        root = tmp_path / str(seed)
        folder, config, tensors = checkpoint(root / "hf", architecture, seed, changes)
        files = save_gguf(root / "model.gguf", config, tensors, **stored)
        write_network(files, root / "network", "fused")
        found = Fused(root / "network").logits(POSITIONS // 2)
        assert difference(found, reference(folder)) <= TOLERANCE


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_quantized_gguf_weights_count_as_what_they_stand_for(architecture: str, kind: str, tmp_path: Path):
    """transformers, given the very values that the file's blocks stand for, computes the same."""
    folder, config, tensors = checkpoint(tmp_path / "hf", architecture, 0, {})
    files = save_gguf(tmp_path / "model.gguf", config, tensors, kind)
    write_network(files, tmp_path / "network", "fused")
    found = Fused(tmp_path / "network").logits(POSITIONS // 2)
    exact = reference(folder)
    stood_for = shutil.copytree(folder, tmp_path / "dequantized")
    save_file(dequantized(tensors, kind), stood_for / "model.safetensors", {"format": "pt"})
    assert difference(found, reference(stood_for)) <= TOLERANCE
    assert difference(found, exact) > TOLERANCE  # else the test would not see which values were taken


def dequantized(tensors: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """What is left of the matrices once stored as `kind`; llama.cpp's order of rows does not matter to a block."""
    quantized = gguf.GGMLQuantizationType[kind]
    return {
        name: gguf.quants.dequantize(gguf.quants.quantize(values, quantized), quantized).reshape(values.shape)
        if values.ndim == 2
        else values
        for name, values in tensors.items()
    }
