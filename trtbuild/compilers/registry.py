"""All compilers by name, and the steps that they make of a recipe.

A new compiler needs a package here, a YAML in `conf/compiler/`, a lock in `conf/toolchain/`, a schema class, and tests.
"""

from __future__ import annotations

from trtbuild.compilers.aot_inductor import compiler as aot_inductor
from trtbuild.compilers.base import NETWORK, UNPACK, Compiler
from trtbuild.compilers.modelopt import compiler as modelopt
from trtbuild.compilers.onnxruntime import compiler as onnxruntime
from trtbuild.compilers.tensorrt import compiler as tensorrt
from trtbuild.compilers.tensorrt_llm import compiler as tensorrt_llm
from trtbuild.errors import InputError
from trtbuild.facts.key import Step, Worker
from trtbuild.facts.recipe import Recipe
from trtbuild.targets.facts import is_class

COMPILERS: dict[str, Compiler] = {
    compiler.name: compiler
    for compiler in (
        onnxruntime.COMPILER,
        tensorrt.RTX,
        tensorrt.TENSORRT,
        tensorrt_llm.COMPILER,
        aot_inductor.COMPILER,
        modelopt.COMPILER,
    )
}


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """The compiler's steps for this recipe, upstream first.

    Raises InputError if the compiler does not support the quantization or the hardware.
    """
    compiler = COMPILERS[recipe.tools.name]
    if recipe.quant.scheme not in compiler.schemes:
        raise _no_such_quantization(recipe, compiler)
    if recipe.target.kind not in compiler.hardware.kinds:
        raise InputError(
            f"compiler={compiler.name} builds for {' and '.join(sorted(compiler.hardware.kinds))}, "
            f"and target={recipe.target.name} is a {recipe.target.kind} target",
            option="target",
        )
    gpu = recipe.target.gpu
    if (
        recipe.target.kind == "cuda"
        and gpu is not None
        and is_class(gpu.compute_capability)
        and not compiler.hardware.portable
    ):
        portable = ", ".join(sorted(name for name, other in COMPILERS.items() if other.hardware.portable))
        raise InputError(
            f"{gpu.name} ({gpu.compute_capability}) is a class of GPUs, and {compiler.name} builds for one kind",
            option=f"target={recipe.target.name}",
            hint=f"name the GPU, such as target=rtx4070; portable engines are made by compiler={portable}",
        )
    return compiler.steps(recipe)


def advice(recipe: Recipe) -> tuple[str, ...]:
    """Sentences that a user should know about an accepted recipe, from its compiler."""
    return tuple(COMPILERS[recipe.tools.name].advise(recipe))


def worker(step: str, compiler: str | None) -> Worker | None:
    """The worker of a compiler's step, or of a shared step for None; None if there is no such step."""
    if compiler is None:
        return {"network": NETWORK, "unpack": UNPACK}.get(step)
    return COMPILERS[compiler].workers.get(step) if compiler in COMPILERS else None


def _no_such_quantization(recipe: Recipe, compiler: Compiler) -> InputError:
    scheme = recipe.quant.scheme
    others = sorted(name for name, other in COMPILERS.items() if scheme in other.schemes)
    hint = f"compilers that have it: {', '.join(others)}" if others else "no compiler that trtbuild knows has it"
    # Combinations have no name of their own.
    presets = sorted(name for name in compiler.schemes if "/" not in name)
    return InputError(
        f"compiler={compiler.name} quantizes to {', '.join(presets)}, and not to {scheme}",
        option=f"quant={scheme}",
        hint=hint,
    )
