"""NVIDIA ModelOpt: which recipes it can make, its steps, and the facts that they read."""

from __future__ import annotations

from collections.abc import Sequence

from trtbuild.compilers.base import (
    UNPACK,
    Compiler,
    Hardware,
    ModelRules,
    Requirements,
    Serving,
    check_parallel,
    check_symmetric,
    tools,
    unpack,
)
from trtbuild.compilers.modelopt import exclusions, serving, texts
from trtbuild.compilers.modelopt.options import DTYPES, LEVELS
from trtbuild.compilers.modelopt.schemes import (
    DEFAULT_GROUP,
    KV_CACHES,
    SCHEMES,
    ModelOptScheme,
    check_columns,
    names,
)
from trtbuild.errors import InputError
from trtbuild.facts.key import Handling, Step, Worker
from trtbuild.facts.recipe import SCHEMES as PRESETS
from trtbuild.facts.recipe import Recipe, Value, frozen
from trtbuild.networks.config.architectures import SUPPORTED
from trtstore import format_size

WORKERS = {"unpack": UNPACK, "checkpoint": Worker("trtbuild.compilers.modelopt.checkpoint", 2)}
NAME = "modelopt"
#: As its lock chooses them.
_TOOLS = ("gguf", "numpy", "nvidia-modelopt", "safetensors", "torch", "transformers")


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """`unpack` (of a GGUF) and `checkpoint`. Raises InputError."""
    return checkpoint_steps(recipe, _dtype(recipe))


def checkpoint_steps(recipe: Recipe, dtype: str) -> tuple[Step, ...]:
    """The same steps, for another compiler; what is not quantized is stored in `dtype`. Raises InputError."""
    scheme = _scheme(recipe)
    _check(recipe, scheme)
    first = (unpack(recipe, dtype),) if recipe.model.gguf else ()
    lock, versions = tools(recipe.tools, "modelopt", _TOOLS)
    facts: dict[str, Value] = {
        "compiler.name": NAME,
        "model.dtype": dtype,
        "quant.weights": recipe.quant.weights,
        "quant.activations": recipe.quant.activations,
        "quant.method": recipe.quant.method,
        "quant.kv_cache": recipe.quant.kv_cache,
        **({"quant.group_size": _group(recipe)} if scheme.grouped else {}),
        **exclusions.fact(exclusions.read(recipe.tools.options)),
        **_calibration(recipe, scheme),
        **versions,
    }
    step = Step(
        "checkpoint",
        WORKERS["checkpoint"],
        frozen(facts),
        reads_model=not first,
        inputs=("unpack",) if first else (),
        lock=lock,
        handling=Handling(loads=True),
    )
    return (*first, step)


def _scheme(recipe: Recipe) -> ModelOptScheme:
    quant = recipe.quant
    return SCHEMES[quant.weights, quant.activations, quant.method]


def _calibrated(recipe: Recipe, scheme: ModelOptScheme) -> bool:
    return scheme.calibrated or KV_CACHES[recipe.quant.kv_cache] is not None


def _check(recipe: Recipe, scheme: ModelOptScheme) -> None:
    check_parallel(
        recipe,
        "a unified checkpoint is one for any number of GPUs: the server that loads it splits it",
        hint="leave parallel.tp and parallel.pp at 1, and tell the server",
    )
    if recipe.frontend != "native":
        raise InputError(
            f"compiler=modelopt verifies its result with its own reader, which knows {', '.join(SUPPORTED)}, and this "
            f"model is a {recipe.model.architecture}",
            option="network.frontend",
            hint="compiler=onnxruntime takes more, by onnxruntime-genai's builder",
        )
    check_symmetric(recipe, "ModelOpt's formats have no zero points here")
    if recipe.quant.group_size and not scheme.grouped:
        raise InputError(
            f"quant={recipe.quant.scheme} has no groups",
            option=f"quant.group_size={recipe.quant.group_size}",
            hint="leave it out, or take quant=int4_awq, which has groups",
        )
    known = recipe.model.config or recipe.model.described or {}
    check_columns(known, scheme, recipe.quant.group_size)
    exclusions.check(exclusions.read(recipe.tools.options), known, scheme.algorithm, recipe.quant.scheme)
    options = recipe.tools.options
    for name in ("calib_size", "calib_batch_size", "calib_max_length", "threads"):
        value = options[f"compiler.{name}"]
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InputError(f"{value} is not above 0", option=f"compiler.{name}={value}")
    if options["compiler.calib_max_length"] == 1:
        raise InputError("a sample needs at least two tokens", option="compiler.calib_max_length=1")
    if recipe.target.kind == "cpu" and _calibrated(recipe, scheme) and recipe.target.arch == "x86_64":
        _check_level(recipe)


def _check_level(recipe: Recipe) -> None:
    if recipe.target.level not in LEVELS:
        raise InputError(
            f"compiler=modelopt calibrates on CPUs of {', '.join(LEVELS)}, and target={recipe.target.name} is "
            f"{recipe.target.level}",
            option=f"target={recipe.target.name}",
        )


def _group(recipe: Recipe) -> int:
    return recipe.quant.group_size or DEFAULT_GROUP


def _dtype(recipe: Recipe) -> str:
    """The dtype of what is not quantized, and of calibration: bfloat16 by default, as models are published."""
    dtype = recipe.model.dtype
    if dtype == "auto":
        return "bfloat16"
    if dtype not in DTYPES:
        raise InputError(f"it is not one of {', '.join(DTYPES)}", option=f"model.dtype={dtype}")
    return dtype


def _calibration(recipe: Recipe, scheme: ModelOptScheme) -> dict[str, Value]:
    """Facts that measured scales depend on: the text, its batches, and what computes. Empty if none are measured.

    Threads change the order of sums, and instruction sets the rounding: both change bytes (measured).
    """
    if not _calibrated(recipe, scheme):
        return {}
    options, target = recipe.tools.options, recipe.target
    facts: dict[str, Value] = {
        f"compiler.{name}": options[f"compiler.{name}"] for name in ("calib_batch_size", "calib_max_length")
    }
    facts["compiler.calib_size"] = _samples(recipe, scheme)
    facts |= texts.fact(options[texts.OPTION])
    facts["target.kind"] = target.kind
    if target.gpu is not None and target.kind == "cuda":
        return facts | {
            "target.gpu": target.gpu.name,
            "target.compute_capability": target.gpu.compute_capability,
        }
    return facts | {
        "target.arch": target.arch,
        "target.level": target.level,
        "compiler.threads": options["compiler.threads"],
    }


def _samples(recipe: Recipe, scheme: ModelOptScheme) -> int:
    count = recipe.tools.options["compiler.calib_size"]
    return count if isinstance(count, int) else scheme.samples


def advise(recipe: Recipe) -> Sequence[str]:
    """What a user should know about the calibration and the memory that it takes."""
    scheme = _scheme(recipe)
    notes: list[str] = []
    if _calibrated(recipe, scheme):
        dataset = recipe.tools.options[texts.OPTION]
        notes += texts.advice(scheme, recipe.quant.scheme, _samples(recipe, scheme), dataset)
    if recipe.model.bytes > 4 << 30:
        notes.append(
            f"ModelOpt holds the whole model: about {format_size(recipe.model.bytes)} of memory, first on GPUs, and a "
            "fifth more while it writes"
        )
    return notes


_ONE_VALUE = "the compiler refuses all but one value"
_SERVER = "the server that loads the checkpoint has its own limits"
_DRIVER = "no scale depends on the driver"

COMPILER = Compiler(
    name=NAME,
    steps=steps,
    check="trtbuild.compilers.modelopt.check",
    generate="trtbuild.compilers.modelopt.generate",
    workers=WORKERS,
    schemes=names(PRESETS),
    unread={
        "network.frontend": _ONE_VALUE,
        "parallel.tp": _ONE_VALUE,
        "parallel.pp": _ONE_VALUE,
        "quant.symmetric": _ONE_VALUE,
        "quant.embedding": "ModelOpt leaves the embedding and the head as they are",
        "profile.max_batch_size": _SERVER,
        "profile.max_input_len": _SERVER,
        "profile.max_seq_len": _SERVER,
        "profile.max_num_tokens": _SERVER,
        "key.driver": _DRIVER,
        "target.driver": _DRIVER,
        "target.cuda": _DRIVER,
        "fleet.driver": _DRIVER,
        "fleet.cuda": _DRIVER,
        "target.memory_gb": "no scale depends on the memory of a GPU",
        "target.sm_count": "kernels are chosen by the SKU, which is in the key",
        "target.mig": "kernels are chosen by the SKU, which is in the key",
    },
    hardware=Hardware(frozenset({"cpu", "cuda"})),
    needs=Requirements("nvidia-modelopt", extra="modelopt", toolchains=("network", "modelopt")),
    models=ModelRules(structured=True, transformers=True),
    serving=Serving({"trtllm": serving.trtllm, "vllm": serving.vllm, "sglang": serving.sglang}, serving.check_server),
    folders={"compiler.calib_dataset": True},
    advise=advise,
)
