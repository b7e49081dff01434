"""Tiny checkpoints with random weights and a byte-level tokenizer, made without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

VOCAB = 259  # 256 bytes, and three special tokens
BOS, EOS = 256, 257


def byte_characters() -> list[str]:
    """The character that stands for each byte in a byte-level tokenizer (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256))
    table = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + next(others))
    return [table[byte] for byte in range(256)]


def config(architecture: str = "LlamaForCausalLM", **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": architecture.removesuffix("ForCausalLM").lower(),
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "vocab_size": VOCAB,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "torch_dtype": "float32",
        **changes,
    }


def weights(conf: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights for a Llama, Mistral, Qwen2 or Qwen3 config, by their names in a checkpoint."""
    rng = np.random.default_rng(seed)
    hidden, inner, head = conf["hidden_size"], conf["intermediate_size"], conf["head_dim"]
    q, kv = conf["num_attention_heads"] * head, conf["num_key_value_heads"] * head
    kind = conf["model_type"]

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32)

    def norm(size: int) -> np.ndarray:
        return (1 + 0.1 * rng.standard_normal(size)).astype(np.float32)

    # Small embeddings: what the layers add outweighs the last token, so that greedy text does not repeat it.
    embedding = np.float32(0.05) * matrix(conf["vocab_size"], hidden)
    tensors = {"model.embed_tokens.weight": embedding, "model.norm.weight": norm(hidden)}
    if not conf["tie_word_embeddings"]:
        tensors["lm_head.weight"] = matrix(conf["vocab_size"], hidden)
    for layer in range(conf["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        tensors[at + "input_layernorm.weight"] = norm(hidden)
        tensors[at + "post_attention_layernorm.weight"] = norm(hidden)
        for name, rows, columns in (
            ("self_attn.q_proj", q, hidden),
            ("self_attn.k_proj", kv, hidden),
            ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, q),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ):
            tensors[f"{at}{name}.weight"] = matrix(rows, columns)
            if kind == "qwen2" and name[10:] in ("q_proj", "k_proj", "v_proj"):
                tensors[f"{at}{name}.bias"] = norm(rows) - 1
        if kind == "qwen3":
            tensors[at + "self_attn.q_norm.weight"] = norm(head)
            tensors[at + "self_attn.k_norm.weight"] = norm(head)
    return tensors


def write_tokenizer(folder: Path) -> None:
    special = {BOS: "<s>", EOS: "</s>", 258: "<pad>"}
    vocab = {character: byte for byte, character in enumerate(byte_characters())}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": False, "special": True}
            for i, text in special.items()
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocab | {text: i for i, text in special.items()},
            "merges": [],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **names}))


def write_model(folder: Path, architecture: str = "LlamaForCausalLM", seed: int = 0, **changes: Any) -> Path:
    """A whole checkpoint in `folder`: config, weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    conf = config(architecture, **changes)
    (folder / "config.json").write_text(json.dumps(conf))
    save_file(weights(conf, seed), folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder)
    return folder
