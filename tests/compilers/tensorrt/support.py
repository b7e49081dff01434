"""Networks, plans and recipes for TensorRT's tests, and a machine that runs an engine's network in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tests.networks.graph_runner import write_network
from tests.networks.tiny_models import save, weights
from trtbuild.compilers.tensorrt import manifest, shapes
from trtbuild.compilers.tensorrt.call_schedule import Call
from trtbuild.compilers.tensorrt.quantization import quantize_network
from trtbuild.facts.recipe import Model, Profile, Quant, Recipe, Tools, frozen
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.weights.tensors import Network
from trtbuild.targets import Gpu, Target

ADA = Gpu("GeForce RTX 4070", 12, "8.9", 46)
PACKAGES = {"gguf": "0.19.0", "jinja2": "3.1.6", "numpy": "2.4.6", "onnx": "1.23.1", "safetensors": "0.8.0"}
RTX_OPTIONS = {
    "compiler.shapes": "dynamic",
    "compiler.portable": False,
    "compiler.weight_streaming": False,
}
TENSORRT_OPTIONS = {
    "compiler.shapes": "static",
    "compiler.weight_streaming": False,
    "compiler.optimization_level": 3,
    "compiler.workspace_gb": None,
    "compiler.tactic_sources": None,
    "compiler.hardware_compatibility": "none",
    "compiler.version_compatible": False,
}


def target(gpu: Gpu = ADA, **changes: Any) -> Target:
    facts: dict[str, Any] = {"driver": "580.95.05", "cuda": "13.0"}
    return Target(name="the_target", kind="cuda", arch="x86_64", gpu=gpu, gpus=1, **(facts | changes))


def scheme(name: str) -> Quant:
    """A weight-only preset."""
    return Quant(name, name.partition("_")[0], "none", "rtn", None, None, True, "auto")


def recipe(compiler: str = "tensorrt_rtx", quant: str | Quant = "none", gpu: Gpu = ADA, **changes: Any) -> Recipe:
    """A recipe of a Llama; `changes` are fields of Recipe."""
    packages = {
        "tensorrt_rtx": {"tensorrt-rtx-cu13-bindings": "1.7.1.116", "tensorrt-rtx-cu13-libs": "1.7.1.116"},
        "tensorrt": {"tensorrt": "11.4.0.106"},
    }[compiler]
    options = {"tensorrt_rtx": RTX_OPTIONS, "tensorrt": TENSORRT_OPTIONS}[compiler]
    values: dict[str, Any] = {
        "model": Model("ab" * 32, "m", "folder", "LlamaForCausalLM", False, 1, "auto"),
        "quant": quant if isinstance(quant, Quant) else scheme(quant),
        "target": target(gpu),
        "profile": Profile(None, None, None, None),
        "tp": 1,
        "pp": 1,
        "frontend": "native",
        "tools": Tools(compiler, frozen({**PACKAGES, **packages}), frozen(options)),
    }
    return Recipe(**(values | changes))


def tools(of: Recipe, **options: Any) -> Tools:
    """The recipe's tools with other compiler options."""
    changed = {f"compiler.{name}": value for name, value in options.items()}
    return Tools(of.tools.name, of.tools.packages, frozen({**of.tools.options, **changed}))


def network(
    folder: Path, settings: Mapping[str, Any], scheme: str = "none", dtype: str = "float32", group: int = 16
) -> tuple[Decoder, Path]:
    """The network of random weights in `folder`, quantized as the engine step does it."""
    files = save(folder / "hf", dict(settings), weights(dict(settings)))
    decoder = write_network(files, folder / "net", "standard", dtype)
    if scheme == "none":
        return decoder, folder / "net" / "model.onnx"
    out = folder / scheme
    out.mkdir()
    quantize_network(
        Network.open(folder / "net" / "model.onnx"),
        scheme,
        group if scheme == "int4" else None,
        out / "model.onnx",
        lambda *_: None,
    )
    return decoder, out / "model.onnx"


def describe(settings: Mapping[str, Any], kind: str, limits: shapes.ProfileLimits) -> dict[str, Any]:
    """engine.json of an engine of the kind `kind` (dynamic, phases, static) in float32."""
    options = {
        "compiler.name": "tensorrt_rtx",
        "compiler.shapes": kind,
        "target.compute_capability": "8.9",
        "model.dtype": "float32",
        "quant.weights": "none",
    }
    plans = shapes.engines(kind, limits)
    answer = {"version": "1.7.1.116", "engines": [{"file": plan.file} for plan in plans]}
    return manifest.describe(options, parse(settings), limits, plans, answer)


class OnnxRuntimeMachine:
    """A `call_schedule.Machine` over the network that the engine is built from; the cache is numpy's."""

    def __init__(self, decoder: Decoder, model: Path, past: Mapping[str, int]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
        names = [f"{layer}.{kind}" for layer in range(decoder.layers) for kind in ("key", "value")]
        self.caches = {
            phase: {name: np.zeros((1, decoder.kv_heads, slots, decoder.head_dim), np.float32) for name in names}
            for phase, slots in past.items()
        }
        self.shapes: list[tuple[int, int]] = []

    def run(self, call: Call) -> np.ndarray:
        cache = self.caches[call.phase]
        self.shapes.append((len(call.ids), call.bias.shape[1] - len(call.ids)))
        feeds = {
            "input_ids": call.ids[None],
            "position_ids": call.positions[None],
            "attention_bias": call.bias[None, None],
            **{f"past_key_values.{name}": values for name, values in cache.items()},
        }
        outputs = [each.name for each in self.session.get_outputs()]
        results = dict(zip(outputs, self.session.run(outputs, feeds), strict=True))
        for kept in self.caches.values():
            for name, values in kept.items():
                count = max(0, min(call.count, values.shape[2] - call.slot))
                values[:, :, call.slot : call.slot + count] = results[f"new.{name}"][:, :, :count]
        return results["logits"][0, call.count - 1]
