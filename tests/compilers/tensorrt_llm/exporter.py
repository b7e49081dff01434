"""Writes checkpoints of TensorRT-LLM in plain numpy, a file for each rank, as its loader wants them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.compilers.modelopt.exporter import GROUP, Tensors, quantized, write
from tests.support import tiny
from trtbuild.compilers.tensorrt_llm.modelopt_schemes import SCHEMES

_NAMES = {
    "weight": "weight",
    "weight_scale": "weights_scaling_factor",
    "weight_scale_2": "weights_scaling_factor_2",
    "input_scale": "activation_scaling_factor",
    "pre_quant_scale": "prequant_scaling_factor",
}
STORED = ("W8A16", "W4A16", None)  # as they were


def linear(weight: np.ndarray, algorithm: str | None) -> Tensors:
    """The tensors of one linear map by the names that TensorRT-LLM has for them, of all ranks together."""
    if algorithm in STORED:
        return {"weight": ("F32", weight)}
    found: Tensors = {}
    for name, (kind, values) in quantized("x", weight, str(algorithm)).items():
        part = _NAMES[name.removeprefix("x.")]
        found[part] = ("I8" if kind == "U8" else kind, values.reshape(1) if values.ndim == 0 else values)
    return found


def share(part: str, values: np.ndarray, axis: int, rank: int, tp: int) -> np.ndarray:
    """What that rank has of it: `axis` 0 shares outputs out, 1 inputs."""
    if values.shape == (1,):
        return values
    if part == "prequant_scaling_factor":
        return np.split(values, tp)[rank] if axis == 1 else values
    if values.ndim == 1:
        return np.split(values, tp)[rank] if axis == 0 else values
    return np.split(values, tp, axis)[rank]


class Case:
    """A tiny model and a checkpoint of it: `ranks` and `told` (config.json) may be changed before `write`."""

    def __init__(
        self,
        folder: Path,
        parts: tuple[str, str, str],
        *,
        tp: int = 1,
        pp: int = 1,
        kv: bool = False,
        **changes: Any,
    ) -> None:
        self.folder, self.scheme, self.tp, self.pp = folder, SCHEMES[parts], tp, pp
        self.config = tiny.config(**changes)
        self.weights = tiny.weights(self.config)
        self.changes = changes
        self.ranks = [
            self._rank(stage, rank, kv and self.scheme.recipe is not None) for stage in range(pp) for rank in range(tp)
        ]
        self.facts = {
            "model.dtype": "float32",
            "quant.kv_cache": "fp8" if kv else "auto",
            "quant.group_size": GROUP if self.scheme.grouped else None,
            "parallel.tp": tp,
            "parallel.pp": pp,
        }
        self.told = self._told(kv)

    def _rank(self, stage: int, rank: int, kv: bool) -> Tensors:
        made: Tensors = {}
        per_stage = self.config["num_hidden_layers"] // self.pp
        for local in range(per_stage):
            source = f"model.layers.{stage * per_stage + local}."
            made |= self._layer(f"transformer.layers.{local}.", source, rank, kv)
        embedding = self.weights["model.embed_tokens.weight"]
        head = self.weights.get("lm_head.weight", embedding)
        if stage == 0:
            made["transformer.vocab_embedding.weight"] = ("F32", self._vocabulary(embedding, rank))
        if stage == self.pp - 1:
            made["transformer.ln_f.weight"] = ("F32", self.weights["model.norm.weight"])
            made["lm_head.weight"] = ("F32", self._vocabulary(head, rank))
        return made

    def _vocabulary(self, values: np.ndarray, rank: int) -> np.ndarray:
        padded = np.pad(values, ((0, -len(values) % self.tp), (0, 0)))
        return np.split(padded, self.tp)[rank]

    def _layer(self, prefix: str, source: str, rank: int, kv: bool) -> Tensors:
        made: Tensors = {}
        algorithm, weights = self.scheme.algorithm, self.weights
        for ours, theirs in (("input", "input"), ("post", "post_attention")):
            made[f"{prefix}{ours}_layernorm.weight"] = ("F32", weights[f"{source}{theirs}_layernorm.weight"])
        for name, module, axis in (
            ("attention.dense", "self_attn.o_proj", 1),
            ("mlp.fc", "mlp.gate_proj", 0),
            ("mlp.gate", "mlp.up_proj", 0),
            ("mlp.proj", "mlp.down_proj", 1),
        ):
            for part, (kind, values) in linear(weights[f"{source}{module}.weight"], algorithm).items():
                made[f"{prefix}{name}.{part}"] = (kind, share(part, values, axis, rank, self.tp))
        whole = np.concatenate([weights[f"{source}self_attn.{one}_proj.weight"] for one in "qkv"])
        for part, (kind, values) in linear(whole, algorithm).items():
            rows = part == "weight" or (part == "weights_scaling_factor" and values.shape != (1,))
            made[f"{prefix}attention.qkv.{part}"] = (kind, self._heads(values, rank) if rows else values)
        if kv:
            for one, value in (("k", 0.02), ("v", 0.03), ("kv", 0.03)):
                name = f"{prefix}attention.{one}_cache_scaling_factor"
                made[name] = ("F32", np.array([value], np.float32))
        return made

    def _heads(self, values: np.ndarray, rank: int) -> np.ndarray:
        """The rank's heads of queries, then of keys, then of values; a head for several ranks where they are few."""
        heads, kv = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        rows = len(values) // (heads + 2 * kv)
        split = np.split(values, heads + 2 * kv)
        q, k, v = split[:heads], split[heads : heads + kv], split[heads + kv :]
        mine = [q[at] for at in range(heads) if at * self.tp // heads == rank]
        for part in (k, v):
            mine += (
                [part[rank * kv // self.tp]]
                if kv < self.tp
                else part[rank * kv // self.tp : (rank + 1) * kv // self.tp]
            )
        assert rows * len(mine) == sum(map(len, mine))
        return np.concatenate(mine)

    def _told(self, kv: bool) -> dict[str, Any]:
        config = self.config
        said: dict[str, Any] = {
            "quant_algo": self.scheme.algorithm,
            "kv_cache_quant_algo": "FP8" if kv else None,
        }
        if self.scheme.recipe:
            said["exclude_modules"] = ["lm_head"]
        if self.scheme.grouped:
            said |= {"group_size": GROUP, "has_zero_point": False, "pre_quant_scale": True}
        return {
            "architecture": config["architectures"][0],
            "dtype": "float32",
            "num_hidden_layers": config["num_hidden_layers"],
            "num_attention_heads": config["num_attention_heads"],
            "num_key_value_heads": config["num_key_value_heads"],
            "hidden_size": config["hidden_size"],
            "intermediate_size": config["intermediate_size"],
            "head_size": config["head_dim"],
            "norm_epsilon": config["rms_norm_eps"],
            "vocab_size": config["vocab_size"],
            "max_position_embeddings": config["max_position_embeddings"],
            "hidden_act": "silu",
            "position_embedding_type": "rope_gpt_neox",
            "share_embedding_table": False,
            "rotary_base": config["rope_theta"],
            "mapping": {"world_size": self.tp * self.pp, "tp_size": self.tp, "pp_size": self.pp},
            "quantization": said,
        }

    def write(self) -> Path:
        """The folder of the checkpoint."""
        made = self.folder / "made"
        made.mkdir(exist_ok=True)
        for rank, tensors in enumerate(self.ranks):
            write(made / f"rank{rank}.safetensors", tensors)
        (made / "config.json").write_text(json.dumps(self.told))
        return made
