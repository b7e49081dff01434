"""The step `checkpoint`: by ModelOpt in its own toolchain, or by NVIDIA's scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trtbuild.compilers.base import tools
from trtbuild.compilers.modelopt import exclusions, texts
from trtbuild.compilers.modelopt.schemes import ModelOptScheme as Unified
from trtbuild.compilers.tensorrt_llm import modelopt_schemes
from trtbuild.compilers.tensorrt_llm.algorithms import DEFAULT_GROUP, AlgorithmScheme
from trtbuild.compilers.tensorrt_llm.arguments import CALIBRATION, MAPPING, SMOOTH
from trtbuild.compilers.tensorrt_llm.contract import contract
from trtbuild.errors import InputError
from trtbuild.facts.key import IMAGE, Step, Worker
from trtbuild.facts.recipe import Recipe, Value, frozen
from trtbuild.networks.config.architectures import GGUF_ARCHITECTURES
from trtbuild.targets import Gpu
from trtbuild.toolchains.lock import Lock

SCRIPTS = Worker("trtbuild.compilers.tensorrt_llm.scripts_checkpoint", 1)
MODELOPT = Worker("trtbuild.compilers.tensorrt_llm.modelopt_checkpoint", 1)
_TOOLS = ("tensorrt_llm", "torch", "transformers")
_PACKAGE = "nvidia-modelopt"
#: As its lock chooses them.
_MODELOPT_TOOLS = ("gguf", "numpy", _PACKAGE, "safetensors", "torch", "transformers")
#: Options of a calibration that ModelOpt takes.
_SHOWN = ("calib_size", "calib_batch_size", "calib_max_seq_length")


def architecture(recipe: Recipe) -> str:
    """As in config.json. Llama's if it is not known before the download: the worker checks the rules again."""
    named = recipe.model.architecture
    if recipe.model.gguf:
        return GGUF_ARCHITECTURES.get(named or "llama", "LlamaForCausalLM")
    return named or "LlamaForCausalLM"


def gpu(recipe: Recipe) -> Gpu:
    """The GPU that the engine is for."""
    if recipe.target.gpu is None:
        raise ValueError(f"the target {recipe.target.name} has no GPU")
    return recipe.target.gpu


def dtype(recipe: Recipe) -> str:
    """The dtype of what is not quantized. `auto` is bfloat16 for a bfloat16 checkpoint, else float16."""
    if recipe.model.dtype != "auto":
        return recipe.model.dtype
    config = recipe.model.config or {}
    return "bfloat16" if config.get("torch_dtype", config.get("dtype")) == "bfloat16" else "float16"


def packages(recipe: Recipe, names: Sequence[str]) -> tuple[Lock | None, Mapping[str, Value]]:
    """What a step's key reads about TensorRT-LLM's tools: the image, or a lock, or their versions."""
    if recipe.tools.image is not None:
        return None, {IMAGE: recipe.tools.image}
    return tools(recipe.tools, "tensorrt_llm", tuple(names))


def check(recipe: Recipe, scheme: AlgorithmScheme) -> None:
    """Raises InputError for options that the tool which makes the checkpoint does not have."""
    by, why = recipe.tools.options["compiler.checkpoint_by"], _lacks(recipe)
    excluded = exclusions.read(recipe.tools.options)
    if by == "modelopt" and why is not None:
        raise InputError(why, option="compiler.checkpoint_by=modelopt", hint="leave it at auto")
    if not _by_modelopt(recipe):
        if excluded:
            raise InputError(
                f"NVIDIA's scripts leave no layers out, and {why or 'compiler.checkpoint_by=scripts asks for them'}",
                option=exclusions.OPTION,
                hint="leave it out, or quantize by ModelOpt: compiler.checkpoint_by=modelopt says what keeps it",
            )
        _check_dataset(recipe, scheme)
        return
    known = recipe.model.config or {}
    modelopt_schemes.check_ranks(known, _scheme(recipe), recipe.tp, recipe.pp)
    modelopt_schemes.check_excluded(excluded, known, _scheme(recipe), recipe.quant.scheme, recipe.pp)
    for name in (*_SHOWN, "threads"):
        value = recipe.tools.options[f"compiler.{name}"]
        least = 2 if name == "calib_max_seq_length" else 1
        if not isinstance(value, int) or value < least:
            raise InputError(f"{value} is less than {least}", option=f"compiler.{name}={value}")


def _lacks(recipe: Recipe) -> str | None:
    """Why ModelOpt cannot make the checkpoint; None if it can."""
    quant, options = recipe.quant, recipe.tools.options
    defaults: Mapping[str, Any] = {
        "cp_size": 1,
        "moe_tp_size": -1,
        "moe_ep_size": -1,
        "use_parallel_embedding": False,
        "embedding_sharding_dim": 0,
        "smoothquant": None,
        "quantize_lm_head": False,
    }
    for name, default in defaults.items():
        if options[f"compiler.{name}"] != default:
            return f"compiler.{name} is an option of NVIDIA's scripts"
    if recipe.model.config is None and not recipe.model.gguf and recipe.model.architecture is None:
        return None
    if dtype(recipe) == "float32":
        return "ModelOpt writes what is not quantized as float16 or bfloat16"
    parts = (quant.weights, quant.activations, quant.method)
    return modelopt_schemes.lacks(parts, quant.kv_cache, architecture(recipe), recipe.model.config or {})


def _by_modelopt(recipe: Recipe) -> bool:
    return recipe.tools.options["compiler.checkpoint_by"] != "scripts" and _lacks(recipe) is None


def _check_dataset(recipe: Recipe, scheme: AlgorithmScheme) -> None:
    if scheme.calibrated and recipe.tools.options["compiler.calib_dataset"] is None:
        what = scheme.algorithm if scheme.algorithm != "NO_QUANT" else f"the {scheme.kv_cache} KV cache"
        raise InputError(
            f"{what} is calibrated on text, which the engine's key reads",
            option="compiler.calib_dataset",
            hint="name a folder that datasets.load_dataset reads, with a split `train` and a column `text`",
        )


def step(recipe: Recipe, scheme: AlgorithmScheme) -> Step:
    """The step `checkpoint` of a recipe that `check` accepts."""
    modelopt = _by_modelopt(recipe)
    lock, facts = _of_modelopt(recipe) if modelopt else _of_scripts(recipe, scheme)
    quant, gguf = recipe.quant, recipe.model.gguf
    facts |= {
        "compiler.name": recipe.tools.name,
        "model.dtype": dtype(recipe),
        "quant.weights": quant.weights,
        "quant.activations": quant.activations,
        "quant.method": quant.method,
        "quant.kv_cache": quant.kv_cache,
        "parallel.tp": recipe.tp,
        "parallel.pp": recipe.pp,
    }
    if scheme.grouped:
        facts["quant.group_size"] = quant.group_size or DEFAULT_GROUP
    return Step(
        "checkpoint",
        MODELOPT if modelopt else SCRIPTS,
        frozen(facts),
        reads_model=not gguf,
        inputs=("unpack",) if gguf else (),
        lock=lock,
    )


def _of_scripts(recipe: Recipe, scheme: AlgorithmScheme) -> tuple[Lock | None, dict[str, Value]]:
    """(lock, facts) for convert_checkpoint.py or quantize.py, without the facts that all checkpoints have."""
    options = recipe.tools.options
    lock, versions = packages(recipe, _TOOLS if _converts(scheme) else (*_TOOLS, _PACKAGE))
    names = [*MAPPING, *SMOOTH, "quantize_lm_head"]
    names += ["calib_dataset", *CALIBRATION] if scheme.calibrated else []
    facts = {**{f"compiler.{name}": options[f"compiler.{name}"] for name in names}, **versions}
    if scheme.algorithm in contract()["checkpoint_depends_on_gpu_arch"]["at_conversion"]:
        # These weights are laid out for the GPU that converts them; all others serve every GPU.
        facts["target.compute_capability"] = gpu(recipe).compute_capability
    return lock, facts


def _converts(scheme: AlgorithmScheme) -> bool:
    """Whether a converter makes it for every architecture, so that the key reads no version of ModelOpt."""
    return scheme.tool == "convert" and scheme.algorithm != "FP8_PER_CHANNEL_PER_TOKEN"


def _of_modelopt(recipe: Recipe) -> tuple[Lock | None, dict[str, Value]]:
    """(lock, facts) for ModelOpt; if scales are measured, also the calibration text and what computes.

    The machine that measures need not have the engine's GPU: on a CPU the scales are those of `calib_level`.
    """
    options = recipe.tools.options
    lock, versions = tools(recipe.tools, "modelopt_trtllm", _MODELOPT_TOOLS)
    facts: dict[str, Value] = {**versions, **exclusions.fact(exclusions.read(options))}
    if not _measures(recipe):
        return lock, facts
    facts |= {f"compiler.{name}": options[f"compiler.{name}"] for name in ("calib_device", *_SHOWN)}
    facts |= texts.fact(options[texts.OPTION])
    if options["compiler.calib_device"] == "cuda":
        device = gpu(recipe)
        return lock, facts | {
            "target.gpu": device.name,
            "target.compute_capability": device.compute_capability,
        }
    return lock, facts | {f"compiler.{name}": options[f"compiler.{name}"] for name in ("calib_level", "threads")}


def _measures(recipe: Recipe) -> bool:
    return _scheme(recipe).calibrated or recipe.quant.kv_cache != "auto"


def _scheme(recipe: Recipe) -> Unified:
    quant = recipe.quant
    return modelopt_schemes.SCHEMES[quant.weights, quant.activations, quant.method]


def advise(recipe: Recipe) -> Iterator[str]:
    """Sentences that a user should know about the calibration."""
    if not _by_modelopt(recipe) or not _measures(recipe):
        return
    count, dataset = (recipe.tools.options[name] for name in ("compiler.calib_size", texts.OPTION))
    yield from texts.advice(_scheme(recipe), recipe.quant.scheme, int(str(count)), dataset)
