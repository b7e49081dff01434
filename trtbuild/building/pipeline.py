"""The way of a build, in one place: look up, lock, run the step, check, publish, share, materialise.

`build` asks for the last step of a plan. `ensure` answers from the stores. Otherwise it takes the key's lease and lock,
looks again (another process may have built it meanwhile), makes the steps that it reads, runs the worker, checks the
result and publishes it. A hit ends the walk: the steps upstream of it are not needed. Nothing is published before it
was checked, and a failure leaves nothing behind.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtbuild.artifacts import provenance
from trtbuild.building import hardware, model_bytes, serving
from trtbuild.building.model_bytes import ModelBytes
from trtbuild.building.preview import notes
from trtbuild.building.results import StepOutcome, StepResult
from trtbuild.building.runner import Runner, builder, bytes_of
from trtbuild.compilers.registry import COMPILERS
from trtbuild.errors import BuildError, InputError, NotInStoreError
from trtbuild.planning.plan import Plan, PlannedStep
from trtstore import Doubt, Record, folder_manifest


@dataclass(frozen=True)
class Result:
    """What was asked for: its record and folder, and what became of each step.

    `method` is how the folder was made: present, reflink, hardlink or copy. `check` is what the check measured.
    """

    plan: Plan
    record: Record
    path: Path
    method: str
    steps: tuple[StepResult, ...]
    check: Mapping[str, Any] | None

    @property
    def outcome(self) -> StepOutcome:
        return self.steps[-1].outcome


def build(plan: Plan, runner: Runner) -> Result:
    """Take the plan's last step from the store, or build it. Raises InputError, BuildError, StoreFailure."""
    config = runner.setup.config
    _check_out(config.out)
    serving.check(config, plan.final.step)
    for words in notes(plan, runner):
        runner.reporter.note(f"note: {words}")
    return _result(plan, ensure(plan.final, plan, runner), runner)


def fetch(plan: Plan, runner: Runner) -> Result:
    """As `build`, but a miss is NotInStoreError."""
    setup = runner.setup
    _check_out(setup.config.out)
    serving.check(setup.config, plan.final.step)
    with setup.team.notes.holding():
        record = runner.use(plan.final)
        if record is None:
            setup.team.refuse_doubt(plan.final.key)
            others = "".join(f", nor in {other}" for other in runner.stores.others)
            raise NotInStoreError(
                f"{plan.final.name} {plan.final.key[:12]} is not in the store {setup.store.root}{others}",
                hint="`trtbuild build` with the same options makes it; `trtbuild plan` shows what would run",
            )
    return _result(plan, _hit(plan.final, record, runner), runner)


def generate(result: Result, runner: Runner) -> Mapping[str, Any]:
    """Let the engine answer `prompt`; the text streams to the reporter. Raises BuildError, InputError.

    Returns the worker's facts: tokens, seconds, and so on.
    """
    config = runner.setup.config
    options = {
        "prompt": config.prompt,
        "max_tokens": config.generate.max_tokens,
        "temperature": config.generate.temperature,
        "top_p": config.generate.top_p,
        "seed": config.generate.seed,
        "raw": config.generate.raw,
    }
    worker = COMPILERS[result.plan.recipe.tools.name].generate
    # Not the store's folder, which may be read-only. Its tree is held while the engine is loaded from it.
    with (
        tempfile.TemporaryDirectory(prefix="trtbuild-run-") as home,
        runner.setup.store.reading(result.record),
    ):
        return runner.load("generate", worker, options, result.plan.final, result.path, Path(home)).facts


def ensure(planned: PlannedStep, plan: Plan, runner: Runner) -> Record:
    """Take one step of the plan from the store, or build it and what it reads. Raises as `build`."""
    setup, events, refresh = runner.setup, runner.events, runner.refreshes(planned.key)
    record = None if refresh else runner.use(planned)
    if record is not None:
        return _hit(planned, record, runner)
    hardware.refuse_elsewhere(planned, plan, runner)
    runner.preflight(planned)
    with runner.lease(planned, plan.recipe.model.bytes) as lease:
        if lease.found is not None:
            return _hit(planned, lease.found, runner)
        with setup.store.building(planned.key, who=builder(planned), on_wait=events.waiting_for):
            first = setup.store.lookup(planned.key) if refresh else runner.use(planned)
            if first is not None and not refresh:
                return _hit(planned, first, runner)
            inputs = {up.name: setup.store.materialise(ensure(up, plan, runner)).path for up in planned.inputs}
            model = model_bytes.verified_model(planned, runner) if planned.step.reads_model else None
            record = _make(planned, plan, model, inputs, runner, first)
        if planned.step.handling.shared:
            setup.team.share(record, lease.held, events.sharing)
        return record


def _make(
    planned: PlannedStep,
    plan: Plan,
    model: ModelBytes | None,
    inputs: Mapping[str, Path],
    runner: Runner,
    first: Record | None,
) -> Record:
    """Run one step, check its result, publish it; compare it with `first`, the record that was there before."""
    store = runner.setup.store
    runner.reporter.step_started(planned.name)
    with store.scratch() as scratch:
        out, home = scratch / "out", scratch / "worker"
        home.mkdir()
        started = time.time()
        task = runner.task(planned, {} if model is None else model.paths, inputs, home)
        ran = runner.run(task, planned, out, home)
        runner.finish(planned, task)
        check = _check(planned, plan, out, scratch / "check", runner)
        if model is not None:
            model.recheck()  # the bytes that were read must be those that the key names
        size = bytes_of(out)
        digest = folder_manifest(out, store.index).digest if first is not None else None
        doubt, doubted = _inherited(planned, runner), store.doubt(planned.key) is not None
        record = store.publish(
            planned.key,
            out,
            predicate_type=provenance.PREDICATE_TYPE,
            predicate=provenance.predicate(planned, plan, ran, check, started, time.time()),
            labels=planned.labels or {},
            attachments={"log": ran.log, **_locks(planned, scratch)},
            seconds=ran.seconds,
            doubt=doubt,
        )
    runner.built.add(planned.key)
    runner.events.step_ended(
        StepResult(planned.name, planned.key, StepOutcome.built, ran.seconds, size, ran.peak_memory_bytes)
    )
    if first is not None:
        same = "the same bytes as" if digest == first.manifest else "other bytes than"
        kept = "this one, as the first was doubted" if doubted and doubt is None else "the first"
        runner.reporter.note(f"{planned.name}: built again, {same} in the store, which keeps {kept}")
    return record


def _inherited(planned: PlannedStep, runner: Runner) -> Doubt | None:
    """The doubt that an artifact inherits from those that it was built from."""
    inherited = None
    for up in planned.inputs:
        doubt = runner.setup.store.doubt(up.key)
        if doubt is not None:
            inherited = doubt.passed_on(inherited, up.name)
    return inherited


def _locks(planned: PlannedStep, scratch: Path) -> dict[str, Path]:
    """The locks of the step and of all steps upstream of it, as files: the record alone can then be rebuilt."""
    paths = {}
    for step in planned.chain:
        if step.step.lock is not None:
            path = paths[provenance.LOCK + step.name] = scratch / f"{step.name}.lock"
            # The index of packages is each user's own, and its address may hold a secret.
            path.write_text(replace(step.step.lock, indexes=()).text, encoding="utf-8")
    return paths


def _check(planned: PlannedStep, plan: Plan, out: Path, home: Path, runner: Runner) -> Mapping[str, Any] | None:
    """Load a new engine and let it answer, before anyone else can have it."""
    conf = runner.setup.config.check
    if not planned.step.handling.loads or not conf.enabled:
        return None
    runner.reporter.step_started("check")
    home.mkdir()
    options = {"prompt": conf.prompt, "max_tokens": conf.max_tokens, "raw": False}
    try:
        ran = runner.load("check", COMPILERS[plan.recipe.tools.name].check, options, planned, out, home)
    except BuildError as error:
        error.hint = error.hint or "the engine is not kept; check=none keeps one unchecked"
        raise
    return {**ran.facts, "peak_memory_bytes": ran.peak_memory_bytes}


def _hit(planned: PlannedStep, record: Record, runner: Runner) -> Record:
    if planned.name in runner.events.results:
        return record  # this command line built it, or has met it before
    stats = provenance.stats(record)
    from_team = planned.key in runner.stores.from_team
    outcome = StepOutcome.hit_team if from_team else StepOutcome.hit_local
    seconds, peak = stats.get("seconds"), stats.get("peak_memory_bytes")
    runner.events.step_ended(StepResult(planned.name, planned.key, outcome, seconds, record.bytes, peak))
    return record


def _result(plan: Plan, record: Record, runner: Runner) -> Result:
    config, store, results = runner.setup.config, runner.setup.store, runner.events.results
    tree = store.materialise(record)
    if config.out is not None:
        store.add_root(Path(config.out).absolute(), record)
        served = serving.write(config)
        if served is not None:
            runner.reporter.note(f"serve    {config.serve.value:<9} {served}")
    steps = tuple(results.get(step.name, StepResult(step.name, step.key, StepOutcome.unneeded)) for step in plan.steps)
    return Result(plan, record, tree.path, tree.method, steps, provenance.check(record))


def _check_out(out: str | None) -> None:
    if out is None:
        return
    link = Path(out)
    if not link.is_symlink() and link.exists():
        raise InputError(f"{out} exists and is no link of trtbuild's", option="out", hint="choose another path")
    if not link.absolute().parent.is_dir():
        raise InputError(f"the folder {link.absolute().parent} is not there", option="out", hint="make it first")
