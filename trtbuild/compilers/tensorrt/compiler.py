"""TensorRT for RTX (ahead of time, without a GPU) and TensorRT (on the GPU at hand): both compile the same network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trtbuild.compilers.base import (
    NETWORK,
    Compiler,
    Hardware,
    Requirements,
    check_parallel,
    check_symmetric,
    group_size,
    network,
    sequence_limits,
    tools,
)
from trtbuild.compilers.tensorrt.options import DEFAULT_SEQUENCE
from trtbuild.errors import InputError
from trtbuild.facts.key import Handling, Step, Worker, hint_key
from trtbuild.facts.recipe import Profile, Recipe, Value, frozen
from trtbuild.networks.config.architectures import SUPPORTED
from trtbuild.targets import CUDA_FACTS, gpu_facts

WORKERS = {
    "network": NETWORK,
    "engine": Worker("trtbuild.compilers.tensorrt", 1),
}
SCHEMES = frozenset({"none", "int8", "int4", "fp8_weights"})
FP8_FROM = (8, 9)  # compute capability; for 8.6: "the model contains HW-specific datatypes: fp8_e4m3"
GROUPS = (16, 32, 64, 128, 256)
#: Best quality, and it divides the sizes of all models that were tried; TensorRT has no padding.
DEFAULT_GROUP = 32
DEFAULT_BATCH = 1
DTYPES = {"auto": "float16", "float16": "float16", "bfloat16": "bfloat16", "float32": "float32"}

#: What TensorRT for RTX 1.7 builds for (`ComputeCapability` of its Python module).
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
EVERY_RTX = "8.0+"
TURING = "7.5"  # no bfloat16, no kernels for integer weights, not in portable engines (NVIDIA's support matrix)
# Releases of TensorRT. Before 10 the parser knows no int4 and no float16 scales.
_FIRST_WITH_INTEGER_WEIGHTS, _FIRST_STRONGLY_TYPED = (10, 0), (9, 1)

_ENGINE_TOOLS = {
    "tensorrt_rtx": ("numpy", "onnx", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs"),
    "tensorrt": ("numpy", "onnx", "tensorrt"),
}


def rtx_steps(recipe: Recipe) -> tuple[Step, ...]:
    """`network` (standard operators) and `engine`, for a compute capability or portable. Raises InputError."""
    _check_common(recipe)
    capability = _capability(recipe)
    if capability == EVERY_RTX:  # target=rtx_any means the same as the option
        options = frozen({**recipe.tools.options, "compiler.portable": True})
        recipe = replace(recipe, tools=replace(recipe.tools, options=options))
    portable = bool(recipe.tools.options["compiler.portable"])
    if capability not in (*RTX_CAPABILITIES, EVERY_RTX):
        raise InputError(
            f"compiler=tensorrt_rtx builds for compute capability {', '.join(RTX_CAPABILITIES)}, and "
            f"target={recipe.target.name} has {capability}",
            option=f"target={recipe.target.name}",
            hint="compiler=tensorrt builds for it, on a machine that has it",
        )
    _check_fp8(recipe, portable)
    if capability == TURING:
        _check_turing(recipe, portable)
    facts: dict[str, Value] = {"target.kind": recipe.target.kind, "target.arch": recipe.target.arch}
    if not portable:
        facts["target.compute_capability"] = capability
    return network(recipe, "standard", _dtype(recipe)), _engine(recipe, facts)


def tensorrt_steps(recipe: Recipe) -> tuple[Step, ...]:
    """`network` (standard operators) and `engine`, for one SKU and driver. Raises InputError."""
    _check_common(recipe)
    release = recipe.tools.packages["tensorrt"]
    if recipe.quant.weights != "none" and _release(release) < _FIRST_WITH_INTEGER_WEIGHTS:
        raise InputError(
            f"TensorRT {release} has no {recipe.quant.weights} weights with {_dtype(recipe)} activations",
            option=f"quant={recipe.quant.scheme}",
            hint="it takes quant=none; TensorRT 10 and later have them",
        )
    _check_fp8(recipe, portable=recipe.tools.options.get("compiler.hardware_compatibility") == "ampere_plus")
    # Before 9.1, which has strongly typed networks, the builder chooses types, and a norm must be one layer.
    weakly = _release(release) < _FIRST_STRONGLY_TYPED and _dtype(recipe) != "float32"
    operators = "standard_layer_norm" if weakly else "standard"
    return network(recipe, operators, _dtype(recipe)), _engine(recipe, gpu_facts(recipe.target, recipe.driver_policy))


def _check_common(recipe: Recipe) -> None:
    name = recipe.tools.name
    check_parallel(recipe)
    if recipe.frontend != "native":
        raise InputError(
            f"compiler={name} reads trtbuild's own networks, of {', '.join(SUPPORTED)}, and this one would come from "
            f"onnxruntime-genai's builder ({recipe.model.architecture})",
            option="network.frontend",
            hint="compiler=onnxruntime builds it",
        )
    check_symmetric(recipe, "TensorRT takes no zero points")


def _check_fp8(recipe: Recipe, portable: bool) -> None:
    """Raises InputError for fp8 on GPUs without it, and in a portable engine, which also runs on such GPUs."""
    capability = tuple(map(int, _capability(recipe).rstrip("+").split(".")))
    if recipe.quant.weights == "fp8" and (portable or capability < FP8_FROM):
        what = "a portable engine" if portable else f"target={recipe.target.name}"
        raise InputError(
            f"fp8 needs compute capability 8.9, and {what} has {_capability(recipe) if not portable else '8.0'}",
            option=f"quant={recipe.quant.scheme}",
            hint="quant=int8 takes the same room",
        )


def _check_turing(recipe: Recipe, portable: bool) -> None:
    if portable:
        raise InputError(
            f"a portable engine runs from compute capability 8.0 on, and target={recipe.target.name} has {TURING}",
            option="compiler.portable=true",
            hint="leave compiler.portable out: an engine for 7.5 alone is built",
        )
    if recipe.quant.weights != "none":
        raise InputError(
            f"TensorRT for RTX has no {recipe.quant.weights} weights for compute capability {TURING}",
            option=f"quant={recipe.quant.scheme}",
            hint="quant=none builds in float16",
        )
    if recipe.model.dtype == "bfloat16":
        raise InputError(
            f"compute capability {TURING} has no bfloat16",
            option="model.dtype=bfloat16",
            hint="leave model.dtype=auto: float16",
        )


def _engine(recipe: Recipe, hardware: Mapping[str, Value]) -> Step:
    lock, versions = tools(recipe.tools, recipe.tools.name, _ENGINE_TOOLS[recipe.tools.name])
    name = recipe.tools.name
    facts: dict[str, Value] = {
        "compiler.name": name,
        **recipe.tools.options,
        "model.dtype": _dtype(recipe),
        "quant.weights": recipe.quant.weights,
        **_limits(recipe.profile),
        **hardware,
        **versions,
    }
    if recipe.quant.weights == "int4":
        facts["quant.group_size"] = group_size(recipe, DEFAULT_GROUP, GROUPS)
    tuned = {**hardware, "compiler.name": name, "compiler.version": recipe.tools.packages.get(name, "")}
    return Step(
        "engine",
        WORKERS["engine"],
        frozen(facts),
        inputs=("network",),
        lock=lock,
        # TensorRT for RTX times no kernels
        handling=Handling(loads=True, hint=hint_key(tuned) if name == "tensorrt" else None),
    )


def _limits(profile: Profile) -> dict[str, Value]:
    """The profile with defaults filled in: an engine has its limits compiled in. Raises InputError."""
    sequence = profile.max_seq_len
    if sequence is None:
        sequence = max(DEFAULT_SEQUENCE, 2 * (profile.max_input_len or 0))
    limits = sequence_limits(sequence, profile.max_input_len or sequence // 2)
    return {"profile.max_batch_size": profile.max_batch_size or DEFAULT_BATCH, **limits}


def _dtype(recipe: Recipe) -> str:
    return DTYPES[recipe.model.dtype]


def _capability(recipe: Recipe) -> str:
    gpu = recipe.target.gpu
    if gpu is None:
        raise ValueError(f"the target {recipe.target.name} has no GPU")
    return gpu.compute_capability


def _release(version: str) -> tuple[int, ...]:
    """(8, 6) for 8.6.0; a version that cannot be read counts as new."""
    parts = version.split(".")[:2]
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else _FIRST_WITH_INTEGER_WEIGHTS


_ONE_VALUE = "both compilers refuse all but one value"
_UNREAD = {
    "network.frontend": _ONE_VALUE,
    "profile.max_num_tokens": "an engine's shapes are sequences times tokens",
    "quant.activations": _ONE_VALUE,
    "quant.method": _ONE_VALUE,
    "quant.kv_cache": _ONE_VALUE,
    "quant.symmetric": _ONE_VALUE,
    "quant.embedding": "embedding and head stay in 16 bits, as in NVIDIA's own recipes",
    "parallel.tp": _ONE_VALUE,
    "parallel.pp": _ONE_VALUE,
    "target.level": "the engine does not depend on the builder's CPU",
}
_ANY_SKU = "an engine is for a compute capability: what is left is compiled on the GPU that loads it"

RTX = Compiler(
    name="tensorrt_rtx",
    steps=rtx_steps,
    check="trtbuild.compilers.tensorrt.check",
    generate="trtbuild.compilers.tensorrt.generate",
    workers=WORKERS,
    schemes=SCHEMES,
    unread={
        **_UNREAD,
        **dict.fromkeys((f"target.{name}" for name in CUDA_FACTS if name != "compute_capability"), _ANY_SKU),
        "key.driver": _ANY_SKU,
        "fleet.driver": _ANY_SKU,
        "fleet.cuda": _ANY_SKU,
    },
    hardware=Hardware(
        frozenset({"cuda"}),
        frozenset({"target.kind", "target.arch", "target.compute_capability"}),
        portable=True,
    ),
    needs=Requirements("tensorrt-rtx-cu13-bindings", extra="tensorrt-rtx", toolchains=("network", "tensorrt_rtx")),
)

TENSORRT = Compiler(
    name="tensorrt",
    steps=tensorrt_steps,
    check="trtbuild.compilers.tensorrt.check",
    generate="trtbuild.compilers.tensorrt.generate",
    workers=WORKERS,
    schemes=SCHEMES,
    unread=_UNREAD,
    hardware=Hardware(frozenset({"cuda"})),
    # Its own packages are on NVIDIA's index: a team locks them, or names a Python.
    needs=Requirements("tensorrt", extra="tensorrt", toolchains=("network",)),
)
