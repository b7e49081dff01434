"""What a build would do: which steps are in a store, which would run, what that takes, and what is in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import trtstore
from trtbuild.artifacts.chain import Located
from trtbuild.artifacts.history import Estimate
from trtbuild.building import hardware
from trtbuild.building.runner import Runner
from trtbuild.compilers.registry import advice
from trtbuild.config.schema import Config
from trtbuild.errors import InputError, printable
from trtbuild.planning.plan import Plan, PlannedStep
from trtbuild.toolchains.lock import Lock

#: Finds a step's artifact in the stores.
Find: TypeAlias = Callable[[PlannedStep], Located]


@dataclass(frozen=True)
class StepPreview:
    """One step: where its artifact is, whether a build would run it, and what it then takes.

    `estimate` is None if nothing like it was built before. `obstacle` says why this machine cannot run it. `sharers`
    are the models in the local store whose artifacts need this one, if it serves several.
    """

    planned: PlannedStep
    located: Located
    runs: bool
    estimate: Estimate | None = None
    obstacle: str | None = None
    sharers: tuple[str, ...] = ()


def preview(plan: Plan, runner: Runner) -> tuple[StepPreview, ...]:
    """What a build would do with each step of `plan`, in its order. Builds and copies nothing."""
    runner.setup.team.check_signing()
    located = {step.name: runner.find(step) for step in plan.steps}
    needed = {plan.final.name}
    for step in reversed(plan.steps):
        if step.name in needed and located[step.name].record is None:
            needed |= {up.name for up in step.inputs}
    previews = []
    for step in plan.steps:
        where = located[step.name]
        if step.name not in needed or where.record is not None:
            previews.append(StepPreview(step, where, runs=False, sharers=sharers(step, runner)))
            continue
        estimate = runner.history.estimate(step, plan.recipe.model.bytes)
        elsewhere = hardware.differs_here(step, plan.recipe)
        obstacle = hardware.not_here(plan.recipe, elsewhere) if elsewhere else None
        previews.append(StepPreview(step, where, True, estimate, obstacle))
    return tuple(previews)


def sharers(planned: PlannedStep, runner: Runner) -> tuple[str, ...]:
    """The models in the local store, by name, whose artifacts need this step's; empty if it serves one model only."""
    if planned.step.handling.label is None:
        return ()
    summaries = trtstore.Maintenance(runner.setup.store).catalog.summaries()
    labels = [summary.labels for summary in summaries if planned.key in trtstore.needs(summary.labels)]
    return tuple(sorted({names.get("model", "") for names in labels}))


def notes(plan: Plan, runner: Runner, find: Find | None = None) -> tuple[str, ...]:
    """What the user should know before a build: the compiler's advice and the notes of the checkpoint's examination.

    Empty if nothing would be built. `find` is `runner.find` unless a caller has one that caches. Raises InputError if
    no engine of this checkpoint can be right.
    """
    look = find or runner.find

    def runs(planned: PlannedStep) -> bool:
        return runner.refreshes(planned.key) or look(planned).record is None

    def reads(planned: PlannedStep) -> bool:
        return runs(planned) and (planned.step.reads_model or any(map(reads, planned.inputs)))

    if not runs(plan.final):
        return ()
    examined = runner.setup.examine() if reads(plan.final) else ()
    return tuple(printable(words) for words in (*advice(plan.recipe), *examined))


@dataclass(frozen=True)
class ToolchainState:
    """A toolchain that steps of a plan would run in, and whether it is there.

    `state` is "at hand", "installed" or "missing". `fetch` is how many bytes would be downloaded, if the lock says it;
    `bytes` is its size on this disk.
    """

    title: str
    lock: str
    state: str
    steps: tuple[str, ...]
    fetch: int | None = None
    bytes: int | None = None


def toolchains(previews: Sequence[StepPreview], runner: Runner) -> tuple[ToolchainState, ...]:
    """The locked toolchains of the steps that would run, each once. Installs nothing. Raises InputError."""
    return toolchains_of((step.planned, runner) for step in previews if step.runs)


def toolchains_of(running: Iterable[tuple[PlannedStep, Runner]]) -> tuple[ToolchainState, ...]:
    """The same for steps of several runners, of one machine and one store."""
    steps: dict[str, dict[str, None]] = {}  # the digest of a lock -> names of steps, each once
    locks: dict[str, tuple[Lock, Runner]] = {}
    for planned, runner in running:
        for step in (planned, planned.loader):
            if (lock := step.step.lock) is not None:
                locks[lock.digest] = lock, runner
                steps.setdefault(lock.digest, {})[planned.name] = None
    return tuple(_tools(lock, (*steps[digest],), runner) for digest, (lock, runner) in locks.items())


def _tools(lock: Lock, steps: tuple[str, ...], runner: Runner) -> ToolchainState:
    if not runner.tools.managed(lock):
        state = "at hand" if runner.tools.holds(lock) else "missing"
        return ToolchainState(lock.title, lock.digest, state, steps)
    python = runner.tools.here(lock)
    environment = runner.tools.environments.find(lock, python)
    if environment is not None:
        return ToolchainState(lock.title, lock.digest, "installed", steps, bytes=environment.bytes)
    fetch = lock.downloads.get((python.tag, python.machine))
    return ToolchainState(lock.title, lock.digest, "missing", steps, None if fetch is None else fetch.bytes)


def check_run(plan: Plan, config: Config) -> None:
    """Raises InputError if `trtbuild run` has no prompt, or no engine to give it to."""
    if config.prompt is None:
        raise InputError("run needs a prompt", option="prompt", hint='prompt="Why is the sky blue?"')
    if not plan.final.step.handling.loads:
        raise InputError("run needs the engine", option="until", hint="leave until away")
