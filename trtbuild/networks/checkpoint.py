"""A checkpoint, safetensors or GGUF, seen as one set of Hugging Face tensors that are read one at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks import gguf_file, safetensors_file
from trtbuild.networks.arrays import Array
from trtbuild.networks.gguf_config import config_from_gguf
from trtbuild.networks.stored import Stored, broken

_GGUF_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_GGUF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class Checkpoint:
    """Weights in Hugging Face's names and layout ([out, in]), with the config that says what they are.

    `config` is the parsed config.json, or one made from a GGUF file's metadata; `metadata` is that metadata
    (None for safetensors); `files` maps the logical names that were given to real files.
    """

    config: Mapping[str, Any]
    metadata: Mapping[str, Any] | None
    files: Mapping[str, Path]
    stored: Mapping[str, Stored]
    rotated_heads: Mapping[str, int]  # tensors whose rows llama.cpp permuted -> number of heads

    @classmethod
    def open(cls, files: Mapping[str, Path]) -> Checkpoint:
        """Read the headers of `files` (logical name -> real file). Raises InputError; reads no weights."""
        gguf = sorted(name for name in files if name.endswith(".gguf"))
        if any(name.endswith(".safetensors") for name in files) or not gguf:
            return _open_safetensors(files)
        return _open_gguf(files, gguf)

    def names(self) -> list[str]:
        """All tensor names, sorted."""
        return sorted(self.stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises InputError when there is none of that name."""
        return self._find(name).shape

    def size(self, name: str) -> int:
        """The bytes that a tensor takes in its file."""
        return self._find(name).size

    def read(self, name: str) -> Array:
        """The values of a tensor, float16 or float32; nothing is kept. Raises InputError."""
        values = self._find(name).read()
        heads = self.rotated_heads.get(name)
        return values if heads is None else _unpermute(values, heads)

    def _find(self, name: str) -> Stored:
        if name not in self.stored:
            raise InputError(f"the checkpoint lacks the tensor {name}", option="model.source")
        return self.stored[name]


def read_json(files: Mapping[str, Path], name: str) -> dict[str, Any]:
    """The JSON object in the checkpoint's file `name`. Raises InputError."""
    try:
        value = json.loads(files[name].read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{name} is not valid JSON", option="model.source") from None
    if not isinstance(value, dict):
        raise InputError(f"{name} does not hold a JSON object", option="model.source")
    return value


def _open_safetensors(files: Mapping[str, Path]) -> Checkpoint:
    shards = sorted(name for name in files if name.endswith(".safetensors"))
    if not shards:
        raise InputError(
            "the checkpoint has neither .safetensors nor .gguf files",
            option="model.source",
            hint="convert its weights to safetensors first",
        )
    if "config.json" not in files:
        raise InputError("the checkpoint has no config.json", option="model.source")
    index = "model.safetensors.index.json"
    placed: dict[str, str] = read_json(files, index).get("weight_map", {}) if index in files else {}
    if placed:
        shards = sorted(set(placed.values()))
    elif len(shards) > 1:
        shards = _sole(shards, "model.safetensors", f"and no {index}")
    stored: dict[str, Stored] = {}
    for shard in shards:
        if shard not in files:
            raise InputError(f"{index} names {shard}, which the checkpoint lacks", option="model.source")
        stored.update(safetensors_file.read_header(files[shard], shard))
    for name, shard in placed.items():
        if name not in stored or stored[name].file != shard:
            raise broken(shard, f"{index} says that it holds {name}, and it does not")
    return Checkpoint(read_json(files, "config.json"), None, files, stored, {})


def _sole(candidates: list[str], preferred: str, besides: str) -> list[str]:
    if preferred in candidates:
        return [preferred]
    raise InputError(
        f"the checkpoint has several weight files ({', '.join(candidates)}) {besides}",
        option="model.source",
        hint="keep the one to build in a folder of its own",
    )


def _open_gguf(files: Mapping[str, Path], names: list[str]) -> Checkpoint:
    headers = [gguf_file.read_header(files[name], name) for name in names]
    metadata = headers[0][0]
    splits = metadata.get("split.count", 1)
    if len(names) > 1 and splits <= 1:
        _sole(names, "model.gguf", "that are not the parts of one model")
    if splits != len(names) and splits > 1:
        raise InputError(
            f"{names[0]} is one of {splits} parts, and {len(names)} are there",
            option="model.source",
            hint="download all parts",
        )
    tensors = {name: stored for _, part in headers for name, stored in part.items()}
    factors = tensors.pop(_ROPE_FACTORS, None)
    if "config.json" in files:
        config = read_json(files, "config.json")
    else:
        config = config_from_gguf(metadata, tensors, None if factors is None else factors.read().tolist())
    stored = {_hf_name(name): tensor for name, tensor in tensors.items()}
    return Checkpoint(config, metadata, files, stored, _rotated_heads(metadata, stored))


def _hf_name(name: str) -> str:
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight; an unknown name stays as it is."""
    part, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", part)
    if layer and layer[2] in _GGUF_LAYER:
        return f"model.layers.{layer[1]}.{_GGUF_LAYER[layer[2]]}.{kind}"
    return f"{_GGUF_TOP[part]}.{kind}" if part in _GGUF_TOP else name


def _rotated_heads(metadata: Mapping[str, Any], names: Iterable[str]) -> dict[str, int]:
    """llama.cpp permutes the rows of q and k for its interleaved rotation, in "llama" files only."""
    if metadata.get("general.architecture") != "llama":
        return {}
    heads = metadata.get("llama.attention.head_count")
    counts = {"q_proj": heads, "k_proj": metadata.get("llama.attention.head_count_kv", heads)}
    rotated = {}
    for name in names:
        projection = name.rsplit(".", 2)[-2] if name.count(".") > 1 else ""
        if projection in counts:
            count = counts[projection]
            rotated[name] = int(count[0] if isinstance(count, list) else count)
    return rotated


def _unpermute(values: Array, heads: int) -> Array:
    """Rows (2i, 2i + 1) of a head back to (i, i + head_dim / 2)."""
    rows = values.shape[0]
    pairs = values.reshape(heads, rows // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)
