"""Tiny models that transformers itself saves, their logits there, and those of what trtbuild makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_genai as genai
import pytest

from tests.support import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")  # which needs torch, too

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
POSITIONS = 48
TOKENS = np.random.default_rng(5).integers(0, tiny.VOCAB, POSITIONS)
#: Of the largest absolute logit: float32 on both sides leaves some 1e-6.
TOLERANCE = 1e-4
_BASE: Mapping[str, Any] = {
    "vocab_size": tiny.VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": tiny.BOS,
    "eos_token_id": tiny.EOS,
}


def saved(
    folder: Path,
    architecture: str,
    seed: int,
    *,
    dtype: str = "float32",
    shard: str = "1GB",
    rewrite: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    **changes: Any,
) -> Path:
    """A checkpoint as `save_pretrained` writes it, with a tokenizer beside it.

    `changes` are fields of the family's config class; `rewrite` turns the saved config.json into another spelling.
    """
    kind = getattr(transformers, architecture.replace("ForCausalLM", "Config"))
    extra = {"sliding_window": None} if architecture == "MistralForCausalLM" else {}
    model = getattr(transformers, architecture)(kind(**(dict(_BASE) | extra | changes)))
    randomise(model, seed)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    tiny.write_tokenizer(folder)
    if rewrite is not None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(rewrite(config)))
    return folder


def randomise(model: Any, seed: int) -> None:
    """Values so large that attention is far from uniform and logits are above 1: a wrong switch is seen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in model.named_parameters():
            drawn = torch.randn(values.shape, generator=generator)
            if name.endswith("norm.weight"):
                values.copy_(1 + 0.2 * drawn)
            elif name.endswith("bias"):
                values.copy_(0.3 * drawn)
            else:
                values.copy_(1.2 * drawn / values.shape[-1] ** 0.5)
        for head in (model.get_output_embeddings(), model.get_input_embeddings()):
            head.weight[tiny.EOS] = 0  # its logit is never the largest: no answer ends early


def reference(folder: Path, tokens: np.ndarray = TOKENS) -> np.ndarray:
    """transformers' logits [position, vocab] of `tokens`, in float32."""
    model = load(folder)
    with torch.no_grad():
        return model(torch.from_numpy(tokens[None])).logits[0].numpy()


def load(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def reference_answer(folder: Path, prompt: np.ndarray, count: int, *, cache: bool = True) -> list[int]:
    """The ids that transformers' greedy `generate` appends to `prompt`."""
    model = load(folder)
    ids = torch.from_numpy(prompt[None])
    with torch.no_grad():
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, use_cache=cache
        )
    return [int(token) for token in made[0, len(prompt) :]]


def answer(engine: Path, prompt: np.ndarray, count: int) -> list[int]:
    """The ids that onnxruntime-genai's greedy search appends to `prompt`."""
    model = genai.Model(str(engine))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=len(prompt) + count)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(prompt.astype(np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)[len(prompt) :]]


class Fused:
    """A network or an engine with onnxruntime-genai's inputs, fed piece by piece; cache sizes are the graph's own."""

    def __init__(self, folder: Path, *, as_written: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        if as_written:  # ONNX Runtime may else multiply by dequantized weights in int8
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.past = {
            value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
            for value in self.session.get_inputs()
            if value.name.startswith("past_key_values")
        }
        self.length = 0

    def step(self, ids: np.ndarray) -> np.ndarray:
        """Logits [len(ids), vocab] of `ids`, which follow what came before."""
        self.length += len(ids)
        mask = np.ones((1, self.length), np.int64)
        feeds = {"input_ids": ids[None].astype(np.int64), "attention_mask": mask} | self.past
        names = [output.name for output in self.session.get_outputs()]
        results = dict(zip(names, self.session.run(names, feeds), strict=True))
        self.past = {name: results[name.replace("past_key_values", "present")] for name in self.past}
        return results["logits"][0]

    def logits(self, prefill: int) -> np.ndarray:
        """Of `TOKENS`: the first `prefill` at once, then one by one."""
        pieces = [TOKENS[:prefill], *(TOKENS[at : at + 1] for at in range(prefill, len(TOKENS)))]
        return np.concatenate([self.step(piece) for piece in pieces])


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference of two logits, as a share of the largest wanted one."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
