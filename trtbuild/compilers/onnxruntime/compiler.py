"""ONNX Runtime: weight-only int8 and int4 as MatMulNBits, in the layout that onnxruntime-genai runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trtbuild.compilers.base import (
    NETWORK,
    Compiler,
    Hardware,
    ModelRules,
    Requirements,
    check_parallel,
    network,
    tools,
)
from trtbuild.compilers.onnxruntime.options import ACCURACY_LEVELS, DEFAULT_GROUP, GROUPS
from trtbuild.errors import InputError
from trtbuild.facts.key import Handling, Step, Worker
from trtbuild.facts.recipe import Quant, Recipe, Value, frozen
from trtbuild.networks.genai import families
from trtbuild.networks.tokenizer import rewrite, text_normalizer
from trtbuild.networks.weights.layout import check_fused
from trtbuild.targets import CUDA_FACTS

_RIGHT_UP_TO = "with this longrope an engine is right up to original_max_position_embeddings={}, its context"

WORKERS = {
    "network": NETWORK,
    "engine": Worker("trtbuild.compilers.onnxruntime", 1),
}

# The packages that decide the bytes of each step, as their locks choose them.
_GENAI_TOOLS = (
    "gguf",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-genai",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)
# The network step compares how onnxruntime-genai and tokenizers split texts, and refuses if they differ.
_NETWORK_TOOLS = ("gguf", "jinja2", "numpy", "onnx", "onnxruntime-genai", "safetensors", "tokenizers")
_ENGINE_TOOLS = ("numpy", "onnx", "onnxruntime", "onnxruntime-genai")


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """`network` (fused operators, float32) and `engine` (quantized, optimized). Raises InputError."""
    check_parallel(recipe)
    if recipe.model.dtype not in ("auto", "float32"):
        raise InputError(
            f"compiler=onnxruntime computes in float32 on a CPU, and model.dtype={recipe.model.dtype} was asked for",
            option="model.dtype",
            hint="leave model.dtype=auto; quant=int8 or quant=int4 makes the engine smaller",
        )
    return (_network(recipe), _engine(recipe))


def _network(recipe: Recipe) -> Step:
    if recipe.frontend == "native":
        return network(recipe, "fused", "float32", toolchain="onnxruntime", names=_NETWORK_TOOLS)
    return network(recipe, "fused", "float32", toolchain="genai", names=_GENAI_TOOLS)


def _engine(recipe: Recipe) -> Step:
    quant = recipe.quant
    quantized = quant.weights != "none"
    lock, versions = tools(recipe.tools, "onnxruntime", _ENGINE_TOOLS)
    facts: dict[str, Value] = {
        "compiler.name": recipe.tools.name,  # two compilers may read equal facts
        "quant.weights": quant.weights,
        "compiler.optimization": recipe.tools.options["compiler.optimization"],
        "profile.max_seq_len": _limit(recipe),
        # The optimized graph is the same for every x86-64 CPU (measured: AVX2, AVX-512), not for every architecture.
        "target.kind": recipe.target.kind,
        "target.arch": recipe.target.arch,
        **versions,
    }
    if quantized:
        facts |= {
            "quant.group_size": _among("quant.group_size", quant.group_size or DEFAULT_GROUP, GROUPS),
            "quant.symmetric": _symmetric(quant),
            "quant.embedding": quant.embedding,
            "compiler.accuracy_level": _among(
                "compiler.accuracy_level", recipe.tools.options["compiler.accuracy_level"], ACCURACY_LEVELS
            ),
        }
    return Step(
        "engine",
        WORKERS["engine"],
        frozen(facts),
        inputs=("network",),
        lock=lock,
        handling=Handling(loads=True),
    )


def _limit(recipe: Recipe) -> int | None:
    """`profile.max_seq_len`; None for the model's own context, which gives the same bytes as no limit. InputError."""
    wanted, longest = recipe.profile.max_seq_len, _longest(recipe)
    if longest is not None and wanted is not None and wanted > longest:
        raise InputError(
            f"profile.max_seq_len={wanted}: {_RIGHT_UP_TO.format(longest)}",
            option="profile.max_seq_len",
            hint=f"choose at most {longest}, or leave it out",
        )
    return None if wanted == recipe.model.context else wanted


def _longest(recipe: Recipe) -> int | None:
    config = recipe.model.config
    return families.longest(config) if recipe.frontend == "genai" and config is not None else None


def advise(recipe: Recipe) -> Sequence[str]:
    """What a user should know about networks by onnxruntime-genai's builder."""
    if recipe.frontend != "genai":
        return ()
    longest = _longest(recipe)
    note = "onnxruntime-genai's builder makes this network: a tiny model of its family was compared with transformers"
    return (note,) if longest is None else (note, _RIGHT_UP_TO.format(longest))


def _symmetric(quant: Quant) -> bool:
    # At 4 bits a zero point is worth its 3 % of size (SmolLM2: loss 3.351 against 3.377) and costs no speed.
    return quant.weights != "int4" if quant.symmetric is None else quant.symmetric


def _among(option: str, value: Value, allowed: tuple[int, ...]) -> Value:
    if value not in allowed:
        raise InputError(f"{option}={value} is not one of {', '.join(map(str, allowed))}", option=option)
    return value


_SHAPES = "ONNX Runtime's engines take any shape"
_ONE_VALUE = "onnxruntime refuses all but one value"
_NO_GPU = "these engines run on a CPU"


def tokenizer_notes(tokenizer: Mapping[str, Any]) -> Sequence[str]:
    """Sentences on what this tokenizer does to a text and onnxruntime-genai does not. Raises InputError."""
    rewrite.refuse(tokenizer)
    return text_normalizer.notes(rewrite.asked_before(tokenizer))


UNREAD = {
    "model.dtype": "the step reads what it was resolved to, float32",
    "profile.max_batch_size": _SHAPES,
    "profile.max_input_len": _SHAPES,
    "profile.max_num_tokens": _SHAPES,
    "quant.activations": _ONE_VALUE,
    "quant.method": _ONE_VALUE,
    "quant.kv_cache": _ONE_VALUE,
    "parallel.tp": _ONE_VALUE,
    "parallel.pp": _ONE_VALUE,
    "target.level": "the bytes are equal on AVX2 and AVX-512 (tests/building/test_instruction_sets.py)",
    **dict.fromkeys((f"target.{name}" for name in CUDA_FACTS), _NO_GPU),
    "key.driver": _NO_GPU,
    "fleet.driver": _NO_GPU,
    "fleet.cuda": _NO_GPU,
}

COMPILER = Compiler(
    name="onnxruntime",
    steps=steps,
    check="trtbuild.compilers.onnxruntime.check",
    generate="trtbuild.compilers.onnxruntime.generate",
    workers=WORKERS,
    schemes=frozenset({"none", "int8", "int4"}),
    unread=UNREAD,
    hardware=Hardware(frozenset({"cpu"})),
    needs=Requirements("onnxruntime", extra="onnxruntime", toolchains=("onnxruntime", "genai")),
    models=ModelRules(check_decoder=check_fused, tokenizer_notes=tokenizer_notes),
    advise=advise,
)
