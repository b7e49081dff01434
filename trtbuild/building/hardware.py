"""Hardware: what a step or an engine needs, whether this machine has it, and the refusal if it has not."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from trtbuild import targets
from trtbuild.artifacts.history import KIND
from trtbuild.building.runner import Runner
from trtbuild.compilers.registry import COMPILERS
from trtbuild.errors import InputError
from trtbuild.facts.recipe import Recipe
from trtbuild.planning.plan import Plan, PlannedStep, make_plan

_OF_MACHINE_CODE = ("target.kind", "target.arch", "target.level", "target.compute_capability")
_OF_A_SKU = ("target.memory_gb", "target.compute_capability", "target.sm_count")


def differs_here(planned: PlannedStep, recipe: Recipe) -> Mapping[str, tuple[Any, Any]]:
    """The hardware facts of the step that differ here: name -> (here, asked for). Empty if it can be built here.

    One rule for all compilers: a step may run if its facts, taken from the hardware at hand, are those of its key.
    """
    compiler, facts = COMPILERS[recipe.tools.name], planned.step.facts
    wanted = {
        name: value
        for name, value in facts.items()
        if name.startswith("target.") and name not in compiler.hardware.cross_built
    }
    if not wanted:
        return {}
    nearest: dict[str, tuple[Any, Any]] = {name: (None, value) for name, value in wanted.items()}
    for here in targets.kinds_here(recipe.target.kind):
        # The number of GPUs is in no key: the question is what this hardware can build, not what it can run.
        instead = replace(recipe, target=replace(here, gpus=recipe.target.gpus))
        try:
            local = {step.name: step for step in compiler.steps(instead)}[planned.name].facts
        except InputError:  # the compiler makes no such step for this hardware
            continue
        differing = {name: (local.get(name), value) for name, value in wanted.items() if local.get(name) != value}
        if len(differing) < len(nearest):
            nearest = differing
    return nearest


def refuse_to_load(plan: Plan) -> None:
    """Raises InputError if this machine cannot run the plan's engine, before it is built or loaded.

    Only facts that bind machine code count: an engine that was tuned for another SKU or driver may still run.
    """
    target, fields = plan.recipe.target, facts_of(plan.final)
    wanted = {name: fields[name] for name in _OF_MACHINE_CODE if name in fields}
    here = [_machine_code(kind) for kind in targets.kinds_here(target.kind)]
    if any(all(_runs(facts[name], name, value) for name, value in wanted.items()) for facts in here):
        return
    differing = [name for name, value in wanted.items() if here and not _runs(here[0][name], name, value)]
    differences = ", ".join(f"{name} is {here[0][name]}" for name in differing)
    raise InputError(
        f"this machine cannot run an engine for {_words(wanted)}: "
        + (f"{differences} here" if differences else (target.here or "").removeprefix("not here: ")),
        option=f"target={target.name}",
        hint=_fitting(plan) + "`trtbuild build` makes it without running it, and `out=PATH` gives its folder to copy",
    )


def _fitting(plan: Plan) -> str:
    """The key of the engine that this machine can run, as a part of a hint; empty if the compiler has none for it."""
    for here in targets.kinds_here(plan.recipe.target.kind):
        with suppress(InputError):
            final = make_plan(replace(plan.recipe, target=here)).final
            return f"the one that fits this machine is {final.name} {final.key[:12]}, target=auto; "
    return ""


def facts_of(planned: PlannedStep) -> dict[str, Any]:
    """The hardware facts that a step or one upstream of it reads."""
    fields = (field for step in planned.chain for field in step.fields.items())
    return {name: value for name, value in fields if name.startswith("target.")}


def _runs(here: Any, name: str, wanted: Any) -> bool:
    """Whether machine code for the fact `wanted` runs here: a CPU runs code for its own level and for lower ones."""
    if name != "target.level":
        return bool(here == wanted)
    return targets.level_runs(str(here), str(wanted))


def _words(machine_code: Mapping[str, Any]) -> str:
    capability = machine_code.get("target.compute_capability")
    return f"compute capability {capability}" if capability else ", ".join(map(str, machine_code.values()))


def _machine_code(target: targets.Target) -> dict[str, Any]:
    gpu = target.gpu
    facts = (target.kind, target.arch, target.level, None if gpu is None else gpu.compute_capability)
    return dict(zip(_OF_MACHINE_CODE, facts, strict=True))


def not_here(recipe: Recipe, elsewhere: Mapping[str, tuple[Any, Any]]) -> str:
    """A sentence with what was asked for and what is here."""
    if "target.gpu" in elsewhere:  # the rest of a SKU follows from it
        elsewhere = {name: sides for name, sides in elsewhere.items() if name not in _OF_A_SKU}
    facts = ", ".join(
        f"{name} is {here} here, and {asked} was asked for" for name, (here, asked) in elsewhere.items() if here
    )
    reason = (recipe.target.here or "").removeprefix("not here: ")
    if facts:
        return f"{recipe.target.name} cannot be built on this machine: {facts}"
    return f"{recipe.target.name} cannot be built on this machine: {reason}"


def refuse_elsewhere(planned: PlannedStep, plan: Plan, runner: Runner) -> None:
    """Raises InputError if the step is for other hardware; the hint names the nearest artifact in the stores.

    The same holds for upstream steps that are in no store: nothing shall be installed or downloaded in vain.
    """
    for up in planned.inputs:
        if runner.find(up).record is None:
            refuse_elsewhere(up, plan, runner)
    elsewhere = differs_here(planned, plan.recipe)
    if not elsewhere:
        return
    near = runner.history.nearest(planned, same=KIND)
    stores = ", ".join([str(runner.setup.store), *map(str, runner.stores.others)])
    hint = (
        f"{planned.name} {planned.key[:12]} is not in {stores}: build it on such a machine, into a store that "
        "this one reads"
    )
    if near is not None:
        changed = ", ".join(difference.field for difference in near.differences[:4])
        hint += f"; the nearest is {near.record.key[:12]} in {near.store} (it differs in {changed})"
    raise InputError(not_here(plan.recipe, elsewhere), option="target", hint=hint)
