"""PyTorch's ahead-of-time Inductor: one engine without weights for all models of a structure, and their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trtbuild.compilers.aot_inductor.options import DEFAULT_GROUP, DEFAULT_SEQUENCE, FP8_FROM, GROUPS, LEVELS
from trtbuild.compilers.aot_inductor.structure import Structure, linears
from trtbuild.compilers.base import (
    NETWORK_TOOLS,
    UNPACK,
    Compiler,
    Hardware,
    ModelRules,
    Requirements,
    check_parallel,
    group_size,
    sequence_limits,
    tools,
)
from trtbuild.compilers.modelopt import compiler as modelopt
from trtbuild.errors import InputError
from trtbuild.facts.key import Handling, Step, Worker
from trtbuild.facts.recipe import Recipe, Value, frozen
from trtbuild.networks.config.architectures import GGUF_SUPPORTED, SUPPORTED, parse
from trtbuild.networks.config.decoder import Decoder

WORKERS = {
    "unpack": UNPACK,
    "checkpoint": modelopt.WORKERS["checkpoint"],  # of quant=fp8
    "weights": Worker("trtbuild.compilers.aot_inductor.weights_worker", 3),
    "engine": Worker("trtbuild.compilers.aot_inductor", 2),
    "link": Worker("trtbuild.compilers.aot_inductor.link", 1),
}
_ENGINE_TOOLS = ("torch",)  # which pins its Triton
_BLOCK = 16  # cuBLAS's FP8 kernels take rows and columns in multiples of it
#: What a GPU's engine is bound to: its machine code, and the number of multiprocessors that kernels were chosen for.
_GPU_FACTS = ("compute_capability", "sm_count", "mig")


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """`engine`, `weights` and `link`; or with embedded weights `weights` and `engine`. Raises InputError."""
    decoder = _decoder(recipe)
    structure = Structure.of(decoder)
    _check(recipe, structure)
    first = _quantized(recipe)
    weights = _weights(recipe, structure)
    if recipe.tools.options["compiler.weights"] == "embedded":
        return *first, weights, _engine(recipe, decoder, ("weights",))
    handling = Handling(loads=True, loaded_in="engine")
    link = Step("link", WORKERS["link"], {}, inputs=("engine", "weights"), handling=handling)
    return *first, _engine(recipe, decoder, ()), weights, link


def _quantized(recipe: Recipe) -> tuple[Step, ...]:
    """The steps that make ModelOpt's checkpoint, for quant=fp8."""
    if recipe.quant.weights != "fp8":
        return ()
    *first, checkpoint = modelopt.checkpoint_steps(recipe, _dtype(recipe))
    return *first, replace(checkpoint, handling=Handling())


def _check_fp8(recipe: Recipe, structure: Structure) -> None:
    target, gpu = recipe.target, recipe.target.gpu
    capability = None if gpu is None or target.kind == "cpu" else gpu.compute_capability
    if capability is None or tuple(map(int, capability.split("."))) < FP8_FROM:
        raise InputError(
            f"FP8 is computed by GPUs of compute capability {FP8_FROM[0]}.{FP8_FROM[1]} or more, and "
            f"target={target.name} {'is a CPU' if capability is None else f'has {capability}'}",
            option=f"quant={recipe.quant.scheme}",
            hint="quant=int8 runs on every target",
        )
    if recipe.quant.kv_cache != "auto":
        raise InputError(
            "keys and values are kept in bfloat16 here",
            option=f"quant.kv_cache={recipe.quant.kv_cache}",
            hint="leave quant.kv_cache=auto",
        )
    for name, rows, columns, _ in linears(structure):
        if rows % _BLOCK or columns % _BLOCK:
            raise InputError(
                f"{name} of this model is {rows} x {columns}, and PyTorch multiplies FP8 in blocks of {_BLOCK}",
                option=f"quant={recipe.quant.scheme}",
                hint="choose quant=int8",
            )


def _decoder(recipe: Recipe) -> Decoder:
    if recipe.model.described is None:
        raise InputError(
            "the model's config is not known before its download, and the engine's key reads it",
            option="model.wheel.config",
            hint="pin model.wheel.config, the fields of a config.json, or name a folder or a repository of the Hub",
        )
    return parse(recipe.model.described)


def _check(recipe: Recipe, structure: Structure) -> None:
    check_parallel(recipe)
    if recipe.frontend != "native":
        raise InputError(
            f"compiler=aot_inductor builds {', '.join(SUPPORTED)} (of GGUF: {', '.join(GGUF_SUPPORTED)}), and this "
            f"model is a {recipe.model.architecture}",
            option="network.frontend",
            hint="compiler=onnxruntime takes more, by onnxruntime-genai's builder",
        )
    if (recipe.profile.max_batch_size or 1) != 1:
        raise InputError(
            "compiler=aot_inductor answers one sequence at a time",
            option=f"profile.max_batch_size={recipe.profile.max_batch_size}",
            hint="leave profile.max_batch_size out; compiler=tensorrt and tensorrt_rtx build for batches",
        )
    target = recipe.target
    if target.kind == "cpu" and target.level not in LEVELS:
        raise InputError(
            f"compiler=aot_inductor builds for CPUs of {' and '.join(LEVELS)}, and target={target.name} is "
            f"{target.level}",
            option=f"target={target.name}",
            hint="compiler=onnxruntime builds for it",
        )
    if recipe.quant.symmetric is not None:
        raise InputError(
            "int8 has no zero points here, and int4 always has them",
            option="quant.symmetric",
            hint="leave quant.symmetric out",
        )
    if recipe.quant.weights == "int4":
        _check_groups(recipe, structure)
    if recipe.quant.weights == "fp8":
        _check_fp8(recipe, structure)


def _check_groups(recipe: Recipe, structure: Structure) -> None:
    group = group_size(recipe, DEFAULT_GROUP, GROUPS)
    for name, rows, columns, _ in linears(structure):
        if columns % max(group, 32) or rows % 8:
            raise InputError(
                f"{name} of this model is {rows} x {columns}, and PyTorch's 4-bit kernels take rows by eights, and "
                f"columns by {max(group, 32)}",
                option=f"quant={recipe.quant.scheme}",
                hint="choose a quant.group_size that divides, or quant=int8",
            )


def _weights(recipe: Recipe, structure: Structure) -> Step:
    lock, versions = tools(recipe.tools, "network", NETWORK_TOOLS)
    facts: dict[str, Value] = {**structure.facts(), **_scheme(recipe), **versions}
    inputs = ("checkpoint",) if recipe.quant.weights == "fp8" else ()
    return Step("weights", WORKERS["weights"], frozen(facts), reads_model=True, inputs=inputs, lock=lock)


def _engine(recipe: Recipe, decoder: Decoder, inputs: tuple[str, ...]) -> Step:
    structure = Structure.of(decoder)
    lock, versions = tools(recipe.tools, "aot_inductor", _ENGINE_TOOLS)
    facts: dict[str, Value] = {
        "compiler.name": recipe.tools.name,
        "compiler.max_autotune": recipe.tools.options["compiler.max_autotune"],
        **structure.facts(),
        **_scheme(recipe),
        **_limits(recipe, decoder.max_positions),
        **_hardware(recipe),
        **versions,
    }
    label = None if inputs else f"any of {structure.layers} x {structure.hidden}"
    handling = Handling(loads=bool(inputs), label=label)
    return Step("engine", WORKERS["engine"], frozen(facts), inputs=inputs, lock=lock, handling=handling)


def _scheme(recipe: Recipe) -> dict[str, Value]:
    quant = recipe.quant
    facts: dict[str, Value] = {"model.dtype": _dtype(recipe), "quant.weights": quant.weights}
    if quant.weights in ("int8", "int4"):
        facts["quant.embedding"] = quant.embedding
    if quant.weights == "int4":
        facts["quant.group_size"] = quant.group_size or DEFAULT_GROUP
    return facts


def _dtype(recipe: Recipe) -> str:
    """float32 on a CPU, where 16 bits are slower; bfloat16 on GPUs and for quantized weights."""
    quantized = recipe.quant.weights != "none"
    if recipe.model.dtype == "auto":
        return "float32" if recipe.target.kind == "cpu" and not quantized else "bfloat16"
    if quantized and recipe.model.dtype != "bfloat16":
        raise InputError(
            f"PyTorch's kernels for {recipe.quant.weights} weights compute in bfloat16",
            option=f"model.dtype={recipe.model.dtype}",
            hint="leave model.dtype=auto",
        )
    return recipe.model.dtype


def _limits(recipe: Recipe, context: int) -> dict[str, Value]:
    sequence = recipe.profile.max_seq_len or min(DEFAULT_SEQUENCE, context)
    return sequence_limits(sequence, recipe.profile.max_input_len or sequence - 1)


def _hardware(recipe: Recipe) -> dict[str, Value]:
    """Facts that decide machine code and the choice of kernels: on a GPU also the SKU, if kernels are timed."""
    target, gpu = recipe.target, recipe.target.gpu
    facts: dict[str, Value] = {"target.kind": target.kind, "target.arch": target.arch}
    if target.kind == "cpu" or gpu is None:
        return {**facts, "target.level": target.level}
    timed = ("gpu", "memory_gb") if recipe.tools.options["compiler.max_autotune"] else ()
    values: Mapping[str, Value] = {
        "gpu": gpu.name,
        "memory_gb": gpu.memory_gb,
        "compute_capability": gpu.compute_capability,
        "sm_count": gpu.sm_count,
        "mig": gpu.mig,
    }
    return {**facts, **{f"target.{name}": values[name] for name in (*_GPU_FACTS, *timed)}}


def advise(recipe: Recipe) -> Sequence[str]:
    """What a user should know about the calibration of quant=fp8."""
    return modelopt.advise(recipe) if recipe.quant.weights == "fp8" else ()


_ONE_VALUE = "the compiler refuses all but one value"
_CUBIN = "kernels are machine code for a compute capability, which any driver of that CUDA release loads"

COMPILER = Compiler(
    name="aot_inductor",
    steps=steps,
    check="trtbuild.compilers.aot_inductor.check",
    generate="trtbuild.compilers.aot_inductor.generate",
    workers=WORKERS,
    schemes=frozenset({"none", "int8", "int4", "fp8"}),
    unread={
        "network.frontend": _ONE_VALUE,
        "profile.max_batch_size": _ONE_VALUE,
        "profile.max_num_tokens": "a call is one sequence: its limit is profile.max_input_len",
        "quant.activations": _ONE_VALUE,
        "quant.method": _ONE_VALUE,
        "quant.kv_cache": _ONE_VALUE,
        "quant.symmetric": _ONE_VALUE,
        "parallel.tp": _ONE_VALUE,
        "parallel.pp": _ONE_VALUE,
        "compiler.threads": "a GPU measures the scales of quant=fp8, and its threads are its own",
        "key.driver": _CUBIN,
        "target.driver": _CUBIN,
        "target.cuda": _CUBIN,
        "fleet.driver": _CUBIN,
        "fleet.cuda": _CUBIN,
    },
    hardware=Hardware(frozenset({"cpu", "cuda"}), cross_built=frozenset({"target.level"})),
    needs=Requirements("torch", extra="aot-inductor", toolchains=("network", "modelopt", "aot_inductor"), cxx=True),
    models=ModelRules(structured=True),
    folders={"compiler.calib_dataset": True},
    advise=advise,
)
