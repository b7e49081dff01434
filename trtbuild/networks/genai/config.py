"""genai_config.json: what onnxruntime-genai must know of a network, as its own builder (0.18) writes it.

https://onnxruntime.ai/docs/genai/reference/config.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild.networks.chat import generation as generation_fields
from trtbuild.networks.chat.template import ChatSettings
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.tokenizer.special_tokens import no_end, vocabulary_of
from trtbuild.networks.weights.checkpoint import Checkpoint, read_json

Json = dict[str, Any]

# Tokens that the runtime tells apart when a vocabulary has them: around tool calls and reasoning.
_MARKERS = {
    "bot_token_id": ("<tool_call>", "<|tool_call|>"),
    "eot_token_id": ("</tool_call>", "<|/tool_call|>"),
    "bor_token_id": ("<think>",),
    "eor_token_id": ("</think>",),
}


def write(decoder: Decoder, checkpoint: Checkpoint, out: Path, settled: ChatSettings) -> None:
    """Write genai_config.json to the folder `out`, which holds the tokenizer already. Raises InputError.

    `settled` are the tokens that begin, end and pad a text; one that ends an answer is needed.
    """
    generation: Json = {}
    if "generation_config.json" in checkpoint.files:
        generation = read_json(checkpoint.files, "generation_config.json")
    vocabulary = vocabulary_of(read_json({"tokenizer.json": out / "tokenizer.json"}, "tokenizer.json"))
    model = _model(decoder, settled) | _markers(vocabulary)
    config = {"model": model, "search": _search(decoder, generation)}
    (out / "genai_config.json").write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")


def put_tokens(out: Path, settled: ChatSettings) -> None:
    """The ends, beginning and padding that were settled, in a genai_config.json that another tool wrote to `out`."""
    config = read_json({"genai_config.json": out / "genai_config.json"}, "genai_config.json")
    ids = {"bos_token_id": settled.bos, "pad_token_id": settled.pad}
    config["model"] |= {name: number for name, number in ids.items() if number is not None}
    config["model"]["eos_token_id"] = _ends(settled)
    (out / "genai_config.json").write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")


def _ends(settled: ChatSettings) -> int | list[int]:
    if not settled.ends:
        raise no_end()
    return settled.ends[0] if len(settled.ends) == 1 else list(settled.ends)


def _model(decoder: Decoder, settled: ChatSettings) -> Json:
    ends = _ends(settled)
    return {
        "bos_token_id": _first(settled.bos, decoder.bos_token_id, 1),
        "context_length": decoder.max_positions,
        "decoder": _decoder(decoder),
        "eos_token_id": ends,
        "pad_token_id": _first(settled.pad, decoder.pad_token_id, settled.ends[0]),
        "type": decoder.model_type,
        "vocab_size": decoder.vocab,
    }


def _markers(vocabulary: Mapping[str, int]) -> dict[str, int]:
    return {
        name: next(vocabulary[token] for token in spellings if token in vocabulary)
        for name, spellings in _MARKERS.items()
        if not vocabulary.keys().isdisjoint(spellings)
    }


def _decoder(decoder: Decoder) -> Json:
    return {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": "model.onnx",
        "head_size": decoder.head_dim,
        "hidden_size": decoder.hidden,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
        "num_attention_heads": decoder.heads,
        "num_hidden_layers": decoder.layers,
        "num_key_value_heads": decoder.kv_heads,
    }


def _search(decoder: Decoder, generation: Mapping[str, Any]) -> Json:
    options = generation_fields.search(generation) | {
        "early_stopping": True,
        "max_length": decoder.max_positions,
        "min_length": 0,
        "past_present_share_buffer": True,
    }
    return dict(sorted(options.items()))


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
