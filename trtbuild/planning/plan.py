"""Recipe → plan: the steps in order, each with its key. Needs no store, no GPU and no compiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trtbuild.compilers import registry
from trtbuild.errors import InputError
from trtbuild.facts.key import TOOL, Step, explain, key_of
from trtbuild.facts.recipe import Recipe, Value
from trtstore import NEEDS


@dataclass(frozen=True)
class PlannedStep:
    """A `Step` with its key, the fields that the key was made of, and the planned steps that it reads.

    `labels` are those that its record gets: people and scopes select by them, and no key holds them. They are None
    for a step that was read from a record.
    """

    step: Step
    key: str
    fields: Mapping[str, Value]
    inputs: tuple[PlannedStep, ...]
    labels: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def chain(self) -> tuple[PlannedStep, ...]:
        """This step and all steps upstream of it, upstream first, each once."""
        upstream = {step.name: step for planned in self.inputs for step in planned.chain}
        return (*upstream.values(), self)

    @property
    def loader(self) -> PlannedStep:
        """The step whose toolchain loads this step's artifact, for the check and for `trtbuild run`."""
        loader = self.step.handling.loaded_in
        return next((up for up in self.inputs if up.name == loader), self)

    @property
    def toolchain(self) -> dict[str, str]:
        """package -> version of every tool that the step's bytes depend on."""
        if self.step.lock is not None:
            return self.step.lock.versions
        tools = {name: str(value) for name, value in self.step.facts.items() if name.startswith(TOOL)}
        return {name.removeprefix(TOOL): version for name, version in tools.items()}

    @property
    def packages(self) -> dict[str, str]:
        """package -> version of all packages of the step's toolchain, as far as its key holds them."""
        return self.toolchain if self.step.lock is None else self.step.lock.packages


@dataclass(frozen=True)
class Plan:
    """Steps in the order in which they would run. The last one makes the artifact that was asked for."""

    recipe: Recipe
    steps: tuple[PlannedStep, ...]

    @property
    def final(self) -> PlannedStep:
        return self.steps[-1]

    @property
    def toolchain(self) -> dict[str, str]:
        """package -> version of every tool that the bytes of these steps depend on."""
        versions: dict[str, str] = {}
        for planned in self.steps:
            versions |= planned.toolchain
        return dict(sorted(versions.items()))


def make_plan(recipe: Recipe, until: str | None = None) -> Plan:
    """The plan of a recipe, up to the step `until`; None is the last one.

    Raises InputError if the compiler does not support the recipe, or has no step `until`.
    """
    steps = registry.steps(recipe)
    names = [step.name for step in steps]
    if until is not None and until not in names:
        raise InputError(
            f"compiler={recipe.tools.name} has no step {until!r}",
            option=f"until={until}",
            hint=f"steps: {', '.join(names)}",
        )
    done: dict[str, PlannedStep] = {}
    for step in steps:
        inputs = tuple(done[name] for name in step.inputs)
        upstream = {planned.name: planned.key for planned in inputs}
        done[step.name] = PlannedStep(
            step=step,
            key=key_of(step, recipe.model.identity, upstream),
            fields=explain(step, recipe.model.identity, upstream),
            inputs=inputs,
            labels=_labels(step, inputs, recipe),
        )
        if step.name == until:
            break
    return Plan(recipe, tuple(done.values()))


def _labels(step: Step, inputs: tuple[PlannedStep, ...], recipe: Recipe) -> dict[str, str]:
    """The labels of a step's record. NEEDS names the shared steps that the store keeps for as long as its artifact."""
    shared = [planned.key for planned in inputs if planned.step.handling.label is not None]
    return {
        "step": step.name,
        "model": step.handling.label or recipe.model.label,
        "quant": recipe.quant.scheme,
        "target": recipe.target.name,
        "compiler": recipe.tools.name,
        **({NEEDS: ",".join(shared)} if shared else {}),
    }
