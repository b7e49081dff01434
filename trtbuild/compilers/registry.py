"""The compilers: which there are, what each supports, and the way to their steps.

Adding one is a package here, a YAML in `conf/compiler/`, a lock in `conf/toolchain/`, a schema class and its tests.
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

    Raises InputError where the compiler lacks the quantization or the hardware.
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
        can = ", ".join(sorted(name for name, other in COMPILERS.items() if other.hardware.portable))
        raise InputError(
            f"{gpu.name} ({gpu.compute_capability}) is a class of GPUs, and {compiler.name} builds for one kind",
            option=f"target={recipe.target.name}",
            hint=f"name the GPU, such as target=rtx4070; portable engines are made by compiler={can}",
        )
    return compiler.steps(recipe)


def advice(recipe: Recipe) -> tuple[str, ...]:
    """What a user should know of a recipe that is accepted: sentences of its compiler."""
    return tuple(COMPILERS[recipe.tools.name].advise(recipe))


def worker(step: str, compiler: str | None) -> Worker | None:
    """What runs `step`, of `compiler` or (None) as compilers share it; None where there is no such step."""
    if compiler is None:
        return {"network": NETWORK, "unpack": UNPACK}.get(step)
    found = COMPILERS.get(compiler)
    return None if found is None else found.workers.get(step)


def _no_such_quantization(recipe: Recipe, compiler: Compiler) -> InputError:
    scheme = recipe.quant.scheme
    here = sorted(name for name, other in COMPILERS.items() if scheme in other.schemes)
    hint = f"compilers that have it: {', '.join(here)}" if here else "no compiler that trtbuild knows has it"
    return InputError(
        f"compiler={compiler.name} quantizes to {', '.join(_presets(compiler))}, and not to {scheme}",
        option=f"quant={scheme}",
        hint=hint,
    )


def _presets(compiler: Compiler) -> list[str]:
    """Its schemes that have a name: combinations are told by their parts."""
    return sorted(scheme for scheme in compiler.schemes if "/" not in scheme)
