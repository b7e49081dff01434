"""What a build would do, before it does it: what is there, what would run and what that takes, what is in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from trtbuild import targets
from trtbuild.artifacts import provenance
from trtbuild.artifacts.chain import Found
from trtbuild.artifacts.history import KIND, Estimate, Near
from trtbuild.building.session import Session
from trtbuild.compilers.registry import COMPILERS, advice
from trtbuild.config.schema import Config
from trtbuild.errors import InputError, printable
from trtbuild.facts.recipe import Recipe
from trtbuild.planning.plan import Plan, Planned
from trtbuild.planning.plan import plan as make_plan
from trtbuild.toolchains.lock import Lock
from trtstore import Maintenance, needs

#: Where an artifact is, by its key.
Find: TypeAlias = Callable[[Planned], Found]

_OF_MACHINE_CODE = ("target.kind", "target.arch", "target.level", "target.compute_capability")
_OF_A_SKU = ("target.memory_gb", "target.compute_capability", "target.sm_count")


@dataclass(frozen=True)
class Outlook:
    """One step: what the stores have of it, whether a build would run it, and for one that would, what it takes.

    `estimate` is None where nothing like it was built before. `obstacle` says why this machine cannot run it.
    """

    planned: Planned
    found: Found
    runs: bool
    estimate: Estimate | None = None
    obstacle: str | None = None
    sharers: tuple[
        str, ...
    ] = ()  # the models whose results in our store need it, where it serves any of some kind


def survey(plan: Plan, session: Session) -> tuple[Outlook, ...]:
    """The outlook of each step of `plan`, in its order. Builds and copies nothing."""
    session.sharing.may_sign()
    found = {step.name: session.find(step) for step in plan.steps}
    needed = {plan.final.name}
    for step in reversed(plan.steps):
        if step.name in needed and found[step.name].record is None:
            needed |= {up.name for up in step.inputs}
    outlooks = []
    for step in plan.steps:
        if step.name not in needed or found[step.name].record is not None:
            outlooks.append(Outlook(step, found[step.name], runs=False, sharers=sharers(step, session)))
            continue
        estimate = session.history.estimate(step, provenance.labels(step, plan), plan.recipe.model.bytes)
        elsewhere = differs_here(step, plan.recipe)
        obstacle = not_here(plan.recipe, elsewhere) if elsewhere else None
        outlooks.append(Outlook(step, found[step.name], True, estimate, obstacle))
    return tuple(outlooks)


def sharers(planned: Planned, session: Session) -> tuple[str, ...]:
    """The models in our store that share the result of a step which serves any of some kind, by name."""
    if planned.step.handling.label is None:
        return ()
    found = Maintenance(session.store).catalog.summaries()
    return tuple(
        sorted({each.labels.get("model", "") for each in found if planned.key in needs(each.labels)})
    )


def notes(plan: Plan, session: Session, find: Find | None = None) -> tuple[str, ...]:
    """What the user should know before a build: the compiler's advice, and what the checkpoint's examination says.

    Empty where nothing would be built. `find` is the session's, or one that remembers. Raises InputError where no
    engine of this checkpoint can be right.
    """
    look = find or session.find

    def runs(planned: Planned) -> bool:
        return session.refreshes(planned.key) or look(planned).record is None

    def reads(planned: Planned) -> bool:
        return runs(planned) and (planned.step.reads_model or any(map(reads, planned.inputs)))

    if not runs(plan.final):
        return ()
    said = session.examine() if reads(plan.final) else ()
    return tuple(printable(words) for words in (*advice(plan.recipe), *said))


@dataclass(frozen=True)
class Tools:
    """A toolchain that steps of a plan would run in. `fetch` is in bytes, where the lock says; None if nothing is."""

    title: str
    lock: str
    state: str  # at hand, installed, missing
    steps: tuple[str, ...]
    fetch: int | None = None
    bytes: int | None = None  # on this disk


def toolchains(outlooks: Sequence[Outlook], session: Session) -> tuple[Tools, ...]:
    """The locked toolchains of the steps that would run, each once. Installs nothing. Raises InputError."""
    return toolchains_of((one.planned, session) for one in outlooks if one.runs)


def toolchains_of(running: Iterable[tuple[Planned, Session]]) -> tuple[Tools, ...]:
    """The same of steps that run in sessions of one machine and one store."""
    steps: dict[str, dict[str, None]] = {}  # by the digest of a lock, names once
    locks: dict[str, tuple[Lock, Session]] = {}
    for planned, session in running:
        for step in (planned, planned.loader):
            if (lock := step.step.lock) is not None:
                locks[lock.digest] = lock, session
                steps.setdefault(lock.digest, {})[planned.name] = None
    return tuple(_tools(lock, (*steps[digest],), session) for digest, (lock, session) in locks.items())


def _tools(lock: Lock, steps: tuple[str, ...], session: Session) -> Tools:
    if not session.workbench.managed(lock):
        state = "at hand" if session.workbench.holds(lock) else "missing"
        return Tools(lock.title, lock.digest, state, steps)
    python = session.workbench.here(lock)
    found = session.workbench.kept.find(lock, python)
    if found is not None:
        return Tools(lock.title, lock.digest, "installed", steps, bytes=found.bytes)
    fetch = lock.downloads.get((python.tag, python.machine))
    return Tools(lock.title, lock.digest, "missing", steps, None if fetch is None else fetch.bytes)


def nearest(planned: Planned, plan: Plan, session: Session) -> Near | None:
    """The earlier build that is most like `planned`, in any of the session's stores."""
    return session.history.nearest(planned, provenance.labels(planned, plan))


def differs_here(planned: Planned, recipe: Recipe) -> Mapping[str, tuple[Any, Any]]:
    """Facts of the hardware that the step reads and that are others here: name -> (here, asked for).

    Empty where the step can be built here. One rule for all compilers: a step may run where its own facts, taken from
    the hardware at hand, are those of its key.
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
        # How many there are is in no key: what the hardware could build is asked, not what it could run.
        instead = replace(recipe, target=replace(here, gpus=recipe.target.gpus))
        try:
            local = {step.name: step for step in compiler.steps(instead)}[planned.name].facts
        except InputError:  # the compiler has nothing of the kind for what is here
            continue
        differing = {
            name: (local.get(name), value) for name, value in wanted.items() if local.get(name) != value
        }
        if len(differing) < len(nearest):
            nearest = differing
    return nearest


def check_run(plan: Plan, config: Config) -> None:
    """Raises InputError where `trtbuild run` has nothing to ask, or nothing to ask it of."""
    if config.prompt is None:
        raise InputError("run needs a prompt", option="prompt", hint='prompt="Why is the sky blue?"')
    if not plan.final.step.handling.loads:
        raise InputError("run needs the engine", option="until", hint="leave until away")


def refuse_to_load(plan: Plan) -> None:
    """Raises InputError where nothing here runs the machine code of the plan's engine, before it is built or loaded.

    Only what binds machine code is looked at: an engine that was tuned for another SKU or driver may still run.
    """
    target, fields = plan.recipe.target, hardware(plan.final)
    wanted = {name: fields[name] for name in _OF_MACHINE_CODE if name in fields}
    here = [_machine_code(each) for each in targets.kinds_here(target.kind)]
    if any(all(_runs(facts[name], name, value) for name, value in wanted.items()) for facts in here):
        return
    differing = [name for name, value in wanted.items() if here and not _runs(here[0][name], name, value)]
    found = ", ".join(f"{name} is {here[0][name]}" for name in differing)
    raise InputError(
        f"this machine cannot run an engine for {_words(wanted)}: "
        + (f"{found} here" if found else (target.here or "").removeprefix("not here: ")),
        option=f"target={target.name}",
        hint=_fitting(plan)
        + "`trtbuild build` makes it without running it, and `out=PATH` gives its folder to copy",
    )


def _fitting(plan: Plan) -> str:
    """In words, the key of the engine that this machine can run, where the compiler has one for it."""
    for here in targets.kinds_here(plan.recipe.target.kind):
        with suppress(InputError):
            final = make_plan(replace(plan.recipe, target=here)).final
            return f"the one that fits this machine is {final.name} {final.key[:12]}, target=auto; "
    return ""


def hardware(planned: Planned) -> dict[str, Any]:
    """The facts of the hardware that a step or one upstream of it reads."""
    steps = provenance.chain(planned)
    return {
        name: value for each in steps for name, value in each.fields.items() if name.startswith("target.")
    }


def _runs(here: Any, name: str, wanted: Any) -> bool:
    """Whether machine code for `wanted` runs on what is here: later levels of CPUs run what is for earlier ones."""
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
    """In words: what was asked for, and what is here."""
    if "target.gpu" in elsewhere:  # the rest of a SKU follows from it
        elsewhere = {name: sides for name, sides in elsewhere.items() if name not in _OF_A_SKU}
    facts = ", ".join(
        f"{name} is {mine} here, and {theirs} was asked for"
        for name, (mine, theirs) in elsewhere.items()
        if mine
    )
    here = recipe.target.here or ""
    if facts:
        return f"{recipe.target.name} cannot be built on this machine: {facts}"
    return f"{recipe.target.name} cannot be built on this machine: {here.removeprefix('not here: ')}"


def refuse_elsewhere(planned: Planned, plan: Plan, session: Session) -> None:
    """Raises InputError where the step is for other hardware, with what is here and where such an engine is.

    So it does for a step before it that is in no store: nothing is to be installed or downloaded in vain.
    """
    for up in planned.inputs:
        if session.find(up).record is None:
            refuse_elsewhere(up, plan, session)
    elsewhere = differs_here(planned, plan.recipe)
    if not elsewhere:
        return
    near = session.history.nearest(planned, provenance.labels(planned, plan), same=KIND)
    stores = ", ".join([str(session.store), *map(str, session.stores.others)])
    hint = (
        f"{planned.name} {planned.key[:12]} is not in {stores}: build it on such a machine, into a store that "
        "this one reads"
    )
    if near is not None:
        changed = ", ".join(difference.field for difference in near.differences[:4])
        hint += f"; the nearest is {near.record.key[:12]} in {near.store} (it differs in {changed})"
    raise InputError(not_here(plan.recipe, elsewhere), option="target", hint=hint)
