"""genai_config.json, as onnxruntime-genai's builder writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from trtbuild.errors import InputError
from trtbuild.networks.chat import template
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.genai import config as genai_config
from trtbuild.networks.tokenizer import convert
from trtbuild.networks.weights.checkpoint import Checkpoint

GOLDEN = """{
    "model": {
        "bos_token_id": 256,
        "context_length": 256,
        "decoder": {
            "session_options": {
                "log_id": "onnxruntime-genai",
                "provider_options": []
            },
            "filename": "model.onnx",
            "head_size": 16,
            "hidden_size": 64,
            "inputs": {
                "input_ids": "input_ids",
                "attention_mask": "attention_mask",
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value"
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value"
            },
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2
        },
        "eos_token_id": 257,
        "pad_token_id": 258,
        "type": "llama",
        "vocab_size": 259
    },
    "search": {
        "diversity_penalty": 0.0,
        "do_sample": false,
        "early_stopping": true,
        "length_penalty": 1.0,
        "max_length": 256,
        "min_length": 0,
        "no_repeat_ngram_size": 0,
        "num_beams": 1,
        "num_return_sequences": 1,
        "past_present_share_buffer": true,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0
    }
}
"""


def write(checkpoint: Checkpoint, folder: Path) -> None:
    convert.write(checkpoint, folder)
    settled = template.settle(checkpoint.files, checkpoint.config)
    genai_config.write(parse(checkpoint.config), checkpoint, folder, settled)


def written(folder: Path, architecture: str = "LlamaForCausalLM", generation: Any = None, **changes: Any) -> str:
    model = tiny.write_model(folder / "model", architecture, **changes)
    if generation is not None:
        (model / "generation_config.json").write_text(json.dumps(generation))
    checkpoint = Checkpoint.open({path.name: path for path in model.iterdir()})
    write(checkpoint, folder)
    return (folder / "genai_config.json").read_text()


def test_a_tiny_llama(tmp_path: Path) -> None:
    assert written(tmp_path) == GOLDEN


@pytest.mark.parametrize("architecture", ["MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_the_type_is_the_architectures(architecture: str, tmp_path: Path) -> None:
    kind = architecture.removesuffix("ForCausalLM").lower()
    assert written(tmp_path, architecture) == GOLDEN.replace('"llama"', f'"{kind}"')


def test_generation_config_goes_before_config(tmp_path: Path) -> None:
    generation = {
        "eos_token_id": [7, 257],
        "pad_token_id": 3,
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
    }
    config = json.loads(written(tmp_path, generation=generation))
    assert config["model"]["eos_token_id"] == [7, 257]
    assert config["model"]["pad_token_id"] == 3
    assert config["search"]["do_sample"] is True
    assert (config["search"]["temperature"], config["search"]["top_k"]) == (0.6, 20)


def test_an_answer_also_ends_with_the_tokenizers_own_end(tmp_path: Path) -> None:
    assert json.loads(written(tmp_path, eos_token_id=9))["model"]["eos_token_id"] == [9, 257]


def test_ids_that_the_config_lacks_are_the_tokenizers(tmp_path: Path) -> None:
    config = json.loads(written(tmp_path, eos_token_id=None, bos_token_id=None))
    assert (config["model"]["eos_token_id"], config["model"]["bos_token_id"]) == (257, 256)


def test_tool_and_thinking_tokens_are_named(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model")
    content = json.loads((model / "tokenizer.json").read_text())
    added = [{"id": 300 + i, "content": token} for i, token in enumerate(("<think>", "</think>", "<tool_call>"))]
    (model / "tokenizer.json").write_text(json.dumps(content | {"added_tokens": added}))
    checkpoint = Checkpoint.open({path.name: path for path in model.iterdir()})
    write(checkpoint, tmp_path)
    config = json.loads((tmp_path / "genai_config.json").read_text())["model"]
    assert {name: config[name] for name in config if name[:3] in ("bor", "eor", "bot", "eot")} == {
        "bot_token_id": 302,
        "bor_token_id": 300,
        "eor_token_id": 301,
    }


def test_a_model_that_never_ends_is_refused(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model", eos_token_id=None)
    names = {"tokenizer_class": "GPT2Tokenizer"}
    (model / "tokenizer_config.json").write_text(json.dumps(names))
    config = json.loads((model / "config.json").read_text())
    qwen = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    (model / "config.json").write_text(json.dumps(config | qwen))
    checkpoint = Checkpoint.open({path.name: path for path in model.iterdir()})
    with pytest.raises(InputError, match="eos_token_id"):
        write(checkpoint, tmp_path)
