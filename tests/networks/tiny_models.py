"""Tiny random checkpoints: configs, weights, and files in each format, made with numpy alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from trtbuild.networks.config.architectures import parse
from trtbuild.networks.weights.layout import expected

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 3.0}


def config(architecture: str = "LlamaForCausalLM", **changes: Any) -> dict[str, Any]:
    """A config.json of two layers, two queries to a key; `changes` replace or add fields."""
    base = {
        "architectures": [architecture],
        "model_type": ARCHITECTURES.get(architecture, "other"),
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 96,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    if architecture == "MistralForCausalLM":
        base["sliding_window"] = None
    return base | changes


def weights(settings: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 weights, large enough that attention is far from uniform."""
    random = np.random.default_rng(seed)
    made = {}
    for name, shape in sorted(expected(parse(settings))):
        values = random.standard_normal(shape).astype(np.float32)
        norm = name.endswith("norm.weight")
        made[name] = 1 + values * np.float32(0.2) if norm else values * np.float32(0.15)
    return made


def bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 cut to the values that bfloat16 can hold."""
    return (values.astype("<f4").view("<u4") & np.uint32(0xFFFF0000)).view("<f4")


def safetensors_bytes(tensors: dict[str, np.ndarray], kind: str = "F32") -> bytes:
    header, blobs, at = {}, [], 0
    for name, values in tensors.items():
        if kind == "BF16":
            blob = (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
        else:
            blob = values.astype({"F32": "<f4", "F16": "<f2"}[kind]).tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(blobs)


def save(
    folder: Path,
    settings: dict[str, Any],
    tensors: dict[str, np.ndarray],
    kind: str = "F32",
    shards: int = 1,
) -> dict[str, Path]:
    """Write a Hugging Face folder; returns its files as a request's `model` names them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors, kind))
    else:
        places, names = {}, list(tensors)
        for shard in range(shards):
            part = {name: tensors[name] for name in names[shard::shards]}
            file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
            (folder / file).write_bytes(safetensors_bytes(part, kind))
            places |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return files(folder)


def files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir())}


_GGML = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def ggml_name(name: str) -> str:
    module, kind = name.rsplit(".", 1)
    if module.startswith("model.layers."):
        _, _, layer, rest = module.split(".", 3)
        return f"blk.{layer}.{_GGML[rest]}.{kind}"
    return f"{_GGML[module]}.{kind}"


def permuted(values: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to the rows of q and k: (i, i + head_dim / 2) become neighbours."""
    rows = np.arange(values.shape[0]).reshape(heads, 2, -1)
    return values[rows.transpose(0, 2, 1).reshape(-1)]


def save_gguf(
    path: Path,
    settings: dict[str, Any],
    tensors: dict[str, np.ndarray],
    kind: str = "F32",
    extra: dict[str, Any] | None = None,
    rope_factors: np.ndarray | None = None,
    split: tuple[int, int, int] | None = None,
    tokens: list[str] | None = None,
) -> dict[str, Path]:
    """Write a GGUF file with gguf's own writer (two-dimensional weights as `kind`, the rest float32).

    `extra` are more metadata, keys without the architecture's prefix; `split` is (number, parts, tensors).
    `tokens` are of a byte-level tokenizer: three special ones, those of the bytes, and "ab", the only merge.
    """
    arch = {"mistral": "llama"}.get(settings["model_type"], settings["model_type"])
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(settings["max_position_embeddings"])
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_block_count(settings["num_hidden_layers"])
    writer.add_head_count(settings["num_attention_heads"])
    writer.add_head_count_kv(settings["num_key_value_heads"])
    writer.add_key_length(settings["head_dim"])
    writer.add_layer_norm_rms_eps(settings["rms_norm_eps"])
    writer.add_rope_freq_base(settings["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(settings["head_dim"])
    writer.add_vocab_size(settings["vocab_size"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, value in (extra or {}).items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(f"{arch}.{key}", value)
    if split is not None:
        writer.add_uint16("split.no", split[0])
        writer.add_uint16("split.count", split[1])
        writer.add_int32("split.tensors.count", split[2])
    if tokens is not None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(tokens)
        writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3))
        writer.add_token_merges(["a b"])
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors.astype(np.float32))
    heads = {"q_proj": settings["num_attention_heads"], "k_proj": settings["num_key_value_heads"]}
    quantized = gguf.GGMLQuantizationType[kind]
    for name, values in tensors.items():
        part = name.split(".")[-2]
        stored = permuted(values, heads[part]) if arch == "llama" and part in heads else values
        if values.ndim == 2 and kind != "F32":
            packed = gguf.quants.quantize(stored, quantized)
            writer.add_tensor(ggml_name(name), packed, raw_dtype=quantized)
        else:
            writer.add_tensor(ggml_name(name), np.ascontiguousarray(stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {path.name: path}
