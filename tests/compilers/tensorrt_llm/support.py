"""Recipes for TensorRT-LLM without Hydra, hardware or files: targets and presets as conf/ has them."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from trtbuild.config.trtllm_options import TensorRtLlmOptions
from trtbuild.facts.key import Step
from trtbuild.facts.recipe import SCHEMES, Model, Profile, Quant, Recipe, Tools, frozen
from trtbuild.planning.plan import make_plan
from trtbuild.targets import Gpu, Target

CONF = Path(__file__).parents[3] / "conf"
GPTQ = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
OTHERS = ("fp8_weights",)  # its FP8 has activations in FP8, too
DATASET = f"sha256:{'da' * 32}"
LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
#: Small enough for every GPU of the catalogue in 16 bits.
LLAMA_1B = {**LLAMA_8B, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
PACKAGES = {
    "tensorrt_llm": "1.2.1",
    "tensorrt": "10.14.1.48",
    "torch": "2.9.1",
    "transformers": "4.57.1",
    "nvidia-modelopt": "0.37.0",
}


@cache
def targets() -> dict[str, Target]:
    """Each GPU of the catalogue."""
    found = {}
    for path in sorted((CONF / "target").glob("*.yaml")):
        told = yaml.safe_load(path.read_text())
        if "memory_gb" in told:
            gpu = Gpu(told["gpu"], told["memory_gb"], told["compute_capability"], told["sm_count"])
            found[path.stem] = Target(path.stem, "cuda", told["arch"], gpu=gpu, gpus=1, driver="580.95.05", cuda="13.0")
    return found


@cache
def presets() -> dict[str, Quant]:
    """Each preset of conf/quant that is TensorRT-LLM's; `OTHERS` are not."""
    return {name: quant(*parts) for parts, name in SCHEMES.items() if name not in OTHERS}


def quant(weights: str, activations: str, method: str, kv_cache: str, **more: Any) -> Quant:
    parts = (weights, activations, method, kv_cache)
    whole = {"group_size": None, "symmetric": None, "embedding": True, **more}
    return Quant(SCHEMES.get(parts, "/".join(parts)), weights, activations, method, kv_cache=kv_cache, **whole)


def options(**given: Any) -> Mapping[str, Any]:
    """All options at their defaults, but for those given."""
    values = {}
    for field in dataclasses.fields(TensorRtLlmOptions):
        if field.name == "image":
            continue
        default = field.default if field.default is not dataclasses.MISSING else ()
        values[f"compiler.{field.name}"] = default.value if isinstance(default, enum.Enum) else default
    return frozen({**values, **{f"compiler.{name}": value for name, value in given.items()}})


def recipe(
    target: str = "h100_sxm",
    preset: str = "none",
    *,
    config: Mapping[str, Any] | None = None,
    tp: int = 1,
    pp: int = 1,
    image: str | None = None,
    profile: Profile | None = None,
    **given: Any,
) -> Recipe:
    """Of an 8B Llama, with a dataset where the preset may want one."""
    config = LLAMA_8B if config is None else config
    model = Model(
        identity="ab" * 32,
        label="m",
        origin="folder",
        architecture=config["architectures"][0],
        gguf=False,
        bytes=1,
        dtype="auto",
        context=config.get("max_position_embeddings"),
        config=config,
    )
    given.setdefault("calib_dataset", DATASET)
    given.setdefault("checkpoint_by", "scripts")
    tools = Tools("tensorrt_llm", frozen({} if image else PACKAGES), options(**given), {}, image)
    limits = profile or Profile(None, None, None, None)
    return Recipe(model, presets()[preset], targets()[target], limits, tp, pp, "native", tools)


def steps(recipe: Recipe) -> dict[str, Step]:
    return {step.name: step.step for step in make_plan(recipe).steps}


def keys(recipe: Recipe) -> dict[str, str]:
    return {step.name: step.key for step in make_plan(recipe).steps}
