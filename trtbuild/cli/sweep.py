"""The verbs under `-m`: all points are resolved and planned before anything runs, and what they share is made once."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from trtbuild.building import hardware, pipeline, preview
from trtbuild.building.events import ProgressReporter
from trtbuild.building.pipeline import Result
from trtbuild.cli.outcome import CommandOutcome
from trtbuild.config import choices, locations, sweep_schema
from trtbuild.config.points import Point
from trtbuild.errors import InputError, TrtbuildError
from trtbuild.report import document, explanations, page, records, rows, sweep_view, sweeps, terminal
from trtbuild.sweeps import remote, schedule, work
from trtbuild.sweeps.forecast import Forecast, forecast, refuse_too_dear
from trtbuild.sweeps.local import Local
from trtbuild.sweeps.schedule import Observer, UnitResult, Workers
from trtbuild.sweeps.work import Job, Unit, Workplace, refused
from trtstore import StoreFailure

BATCH = 50  # hits that are counted together: the index is locked for no longer than that takes


@dataclass
class _Sweep:
    """All points of a command line, or of one batch of a sweeper that asks in batches."""

    jobs: Sequence[Job]
    place: Workplace
    units: Sequence[Unit]
    forecast: Forecast
    outcome: CommandOutcome
    words: Sequence[str]
    reporter: ProgressReporter
    began: float  # seconds since the epoch
    results: dict[int, Result] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)  # points whose error was told
    ended: Mapping[str, UnitResult] = field(default_factory=dict)  # by key, what ran

    @property
    def conf(self) -> sweep_schema.SweepConf:
        return self.jobs[0].point.config.sweep

    def say(self, line: str) -> None:
        """To people; the words of a document are in it."""
        print(line, file=sys.stdout if self.conf.dry_run and not self.outcome.json else sys.stderr, flush=True)


def sweep(verb: str, outcome: CommandOutcome, words: Sequence[str], points: Sequence[Point]) -> list[float | None]:
    """Run a verb for all `points`; for each the number that sweep.objective asks for, where there is one.

    Raises InputError if they make no sweep. The error of one point is reported, and the others go on.
    """
    if verb not in VERBS:
        raise InputError(f"`{verb}` takes one artifact and cannot be swept", option="-m", hint="leave out -m")
    began = time.time()
    outcome.json = points[0].config.output is choices.OutputFormat.json
    if points[0].config.report is not None:
        page.check(points[0].config.report)
    reporter = terminal.reporter(None if outcome.json else sys.stdout)
    try:
        place = Workplace(locations.root)
        notes_only = sweep_view.UnitNotes(None, reporter.note)
        jobs = [place.job(point, reporter, notes_only) for point in points]
        for job in jobs:
            if job.runner is not None:
                outcome.later(job.runner.setup.team.check_served)
            if verb == "run":
                _refuse_to_load(job)
            if verb not in ("fetch", "explain"):
                _take_notes(job, place)
        work.check_together(jobs)
        units = work.units(jobs, place)
        run = _Sweep(jobs, place, units, forecast(jobs, units, place), outcome, words, reporter, began)
        outcome.forecast = sweeps.forecast_document(run.forecast)
        _tell_errors(run)
        for note in dict.fromkeys(note for job in jobs for note in job.notes):
            run.say(f"note: {note}")
        VERBS["plan" if run.conf.dry_run else verb](run)
    except StoreFailure as failure:
        raise refused(failure) from failure
    finally:
        reporter.close()
    return [_objective(run, job) for job in jobs]


def _tell_errors(run: _Sweep) -> None:
    """What is wrong with configs, each error once, however many points have it."""
    same: dict[tuple[str, ...], list[Job]] = {}
    for job in run.jobs:
        if job.error is not None:
            same.setdefault(tuple(job.error.lines()), []).append(job)
            run.told.add(job.point.index)
    for lines, jobs in same.items():
        whose = sweeps.own_words(jobs[0], run.jobs)
        more = f" and {sweeps.count(len(jobs) - 1, 'other point')}" if len(jobs) > 1 else ""
        print(f"{whose}{more}:", *lines, sep="\n", file=sys.stderr, flush=True)


def _build(run: _Sweep) -> None:
    for line in sweeps.forecast_lines(run.forecast):
        run.say(line)
    refuse_too_dear(run.forecast, run.conf)
    _make(run)
    if not run.outcome.json:
        for line in sweeps.final_lines(run.jobs, run.results):
            run.say(line)
    summary = sweeps.summary(run.jobs, run.results, time.time() - run.began)
    run.say(summary)
    _report(run, summary)
    for job in run.jobs:
        _close(run, job, document.result)


def _report(run: _Sweep, summary: str) -> None:
    folder = run.jobs[0].point.config.report
    if folder is None:
        return
    own = {job.point.index: sweeps.own_words(job, run.jobs) for job in run.jobs}
    told = page.ReportPage(
        title="trtbuild sweep",
        summary=summary,
        rows=rows.of_sweep(run.jobs, run.results, own, remote.flags(run.words)),
        bars=rows.bars(run.ended.values(), run.began),
        forecast=run.outcome.forecast,
    )
    run.say(f"report: {page.write(told, Path(folder))}")


def _make(run: _Sweep) -> None:
    """Use what is there, run what is not, and then use that: the results of all points that have one."""
    running = {unit.key for unit in run.units}
    later = [job for job in run.jobs if job.error is None and job.planned[0].final.key in running]
    _use_all(run, [job for job in run.jobs if job not in later])
    asked = [job.planned[0].final.key for job in run.jobs if job.error is None]
    view = sweep_view.view(run.units, asked)
    try:
        if run.units:
            run.ended = schedule.run(run.units, _workers(run, view), view)
    except KeyboardInterrupt:
        view.note(f"{view.done} of {len(run.units)} steps had ended: the same command goes on from there")
        raise
    finally:
        view.close()
    for job in later:
        error = run.ended[job.planned[0].final.key].error
        if error is None:
            _use(run, job, pipeline.build)
        else:
            job.error = error
            run.told.add(job.point.index)


def _workers(run: _Sweep, view: Observer) -> Workers:
    """Raises InputError where the engine of distribution is not there."""
    if run.conf.on is sweep_schema.On.local:
        return Local(run.conf.jobs, view)
    name = run.conf.on.value
    try:
        engine = importlib.import_module(f"trtbuild.sweeps.{name}")  # heavy, and an extra
    except ModuleNotFoundError as missing:
        raise InputError(
            f"{missing.name} is not installed",
            option=f"sweep.on={name}",
            hint=f"pip install 'trtbuild[{name}]'",
        ) from None
    _, runner = next(job for job in run.jobs if job.error is None).planned
    workers: Workers = getattr(engine, name.capitalize())(
        run.conf, remote.flags(run.words), runner.setup.store.root, view
    )
    return workers


def _use_all(run: _Sweep, jobs: Sequence[Job], take: Callable[..., Result] = pipeline.build) -> None:
    """Those of points whose artifacts are in a store, each error to its point."""
    for first in range(0, len(jobs), BATCH):
        batch = jobs[first : first + BATCH]
        with ExitStack() as stack:
            stores = [job.runner.setup.store for job in batch if job.runner is not None]
            for store in {id(store): store for store in stores}.values():
                stack.enter_context(store.index.batch())
            for job in batch:
                _use(run, job, take)


def _use(run: _Sweep, job: Job, take: Callable[..., Result]) -> None:
    """The result of a point whose artifact is in a store."""
    if job.error is not None:
        return
    try:
        run.results[job.point.index] = take(*job.planned)
    except TrtbuildError as error:
        job.error = error
    except StoreFailure as failure:
        job.error = refused(failure)


def _close(run: _Sweep, job: Job, describe: Callable[[Result], dict[str, object]]) -> None:
    """Tell how a point ended: its path or its error, and for a program its document."""
    if job.error is not None:
        run.outcome.failed(job.error, told=job.point.index in run.told)
        return
    done = run.results[job.point.index]
    if run.outcome.json:
        run.outcome.documents.append(describe(done))
    else:
        print(done.path, flush=True)


def _fetch(run: _Sweep) -> None:
    _use_all(run, run.jobs, pipeline.fetch)
    for job in run.jobs:
        _close(run, job, document.result)


def _plan(run: _Sweep) -> None:
    if not run.outcome.json:
        print("\n".join(sweeps.plan_lines(run.jobs, run.forecast, run.place)))
    for job in run.jobs:
        if job.error is not None:
            run.outcome.failed(job.error, told=True)
        elif run.outcome.json:
            plan, runner = job.planned
            previews = preview.preview(plan, runner)
            tools = preview.toolchains(previews, runner)
            run.outcome.documents.append(document.plan(plan, previews, tools, job.notes))


def _explain(run: _Sweep) -> None:
    for job in run.jobs:
        if job.error is not None:
            run.outcome.failed(job.error, told=True)
            continue
        plan, runner = job.planned
        located = runner.find(plan.final)
        near = None if located.record is not None else runner.history.nearest(plan.final)
        if run.outcome.json:
            run.outcome.documents.append(document.explanation(plan, located, near))
        else:
            print(f"{sweeps.own_words(job, run.jobs)}:")
            print("\n".join(explanations.lines(plan, located, near, job.point.words)), end="\n\n")


def _run(run: _Sweep) -> None:
    for job in run.jobs:
        if job.error is None:
            preview.check_run(job.planned[0], job.point.config)
    for line in sweeps.forecast_lines(run.forecast):
        run.say(line)
    refuse_too_dear(run.forecast, run.conf)
    _make(run)
    for job in run.jobs:
        if job.error is not None:
            run.outcome.failed(job.error, told=job.point.index in run.told)
            continue
        runner = job.planned[1].beside(run.reporter, None, None)
        run.say(f"{sweeps.own_words(job, run.jobs)}:")
        done = run.results[job.point.index]
        answer = pipeline.generate(done, runner)
        if run.outcome.json:
            run.outcome.documents.append({**document.result(done), "run": dict(answer)})
        else:
            print(flush=True)
            run.reporter.note(f"{records.speed(answer)}; {done.path}")


def _refuse_to_load(job: Job) -> None:
    """A point whose engine cannot run here is not built either."""
    if job.error is None:
        try:
            hardware.refuse_to_load(job.planned[0])
        except InputError as error:
            job.error = error


def _take_notes(job: Job, place: Workplace) -> None:
    """What the user should know of a point that is not in a store; one that cannot be right is not built."""
    if job.error is not None:
        return
    plan, runner = job.planned
    try:
        job.notes = preview.notes(plan, runner, lambda planned: place.find(planned, runner))
    except InputError as error:
        job.error = error


def _objective(run: _Sweep, job: Job) -> float | None:
    asked, done = run.conf.objective, run.results.get(job.point.index)
    if asked is None or done is None:
        return None
    numbers = {"bytes": done.record.bytes, "seconds": done.steps[-1].seconds, **(done.check or {})}
    value = numbers.get(asked.value)
    return None if value is None else float(value)


VERBS: Mapping[str, Callable[[_Sweep], None]] = {
    "build": _build,
    "plan": _plan,
    "explain": _explain,
    "fetch": _fetch,
    "run": _run,
}
