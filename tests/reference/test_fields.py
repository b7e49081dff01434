"""Fields of config.json beside transformers: every one that it knows is in a list, and each value gives its logits.

Where a value is not refused, the network computes what transformers computes from the same files, at each of 48
positions. Where transformers does not load a config, neither do we.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.networks.graph_runner import Network, write_network
from tests.networks.tiny_models import ARCHITECTURES, LINEAR, LLAMA3, YARN, config, save, save_gguf, weights
from trtbuild.errors import InputError
from trtbuild.networks.config.audit import kind_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.reference

TOKENS = np.random.default_rng(5).integers(0, 96, (1, 48))
TOLERANCE = 1e-4  # of the largest logit
CLASSES = {
    "llama": transformers.LlamaConfig,
    "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
}
PACKAGE = Path(transformers.__file__).parent


@pytest.mark.parametrize("model_type", CLASSES)
def test_every_field_of_a_config_class_is_in_a_list(model_type: str):
    owner = CLASSES[model_type]
    known = set(owner().to_dict()) | {field.name for field in fields(owner)}
    for each in owner.__mro__:
        annotations = getattr(each, "__annotations__", {}).items()
        known |= {name for name, kind in annotations if "ClassVar" not in str(kind)}
    known |= {"rope_scaling", "rope_theta", "torch_dtype", "partial_rotary_factor", "per_layer_config"}
    assert len(known) > 30
    assert sorted(name for name in known if kind_of(name, model_type) == "unknown") == []


@pytest.mark.parametrize("model_type", CLASSES)
def test_every_field_that_the_code_reads_is_in_a_list(model_type: str):
    files = [f"models/{model_type}/modeling_{model_type}.py", "modeling_rope_utils.py", "masking_utils.py"]
    text = "".join((PACKAGE / file).read_text() for file in files)
    layers = (PACKAGE / "cache_utils.py").read_text()
    text += layers[layers.index("def get_layer_types_and_kwargs") : layers.index("class DynamicCache")]
    read = set(re.findall(r"(?<!generation_)config\.([a-z_]+)\b(?!\()", text))
    read |= set(re.findall(r"getattr\(\s*(?:self\.)?(?:\w+_)?config,\s*\"(\w+)\"", text))
    others = {"json", "index_", "number_of_conv_states"}  # a file's name, and fields of other layers
    assert {"is_causal", "sliding_window", "attention_chunk_size", "num_kv_shared_layers"} <= read
    assert sorted(name for name in read - others if kind_of(name, model_type) == "unknown") == []


def test_what_transformers_takes_for_generation_is_neutral():
    names = transformers.GenerationConfig._get_default_generation_params()
    assert len(names) > 20
    assert {kind_of(name, "llama") for name in names} == {"neutral"}


def reference(folder: Path) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS)).logits[0].numpy()


def compare(files: dict[str, Path], folder: Path) -> None:
    """Raises InputError where the checkpoint is refused, whatever transformers makes of it."""
    network = Network(write_network(files, folder / "network", "fused"), folder / "network", "fused")
    found, wanted = network.step(TOKENS)[0], reference(folder)
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()


def without(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in names}


LONGROPE = {"rope_type": "longrope", "short_factor": [1.5] * 8, "long_factor": [2.0] * 8}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 4.0}
QWEN_WINDOW = {"use_sliding_window": True, "sliding_window": 7}
#: Configs that must be taken, and give transformers' logits.
TAKEN: dict[str, dict[str, Any]] = {
    "causal": config(is_causal=True),
    "swish": config(hidden_act="swish"),
    "no-epsilon": config(rms_norm_eps=0.0),
    "null-head-size": config(head_dim=None),
    "null-key-heads": config(num_key_value_heads=None),
    "negative-pad": config(pad_token_id=-1),
    "null-ids": config(bos_token_id=None, eos_token_id=None),
    "no-architectures": without(config(), "architectures"),
    "defaults": without(config(), "tie_word_embeddings", "rope_parameters", "rms_norm_eps", "hidden_act"),
    "neutral-multipliers": config(embedding_multiplier=1.0, residual_multiplier=1, attention_multiplier=0.25),
    "no-caps": config(attn_logit_softcapping=None, final_logit_softcapping=None),
    "all-rotated": config(no_rope_layers=[1, 1], partial_rotary_factor=1.0),
    "spanning-window": config(sliding_window=128),
    "full-layers": config(layer_types=["full_attention"] * 2),
    "sampling": config(temperature=0.2, repetition_penalty=1.5, use_cache=False, torch_dtype="bfloat16"),
    "custom-code": config(auto_map={"AutoModelForCausalLM": "modeling_x.XForCausalLM"}),
    "unknown": config(wibble=3),
    "dynamic": config(rope_parameters=DYNAMIC, max_position_embeddings=48),
    "dynamic-original": config(rope_parameters={**DYNAMIC, "original_max_position_embeddings": 16}),
    "dynamic-uneven": config(rope_parameters={**DYNAMIC, "factor": 8.3}, max_position_embeddings=49),
    "longrope-short": config(rope_parameters=LONGROPE, max_position_embeddings=48),
    "longrope-short-outside": config(rope_parameters=LONGROPE, original_max_position_embeddings=200),
    "longrope-one-factor": config(
        rope_parameters={**LONGROPE, "long_factor": [1.5] * 8, "original_max_position_embeddings": 16}
    ),
    "yarn-null-factor": config(rope_parameters={**YARN, "factor": None}),
    "yarn-null-truncate": config(rope_parameters={**YARN, "truncate": None}),
    "yarn-no-mscale": config(rope_parameters={**YARN, "mscale": 0, "mscale_all_dim": 0.5}),
    "yarn-float-original": config(rope_parameters={**YARN, "original_max_position_embeddings": 16.0}),
    "yarn-outer-original": config(rope_parameters=YARN, original_max_position_embeddings=32),
    "yarn-no-original": config(rope_parameters=without(YARN, "original_max_position_embeddings")),
    "yarn-both-types": config(rope_parameters={**YARN, "type": "yarn"}),
    "yarn-finetuned": config(rope_parameters={**YARN, "finetuned": True}),
    "linear-shrinking": config(rope_parameters={**LINEAR, "factor": 0.5}),
    "both-sections": config(rope_theta=1000.0, rope_scaling=without(LINEAR, "rope_theta"), rope_parameters=LINEAR),
    "theta-outside": without(config(rope_theta=500), "rope_parameters"),
    "theta-inside-and-outside": config(rope_theta=1000.0),
    "llama3-no-original": config(rope_parameters=without(LLAMA3, "original_max_position_embeddings")),
    "mistral-window": config("MistralForCausalLM", sliding_window=7),
    "mistral-window-everywhere": config("MistralForCausalLM", sliding_window=7, layer_types=["sliding_attention"] * 2),
    "mistral-window-nowhere": config("MistralForCausalLM", sliding_window=7, layer_types=["full_attention"] * 2),
    "mistral-spanning-window": config("MistralForCausalLM", sliding_window=128),
    "qwen2-bias-named": config("Qwen2ForCausalLM", attention_bias=True),
    "qwen2-head-size": config("Qwen2ForCausalLM", head_dim=32),
    "qwen2-window-of-some": config("Qwen2ForCausalLM", **QWEN_WINDOW, max_window_layers=-1),
    "qwen2-default-window": without(
        config("Qwen2ForCausalLM", use_sliding_window=True, max_window_layers=0), "sliding_window"
    ),
    "qwen2-mixed-spanning-window": config(
        "Qwen2ForCausalLM",
        use_sliding_window=True,
        sliding_window=128,
        layer_types=["full_attention", "sliding_attention"],
    ),
    "qwen3-null-window": config("Qwen3ForCausalLM", use_sliding_window=True, sliding_window=None),
    "qwen3-default-head-size": without(config("Qwen3ForCausalLM"), "head_dim"),
    "qwen3-normalised": config("Qwen3ForCausalLM", use_qk_norm=True),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_config_that_is_taken_gives_transformers_logits(name: str, tmp_path: Path):
    compare(save(tmp_path, TAKEN[name], weights(TAKEN[name])), tmp_path)


#: Single changes to a config of each architecture: logits are equal, or the change is refused.
CHANGES: list[dict[str, Any]] = [
    {field: value}
    for field, values in {
        "is_causal": [False, None, 0, "false"],
        "use_bidirectional_attention": [True, False],
        "hidden_size": [64.0, None],
        "vocab_size": [96.0],
        "num_hidden_layers": [1, 2.0],
        "max_position_embeddings": [None, 128.0, 48],
        "tie_word_embeddings": [None, "false", 0],
        "rms_norm_eps": [0.0, 0, 1, None],
        "head_dim": [None, 0],
        "num_key_value_heads": [None, 2.0],
        "attention_bias": [None, 1, True, False],
        "mlp_bias": [None, True, False],
        "hidden_act": ["swish", "SiLU", "gelu", None],
        "sliding_window": [0, 8, 128, 500, None, -1, 8.0],
        "use_sliding_window": [True, False, None, "true"],
        "max_window_layers": [0, 1, 2, -1, None],
        "layer_types": [
            None,
            ["full_attention"] * 2,
            ["sliding_attention"] * 2,
            ["full_attention", "sliding_attention"],
            ["chunked_attention"] * 2,
            ["full_attention"] * 3,
        ],
        "attention_chunk_size": [4, None],
        "num_kv_shared_layers": [1, 0],
        "bos_token_id": [[1], None, -1],
        "eos_token_id": [[], [2, 3], -1, True, 2.0],
        "pad_token_id": [-1, 0],
        "quantization_config": [{}, None],
        "text_config": [{}, {"hidden_size": 64}],
        "architectures": [None, [], "LlamaForCausalLM", ["LlamaForCausalLM"], ["Qwen2ForCausalLM"]],
        "per_layer_config": [{}, {"0": {"sliding_window": 4}}, {"0": {"intermediate_size": 48}}],
        "transformers_weights": ["other.safetensors", None],
        "num_attention_heads": [3],
        "partial_rotary_factor": [0.5, 1.0, 1, None],
        "rope_theta": [500.0, 1000, None],
        "original_max_position_embeddings": [16, None],
        "rope_parameters": [
            None,
            {},
            {"rope_theta": None},
            {"rope_theta": 700},
            {"rope_type": None},
            {"rope_type": "proportional", "rope_theta": 1000.0},
            {"rope_type": "mrope", "rope_theta": 1000.0, "mrope_section": [2, 3, 3]},
            {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5},
            {"full_attention": {"rope_type": "default", "rope_theta": 500.0}},
            without(YARN, "factor"),
            {**YARN, "original_max_position_embeddings": None},
            {**YARN, "rope_theta": 1.0},
            {**YARN, "attention_factor": 0.0},
            {**YARN, "beta_fast": 0, "beta_slow": None},
            {**YARN, "beta_fast": 1, "beta_slow": 8},
            {**YARN, "factor": 0.5},
            {**LLAMA3, "high_freq_factor": 0.5},
            {**LLAMA3, "original_max_position_embeddings": 500},
            without(LLAMA3, "low_freq_factor"),
            {**LONGROPE, "original_max_position_embeddings": 16},
            {**LONGROPE, "original_max_position_embeddings": 1},
            {**LONGROPE, "original_max_position_embeddings": 128, "factor": 2.0},
            without(DYNAMIC, "factor"),
            {**DYNAMIC, "factor": 0.5},
        ],
        "rope_scaling": [
            None,
            {},
            {"factor": 2.0},
            {"type": "linear", "factor": 2.0},
            {"type": "linear", "rope_type": "default", "factor": 2.0},
            {"type": "default", "rope_theta": 1000.0},
        ],
    }.items()
    for value in values
]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, dict[str, Any]], Path]:
    """A folder with a changed config.json beside the weights of the unchanged one."""
    root = tmp_path_factory.mktemp("fields")
    for name in ARCHITECTURES:
        save(root / name, config(name), weights(config(name)))

    def folder(name: str, changes: dict[str, Any]) -> Path:
        made = root / f"{len(list(root.iterdir()))}"
        made.mkdir()
        os.link(root / name / "model.safetensors", made / "model.safetensors")
        (made / "config.json").write_text(json.dumps(config(name) | changes))
        return made

    return folder


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: json.dumps(changes)[:60])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_changed_field_gives_transformers_logits_or_is_refused(
    architecture: str, changes: dict[str, Any], tried: Callable[[str, dict[str, Any]], Path]
):
    folder = tried(architecture, changes)
    files = {path.name: path for path in folder.iterdir()}
    try:
        compare(files, folder)
    except InputError as error:
        assert error.option == "model.source"
        assert "genai" not in (error.hint or "")


def test_bidirectional_attention_is_another_model(tried: Callable[[str, dict[str, Any]], Path]):
    """Else the refusal of is_causal=false would be for nothing."""
    plain, other = (reference(tried("Qwen2ForCausalLM", {"is_causal": causal})) for causal in (True, False))
    assert np.abs(plain - other).max() > 1


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_neutral_keys_of_a_gguf_file_leave_transformers_logits(architecture: str, tmp_path: Path):
    settings = config(architecture, rope_parameters=YARN)
    tensors = weights(settings)
    save(tmp_path / "hf", settings, tensors)
    keys = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 16,
        "rope.scaling.attn_factor": 1.0,
        "rope.scaling.yarn_ext_factor": 1.0,
        "rope.scaling.yarn_beta_fast": 32.0,
        "rope.freq_base_swa": 1000.0,
        "attention.scale": 0.25,
        "attention.sliding_window": 128,
        "attention.layer_norm_epsilon": 0.5,
        "embedding_scale": 0.0,
        "logit_scale": 1.0,
        "final_logit_softcapping": 0.0,
        "expert_count": 0,
    }
    files = save_gguf(tmp_path / "model.gguf", settings, tensors, extra=keys)
    network = Network(write_network(files, tmp_path / "network", "fused"), tmp_path / "network", "fused")
    found, wanted = network.step(TOKENS)[0], reference(tmp_path / "hf")
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()
