"""A GGUF file with drawn metadata computes what the model that it was made of does in transformers, or is refused.

The keys are those that llama.cpp's converter writes or its loader reads. Some say in GGUF what the config says, some
repeat a default, some belong to other models: with a value that matters, these must be refused, as nothing here is like
them. TRTBUILD_DRAWS and TRTBUILD_DRAWS_SEED are as in test_random_checkpoints.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tests.networks.graph_runner import write_network
from tests.networks.tiny_models import ggml_name, permuted
from tests.reference.conftest import DRAWN
from tests.reference.families import (
    FAMILIES,
    TOLERANCE,
    Fused,
    difference,
    reference,
    safetensors_torch,
    saved,
)
from tests.reference.test_families_gguf import rope_factors
from trtbuild.errors import InputError

pytestmark = pytest.mark.reference

COUNT = int(os.environ.get("TRTBUILD_DRAWS", "100"))
SEED = "TRTBUILD_DRAWS_SEED"
Dice = random.Random

# Keys that change nothing with the first values, and arithmetic in llama.cpp with the others: these are refused.
ODD: Mapping[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "attention.causal": ((True,), (False,)),
    "attention.scale": ((0.0,), (0.5,)),
    "attention.clamp_kqv": ((0.0,), (8.0,)),
    "attention.max_alibi_bias": ((0.0,), (8.0,)),
    "attention.sliding_window": ((0,), (5,)),
    "attn_logit_softcapping": ((0.0,), (0.5,)),
    "final_logit_softcapping": ((0.0,), (0.5,)),
    "logit_scale": ((0.0, 1.0), (0.25,)),
    "residual_scale": ((0.0, 1.0), (0.22,)),
    "embedding_scale": ((0.0, 1.0), (12.0,)),
    "expert_count": ((0,), (8,)),
    "expert_used_count": ((0,), (2,)),
    "use_parallel_residual": ((False,), (True,)),
    "rope.scaling.attn_factor": ((1.0,), (0.5,)),
    "rope.scaling.yarn_attn_factor": ((1.0,), (0.5,)),
    "rope.scaling.yarn_log_multiplier": ((0.0,), (0.1,)),
    "rope.scaling.alpha": ((0.0,), (1000.0,)),
    "rope.dimension_count": ((), (8,)),
    "attention.value_length": ((), (8,)),
    "attention.temperature_length": ((0,), (8,)),
    "no_rope_layer_interval": ((0,), (4,)),
    "rope.dimension_sections": ((), ([2, 3, 3, 0],)),
    "rope.freq_base_swa": ((), (55.0,)),
    "attention.shared_kv_layers": ((0,), (1,)),
    "leading_dense_block_count": ((0,), (1,)),
    "rope.scaling.type": ((), ("longrope", "su")),
    "tensor_data_layout": (("Meta AI original pth",), ("other",)),
    "pooling_type": ((0, 1), ()),
    "rope.scaling.finetuned": ((True, False), ()),
    "attention.layer_norm_epsilon": ((1e-5,), ()),
    "a_key_that_nobody_knows": ((1, "word", 2.5), ()),
}


@dataclass(frozen=True)
class Draw:
    architecture: str
    seed: int
    fields: dict[str, Any]
    keys: dict[str, Any]  # more metadata, without the architecture before them
    gone: tuple[str, ...]  # keys that are left out, as older converters did
    kind: str
    factors: bool
    refused: bool  # one of the keys changes the arithmetic


def draw(dice: Dice) -> Draw:
    fields = _fields(dice)
    rope, keys, factors = _rope(dice)
    fields["rope_parameters"] = rope
    architecture = dice.choice(FAMILIES)
    if architecture == "LlamaForCausalLM":
        fields |= {"attention_bias": dice.random() < 0.3, "mlp_bias": dice.random() < 0.3}
    odd, refused = {}, False
    for name in dice.sample(sorted(ODD), dice.choices((0, 1, 2), (4, 3, 1))[0]):
        same, other = ODD[name]
        if name in keys or not (same or other):
            continue
        odd[name] = dice.choice(same + other)
        refused |= odd[name] in other and odd[name] not in same
    gone = []
    if fields["head_dim"] * fields["num_attention_heads"] == fields["hidden_size"]:
        gone += [key for key in ("attention.key_length", "rope.dimension_count") if dice.random() < 0.3]
    gone += [key for key in ("vocab_size", "attention.value_length") if dice.random() < 0.2]
    if "vocab_size" in gone:
        gone.remove("vocab_size")  # no tokens in these files: it alone says how many there are
    kind = dice.choices(("F32", "F16", "BF16"), (5, 1, 1))[0]
    return Draw(architecture, dice.randrange(1000), fields, keys | odd, tuple(gone), kind, factors, refused)


def _fields(dice: Dice) -> dict[str, Any]:
    heads = dice.choice((2, 4, 8))
    return {
        "hidden_size": dice.choice((64, 64, 128)),
        "intermediate_size": dice.choice((96, 64)),
        "num_hidden_layers": dice.choice((1, 2, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": dice.choice([n for n in (1, 2, 4, 8) if heads % n == 0]),
        "head_dim": dice.choice((16, 16, 16, 32, 64)),
        "rms_norm_eps": dice.choice((1e-5, 1e-6, 0.05)),
        "max_position_embeddings": dice.choice((48, 128)),
        "tie_word_embeddings": dice.random() < 0.4,
    }


def _rope(dice: Dice) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """A config's rotary positions, the keys that say the same, and whether rope_freqs.weight says the rest."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(dice.choice((50, 10000, 500000)))}
    kind = dice.choice(("default", "none", "one", "linear", "old linear", "yarn", "llama3"))
    factor = dice.choice((2.0, 3.5))
    if kind == "none":
        return rope, {"rope.scaling.type": "none"}, False
    if kind == "one":
        return rope, {"rope.scaling.type": "linear", "rope.scaling.factor": 1.0}, False
    if kind == "linear":
        keys = {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
        return rope | {"rope_type": "linear", "factor": factor}, keys, False
    if kind == "old linear":
        return rope | {"rope_type": "linear", "factor": factor}, {"rope.scale_linear": factor}, False
    if kind == "yarn":
        return _yarn(dice, rope | {"rope_type": "yarn", "factor": factor})
    if kind == "llama3":
        low, original = dice.choice((0.5, 1.0)), dice.choice((8, 16))
        more = {"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": 4.0}
        return rope | more | {"original_max_position_embeddings": original}, {}, True
    return rope, {}, False


def _yarn(dice: Dice, rope: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], bool]:
    original = dice.choice((16, 32))
    keys: dict[str, Any] = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": rope["factor"],
        "rope.scaling.original_context_length": original,
    }
    rope["original_max_position_embeddings"] = original
    for name, value in (("beta_fast", 16.0), ("beta_slow", 2.0)):
        if dice.random() < 0.3:
            rope[name] = keys[f"rope.scaling.yarn_{name}"] = value
    return rope, keys, False


def written(made: Draw, folder: Path) -> Path:
    """The GGUF file of the checkpoint in `folder`, by gguf's own writer."""
    config = json.loads((folder / "config.json").read_text())
    arch = {"mistral": "llama"}.get(config["model_type"], config["model_type"])
    rope = config["rope_parameters"]
    keys: dict[str, Any] = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": rope["rope_theta"],
        "rope.dimension_count": config["head_dim"],
        "vocab_size": config["vocab_size"],
    }
    keys = {key: value for key, value in keys.items() if key not in made.gone} | made.keys
    path = folder.parent / "model.gguf"
    writer = gguf.GGUFWriter(path, arch)
    for key, value in keys.items():
        add = {
            bool: writer.add_bool,
            str: writer.add_string,
            int: writer.add_uint32,
            float: writer.add_float32,
            list: writer.add_array,
        }
        add[type(value)](f"{arch}.{key}", value)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    kind = gguf.GGMLQuantizationType[made.kind]
    if made.factors:
        writer.add_tensor("rope_freqs.weight", rope_factors(rope, config["head_dim"]))
    for name, tensor in safetensors_torch.load_file(folder / "model.safetensors").items():
        values = tensor.float().numpy()
        part = name.split(".")[-2]
        stored = permuted(values, heads[part]) if arch == "llama" and part in heads else values
        if values.ndim == 2:
            writer.add_tensor(ggml_name(name), gguf.quants.quantize(stored, kind), raw_dtype=kind)
        else:
            writer.add_tensor(ggml_name(name), np.ascontiguousarray(stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tried(made: Draw, folder: Path) -> tuple[str, str]:
    """What becomes of a draw (equal, refused or fault), and why."""
    shutil.rmtree(folder, ignore_errors=True)
    dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[made.kind]
    checkpoint = saved(folder / "hf", made.architecture, made.seed, dtype=dtype, **made.fields)
    try:
        write_network({"model.gguf": written(made, checkpoint)}, folder / "network", "fused")
    except InputError as refusal:
        reason = refusal.message.split("GGUF file has ")[-1].split("=")[0]
        return ("refused", reason) if made.refused else ("fault", f"refused in vain: {refusal.message}")
    if made.refused:
        return "fault", "a key that changes the arithmetic is passed over"
    if difference(Fused(folder / "network").logits(40), reference(checkpoint)) <= TOLERANCE:
        return "equal", ""
    return "fault", "another engine"


def test_a_gguf_file_with_drawn_metadata_is_equal_or_refused(
    tmp_path: Path, record_property: Callable[[str, object], None]
):
    seed = os.environ.get(SEED) or str(random.randrange(10**9))  # dice, no secret
    became: Counter[tuple[str, str]] = Counter()
    faults = []
    for at in range(COUNT):
        made = draw(random.Random(f"{seed} {at}"))
        result = tried(made, tmp_path / "drawn")
        became[result] += 1
        if result[0] == "fault":
            faults.append(f"{result[1]}: {made}")
    rows = [f"  {times:5} {kind} {why}" for (kind, why), times in became.most_common()]
    record_property(DRAWN, "\n".join([f"{SEED}={seed}: {COUNT} GGUF files drawn", *rows]))
    assert not faults, "\n".join([f"{SEED}={seed}", *faults])
    assert became["equal", ""] > COUNT / 5
