"""The command line: argv to a verb, Hydra to a config, the pipeline, and an exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from types import FrameType

from trtbuild.artifacts import provenance
from trtbuild.artifacts.chain import open_local
from trtbuild.artifacts.team import TeamStore
from trtbuild.building import hardware, pipeline, preview, rebuild
from trtbuild.building.digests import Hasher
from trtbuild.building.events import ProgressReporter
from trtbuild.building.results import StepOutcome
from trtbuild.building.runner import Runner
from trtbuild.building.setup import Setup
from trtbuild.cli import sweep as sweep_cli
from trtbuild.cli.outcome import CommandOutcome
from trtbuild.config import choices, compose, locations, schema
from trtbuild.doctor.examine import examine
from trtbuild.doctor.world import World
from trtbuild.errors import BuildError, InputError, TrtbuildError, bounded
from trtbuild.planning.plan import Plan, make_plan
from trtbuild.planning.resolve import resolve
from trtbuild.report import doctor, document, explanations, plans, records, terminal
from trtbuild.sweeps import job_check
from trtbuild.sweeps.work import refused
from trtstore import Store, StoreFailure


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line that has words; returns its exit code."""
    signals = _Signals()
    args = list(sys.argv[1:] if argv is None else argv)
    outcome = CommandOutcome(json="output=json" in args)
    try:
        verb, words = _verb(args)
        configs: list[schema.Config] = []
        sweep = None if verb is _doctor else partial(sweep_cli.sweep, _sweep_verb(args), outcome, words)
        compose.run(words, configs.append, sweep)
        signals.check()
        for config in configs:
            verb(config, outcome, words)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        return _unread()
    except Exception as error:  # noqa: BLE001  # the edge: our own faults are one line, too
        if signals.come:
            return _interrupted()
        _fail(error, outcome)
    if outcome.json and outcome.documents:
        several = document.sweep(outcome.documents, outcome.forecast)
        try:
            print(json.dumps(several if compose.is_sweep(args) else outcome.documents[0], indent=2), flush=True)
        except BrokenPipeError:
            return _unread()
    return _afterwards(outcome)


def _fail(error: Exception, outcome: CommandOutcome) -> None:
    """Report an error in one line. A fault of trtbuild's own is raised if TRTBUILD_TRACEBACK is set."""
    if isinstance(error, StoreFailure):
        error = refused(error)
    if not isinstance(error, TrtbuildError):
        if os.environ.get("TRTBUILD_TRACEBACK"):
            raise error
        what = f"unexpected {type(error).__name__}: {error}".splitlines()[0]
        hint = "a fault of trtbuild's: TRTBUILD_TRACEBACK=1 shows where; please report it"
        error = TrtbuildError(what, hint=hint)
    outcome.failed(error)


class _Signals:
    """SIGTERM and SIGINT raise KeyboardInterrupt, and `come` remembers it.

    While a config is composed, the exception alone is not enough: Python drops it when a generator ends, and OmegaConf
    turns it into an error of its own.
    """

    def __init__(self) -> None:
        self.come = False
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` and shells ask for
                signal.signal(number, self._interrupt)

    def check(self) -> None:
        """Raises KeyboardInterrupt if one has come."""
        if self.come:
            raise KeyboardInterrupt

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        self.come = True
        raise KeyboardInterrupt


def _afterwards(outcome: CommandOutcome) -> int:
    """The exit code, after the checks that a hit does not wait for."""
    try:
        for check in outcome.afterwards:
            check()
    except (TrtbuildError, StoreFailure) as error:
        _fail(error, outcome)
    except KeyboardInterrupt:
        return _interrupted()
    return outcome.exit_code


def _interrupted() -> int:
    print("interrupted", file=sys.stderr)
    return 130


def _unread() -> int:
    """The exit code if the reader of stdout has gone: that of SIGPIPE."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141


_Verb = Callable[[schema.Config, CommandOutcome, Sequence[str]], None]


@contextmanager
def _opened(config: schema.Config, outcome: CommandOutcome) -> Iterator[tuple[Store, ProgressReporter]]:
    """The store and the reporter of one config. Raises InputError, StoreFailure."""
    outcome.json = config.output is choices.OutputFormat.json
    if config.report is not None:
        raise InputError(
            "works only with a sweep", option="report", hint="add -m; `trtstore report` covers a whole store"
        )
    store = open_local(config.store, locations.root(config.store.root))
    reporter = terminal.reporter(None if outcome.json else sys.stdout)
    try:
        yield store, reporter
    finally:
        reporter.close()


@contextmanager
def _planned(config: schema.Config, outcome: CommandOutcome) -> Iterator[tuple[Plan, Runner]]:
    """The plan of one config and its runner. Raises InputError, StoreError, StoreFailure."""
    with _opened(config, outcome) as (store, reporter):
        resolved = resolve(config, Hasher(store.index, reporter))
        plan = make_plan(resolved.recipe, config.until)
        job_check.check(plan, config)
        team = TeamStore(config.store, store, reporter.note)
        outcome.later(team.check_served)
        team.expect(plan)
        setup = Setup(config, store, team, lambda: resolved.source, resolved.examine)
        yield plan, Runner(setup, reporter)


def _build(config: schema.Config, outcome: CommandOutcome, _words: Sequence[str]) -> None:
    with _planned(config, outcome) as (plan, runner):
        _show(pipeline.build(plan, runner), runner, outcome)


def _fetch(config: schema.Config, outcome: CommandOutcome, _words: Sequence[str]) -> None:
    with _planned(config, outcome) as (plan, runner):
        _show(pipeline.fetch(plan, runner), runner, outcome)


def _show(result: pipeline.Result, runner: Runner, outcome: CommandOutcome) -> None:
    if outcome.json:
        outcome.documents.append(document.result(result))
        return
    unseen = result.check is not None and result.check.get("executed") is False  # said of a hit, too
    if result.check is not None and (unseen or result.outcome is StepOutcome.built):
        runner.reporter.note(terminal.check_line(result.check))
    losses = provenance.loss(result.record)
    if losses is not None:
        runner.reporter.note(f"loss     {records.loss(losses)}")
    print(result.path, flush=True)


def _plan(config: schema.Config, outcome: CommandOutcome, _words: Sequence[str]) -> None:
    with _planned(config, outcome) as (plan, runner):
        notes = preview.notes(plan, runner)
        previews = preview.preview(plan, runner)
        tools = preview.toolchains(previews, runner)
    if outcome.json:
        outcome.documents.append(document.plan(plan, previews, tools, notes))
    else:
        print("\n".join(map(bounded, plans.lines(plan, previews, tools, notes))))


def _explain(config: schema.Config, outcome: CommandOutcome, words: Sequence[str]) -> None:
    with _planned(config, outcome) as (plan, runner):
        located = runner.find(plan.final)
        near = None if located.record is not None else runner.history.nearest(plan.final)
        if outcome.json:
            outcome.documents.append(document.explanation(plan, located, near))
        else:
            shared = [(step, preview.sharers(step, runner)) for step in plan.steps]
            print("\n".join(map(bounded, explanations.lines(plan, located, near, words, shared))))


def _run(config: schema.Config, outcome: CommandOutcome, _words: Sequence[str]) -> None:
    with _planned(config, outcome) as (plan, runner):
        preview.check_run(plan, config)
        hardware.refuse_to_load(plan)
        result = pipeline.build(plan, runner)
        answer = pipeline.generate(result, runner)
        if outcome.json:
            outcome.documents.append({**document.result(result), "run": dict(answer)})
        else:
            print(flush=True)
            runner.reporter.note(f"{records.speed(answer)}; {result.path}")


def _rebuild(key: str, config: schema.Config, outcome: CommandOutcome, words: Sequence[str]) -> None:
    named = any(word.startswith(("model=", "model.")) for word in words)
    with _opened(config, outcome) as (store, reporter):
        receipt = rebuild.receipt(store, key, config)
        model, hasher = config.model if named else None, Hasher(store.index, reporter)
        team = TeamStore(config.store, store, reporter.note)
        outcome.later(team.check_served)
        setup = Setup(config, store, team, lambda: receipt.open_source(model, hasher), exact=True)
        done = rebuild.rebuild(receipt, Runner(setup, reporter))
    if outcome.json:
        outcome.documents.append(document.rebuilt(done))
    else:
        print("\n".join(map(bounded, explanations.rebuilt_lines(done))), flush=True)
    if not done.same:
        outcome.exit_code = outcome.exit_code or BuildError.exit_code


def _doctor(config: schema.Config, outcome: CommandOutcome, _words: Sequence[str]) -> None:
    outcome.json = config.output is choices.OutputFormat.json
    checks = examine(config, World())
    if outcome.json:
        outcome.documents.append(doctor.document(checks))
    else:
        print("\n".join(map(bounded, doctor.lines(checks))), flush=True)
    if any(check.failed for check in checks):
        outcome.exit_code = outcome.exit_code or BuildError.exit_code


VERBS: dict[str, _Verb] = {
    "build": _build,
    "plan": _plan,
    "explain": _explain,
    "fetch": _fetch,
    "run": _run,
    "doctor": _doctor,
}
REBUILD = "rebuild"  # the verb that takes a key
DOCTOR = "doctor"  # the verb that works where no plan can be made and no store opened


def _verb(args: list[str]) -> tuple[_Verb, list[str]]:
    """The verb and the words for Hydra. The first word is the verb if it has no `=`; the default is build."""
    if not args or "=" in args[0] or args[0].startswith("-"):
        return _build, args
    if args[0] == REBUILD:
        if len(args) < 2 or "=" in args[1] or args[1].startswith("-"):
            raise InputError("rebuild needs a key", hint="trtbuild rebuild KEY; `trtstore ls` shows the keys")
        return partial(_rebuild, args[1]), args[2:]
    if args[0] in VERBS:
        return VERBS[args[0]], args[1:]
    verbs = [verb for verb in VERBS if verb != DOCTOR] + [REBUILD, DOCTOR]
    near = get_close_matches(args[0], verbs, n=1)
    hint = f"did you mean {near[0]}?" if near else f"verbs: {', '.join(verbs)}; options are written name=value"
    raise InputError(f"there is no verb {args[0]!r}", hint=hint)


def _sweep_verb(args: list[str]) -> str:
    return args[0] if args[0] in (*VERBS, REBUILD) else "build"


if __name__ == "__main__":
    sys.exit(main())
