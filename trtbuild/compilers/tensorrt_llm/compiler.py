"""TensorRT-LLM: which recipes it can make, its steps, and the facts that they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trtbuild.compilers.base import (
    UNPACK,
    Compiler,
    Hardware,
    ModelRules,
    Requirements,
    Serving,
    check_symmetric,
    unpack,
)
from trtbuild.compilers.tensorrt_llm import checkpoint_steps, memory_estimate, rules, serving
from trtbuild.compilers.tensorrt_llm.algorithms import AlgorithmScheme, schemes
from trtbuild.compilers.tensorrt_llm.arguments import BUILD
from trtbuild.compilers.tensorrt_llm.contract import UNEXECUTED, VERSION, contract
from trtbuild.errors import InputError
from trtbuild.facts.key import Handling, Step, Worker, hint_key
from trtbuild.facts.recipe import SCHEMES, Profile, Recipe, Value, frozen
from trtbuild.targets import gpu_facts
from trtstore import format_size

WORKERS = {
    "unpack": UNPACK,
    "checkpoint": checkpoint_steps.SCRIPTS,
    "checkpoint (modelopt)": checkpoint_steps.MODELOPT,
    "stripped": Worker("trtbuild.compilers.tensorrt_llm.engine", 1),
    "engine": Worker("trtbuild.compilers.tensorrt_llm.engine", 1),
}
_ENGINE_TOOLS = ("tensorrt_llm", "tensorrt")
_GIB = 1 << 30
_COUNTED = ("target.gpus=", "detected")  # origins of a number of GPUs that is known, not a default


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """`unpack` (for a GGUF), `checkpoint`, `stripped` (with compiler.strip_plan) and `engine`. Raises InputError."""
    scheme = _check(recipe)
    first = (unpack(recipe, checkpoint_steps.dtype(recipe)),) if recipe.model.gguf else ()
    checkpoint = checkpoint_steps.step(recipe, scheme)
    engine = _engine(recipe, ("checkpoint",))
    if not recipe.tools.options["compiler.strip_plan"]:
        return (*first, checkpoint, engine)
    stripped = replace(engine, name="stripped", handling=replace(engine.handling, loads=False))
    return (*first, checkpoint, stripped, _refit(recipe))


def _check(recipe: Recipe) -> AlgorithmScheme:
    options, quant = recipe.tools.options, recipe.quant
    _check_release(recipe)
    architecture = checkpoint_steps.architecture(recipe)
    scheme = rules.scheme((quant.weights, quant.activations, quant.method, quant.kv_cache), architecture, options)
    gpu = checkpoint_steps.gpu(recipe)
    rules.check_hardware(scheme, gpu.compute_capability, quant.scheme, recipe.target.name)
    rules.check_plugins(options, gpu.compute_capability, recipe.target.name)
    rules.check_options(options)
    rules.check_mapping(options, scheme, rules.family(architecture))
    config = recipe.model.config or {}
    rules.check_gptq(config, scheme)
    rules.check_shapes(config, _ranks(recipe), scheme.grouped, quant.group_size)
    _check_quant(recipe, scheme)
    _check_ranks(recipe)
    checkpoint_steps.check(recipe, scheme)
    _limits(recipe)
    need = _need(recipe, scheme)
    if need is not None and need.sequences(gpu.memory_gb * _GIB, 1) < 1:
        raise _too_large(recipe, need)
    return scheme


def _check_release(recipe: Recipe) -> None:
    release = recipe.tools.packages.get("tensorrt_llm")
    if release is not None and not release.startswith(f"{VERSION}."):
        raise InputError(
            f"trtbuild has the contract of TensorRT-LLM {VERSION}, and this is {release}",
            option="compiler.version",
            hint="from 1.3 on TensorRT-LLM builds no engines; of 1.2 the last is 1.2.1",
        )


def _ranks(recipe: Recipe) -> rules.Ranks:
    cp = recipe.tools.options["compiler.cp_size"]
    if not isinstance(cp, int) or cp < 1:
        raise InputError(f"{cp} is not above 0", option="compiler.cp_size")
    return rules.Ranks(recipe.tp, recipe.pp, cp)


def _check_quant(recipe: Recipe, scheme: AlgorithmScheme) -> None:
    check_symmetric(recipe, "TensorRT-LLM's formats have no zero points here")
    if recipe.quant.group_size and scheme.algorithm == "W4A16":
        raise InputError(
            "W4A16 has one scale for each output, and no groups",
            option="quant.group_size",
            hint="leave it out, or take quant=int4_awq, which has groups",
        )


def _check_ranks(recipe: Recipe) -> None:
    """Raises InputError for more ranks than GPUs, if the number of GPUs is known."""
    world, origins = _ranks(recipe).world, recipe.target.origins or {}
    if world > recipe.target.gpus and str(origins.get("gpus")).startswith(_COUNTED):
        raise InputError(
            f"the engine is for {world} GPUs (tp x pp x cp), and {recipe.target.name} has {recipe.target.gpus}",
            option="parallel.tp" if recipe.tp > 1 else "parallel.pp",
            hint=f"target.gpus={world} says that it will run on as many; one GPU builds all ranks",
        )


def _limits(recipe: Recipe) -> dict[str, Value]:
    """The profile with defaults filled in. Raises InputError."""
    profile: Profile = recipe.profile
    defaults = contract()["build_config"]
    most = rules.positions(recipe.model.config or {})
    sequence = profile.max_seq_len or most
    if most is not None and (sequence or 0) > most and not recipe.tools.options["compiler.streamingllm"]:
        raise InputError(
            f"{sequence} is beyond the model's {most} positions, its rope scaling counted",
            option="profile.max_seq_len",
            hint=f"choose at most {most}, or leave it out; compiler.streamingllm=true goes beyond",
        )
    default = defaults["max_input_len"]["default"]
    longest = profile.max_input_len or (default if sequence is None else min(default, sequence))
    if sequence is not None and longest > sequence:
        raise InputError(
            f"{longest} is more than profile.max_seq_len={sequence}",
            option="profile.max_input_len",
            hint=f"choose at most {sequence}",
        )
    return {
        "profile.max_batch_size": profile.max_batch_size or defaults["max_batch_size"]["default"],
        "profile.max_input_len": longest,
        "profile.max_seq_len": sequence,
        "profile.max_num_tokens": profile.max_num_tokens or defaults["max_num_tokens"]["default"],
    }


def _engine(recipe: Recipe, inputs: tuple[str, ...]) -> Step:
    lock, versions = checkpoint_steps.packages(recipe, _ENGINE_TOOLS)
    hardware = gpu_facts(recipe.target, recipe.driver_policy)
    facts: dict[str, Value] = {
        "compiler.name": recipe.tools.name,
        **{f"compiler.{name}": recipe.tools.options[f"compiler.{name}"] for name in BUILD},
        **_limits(recipe),
        **hardware,
        **versions,
    }
    # A timing cache serves one SKU and one release of TensorRT and CUDA; trtllm-build cannot join several.
    timed = hint_key({"compiler.name": recipe.tools.name, **hardware, **versions})
    handling = Handling(loads=True, hint=timed, max_hints=1)
    return Step("engine", WORKERS["engine"], frozen(facts), inputs=inputs, lock=lock, handling=handling)


def _refit(recipe: Recipe) -> Step:
    """The stripped plan with the checkpoint's weights: needs the GPU, too, but no time to choose kernels.

    The team store gets the plan, which has megabytes, and not the refitted engine.
    """
    lock, versions = checkpoint_steps.packages(recipe, _ENGINE_TOOLS)
    facts: dict[str, Value] = {
        "compiler.name": recipe.tools.name,
        **gpu_facts(recipe.target, recipe.driver_policy),
        **versions,
    }
    return Step(
        "engine",
        WORKERS["engine"],
        frozen(facts),
        inputs=("checkpoint", "stripped"),
        lock=lock,
        handling=Handling(loads=True, shared=False),
    )


def _need(recipe: Recipe, scheme: AlgorithmScheme) -> memory_estimate.GpuMemory | None:
    shape = memory_estimate.DecoderSizes.of(recipe.model.config or {})
    if shape is None:
        return None
    limits = _limits(recipe)
    tokens, batch = limits["profile.max_num_tokens"], limits["profile.max_batch_size"]
    return memory_estimate.estimate(shape, scheme, _ranks(recipe), _whole(tokens), _whole(batch))


def _whole(value: Value) -> int:
    return value if isinstance(value, int) else 0


def _too_large(recipe: Recipe, need: memory_estimate.GpuMemory) -> InputError:
    return InputError(
        f"the engine does not fit {recipe.target.name}: weights take {format_size(need.weights)}, activations "
        f"{format_size(need.activations)} and CUDA about {format_size(memory_estimate.RESERVED)}, and it has "
        f"{checkpoint_steps.gpu(recipe).memory_gb} GB (an estimate: docs/tensorrt-llm.md)",
        option="quant" if recipe.quant.weights == "none" else "parallel.tp",
        hint="smaller: quant=int4_awq or quant=int8; over several GPUs: parallel.tp=2; or fewer activations: "
        "profile.max_num_tokens=2048 profile.max_batch_size=32",
    )


def advise(recipe: Recipe) -> Sequence[str]:
    """That no engine of this compiler was executed, what its scales rest on, and an estimate of memory."""
    scheme = _check(recipe)
    notes = [UNEXECUTED, *checkpoint_steps.advise(recipe)]
    need, sequence = _need(recipe, scheme), _limits(recipe)["profile.max_seq_len"]
    if need is not None and isinstance(sequence, int):
        fit = need.sequences(checkpoint_steps.gpu(recipe).memory_gb * _GIB, sequence)
        whole = f"{format_size(need.token * sequence)} of KV cache for {sequence} tokens"
        if fit < 1:
            notes.append(
                f"memory: not one sequence of profile.max_seq_len fits {recipe.target.name} ({whole} beside "
                f"{format_size(need.weights)} of weights): shorter ones do, or lower profile.max_seq_len"
            )
        else:
            notes.append(
                f"memory: about {format_size(need.weights)} of weights a GPU; {fit} sequences of full length at once "
                f"({whole})"
            )
    return notes


_NO_NETWORK = "these engines start from TensorRT-LLM's own checkpoint, not from an ONNX graph"
_UNREAD: dict[str, str] = {
    "network.frontend": _NO_NETWORK,
    "quant.symmetric": "tensorrt_llm refuses all but one value",
    "quant.embedding": "NVIDIA's tools do not quantize the embedding; compiler.quantize_lm_head is for the head",
    "target.level": "the engine does not depend on the builder's CPU",
}


COMPILER = Compiler(
    name="tensorrt_llm",
    steps=steps,
    check="trtbuild.compilers.tensorrt_llm.check",
    generate="trtbuild.compilers.tensorrt_llm.generate",
    workers=WORKERS,
    schemes=schemes(SCHEMES),
    unread=_UNREAD,
    hardware=Hardware(frozenset({"cuda"})),
    needs=Requirements(
        "tensorrt_llm",
        extra="tensorrt-llm",
        # For `unpack` and `checkpoint`; TensorRT-LLM itself comes with NVIDIA's image, or from NVIDIA's index.
        toolchains=("network", "modelopt_trtllm"),
        separate=("modelopt_trtllm",),  # `compiler.packages` is about the Python that has TensorRT-LLM
        image=True,
    ),
    models=ModelRules(networks=False, transformers=True),
    serving=Serving({"trtllm": serving.trtllm, "triton": serving.triton}),
    folders={"compiler.calib_dataset": True, "compiler.lora_dir": False},
    advise=advise,
)
