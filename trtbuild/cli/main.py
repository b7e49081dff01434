"""The command line: argv to a verb, Hydra to a config, the pipeline, and an exit code."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from types import FrameType
from typing import Any

from trtbuild.artifacts import provenance
from trtbuild.building import pipeline, preview, rebuild
from trtbuild.building.digests import Hasher
from trtbuild.building.session import Session, Watcher
from trtbuild.cli import sweep as sweep_cli
from trtbuild.cli.outcome import Outcome
from trtbuild.config import choices, compose, locations, schema
from trtbuild.doctor.examine import examine
from trtbuild.doctor.world import World
from trtbuild.errors import BuildError, InputError, TrtbuildError, bounded
from trtbuild.planning.plan import Plan
from trtbuild.planning.plan import plan as make_plan
from trtbuild.planning.resolve import resolve
from trtbuild.report import doctor, document, explanations, plans, records, terminal
from trtbuild.sources import Source
from trtbuild.sweeps import job_check
from trtbuild.sweeps.work import refused
from trtstore import Store, StoreFailure


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line that has words; returns its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    args = list(sys.argv[1:] if argv is None else argv)
    outcome = Outcome(json="output=json" in args)
    try:
        if args[0] == DOCTOR:
            compose.run(args[1:], lambda config: _doctor(config, outcome))
        else:
            verb, words = _verb(args)
            sweep = partial(sweep_cli.sweep, _sweep_verb(args), outcome, words)
            compose.run(words, lambda config: _point(verb, config, outcome, words), sweep)
    except TrtbuildError as error:
        outcome.failed(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return _unread()
    except Exception as error:  # the edge: a fault of ours is one line too, unless it is looked into
        if os.environ.get("TRTBUILD_TRACEBACK"):
            raise
        what = f"unexpected {type(error).__name__}: {error}".splitlines()[0]
        hint = "a fault of trtbuild's: TRTBUILD_TRACEBACK=1 shows where; please report it"
        outcome.failed(TrtbuildError(what, hint=hint))
    if outcome.json and outcome.documents:
        several = document.sweep(outcome.documents, outcome.forecast)
        try:
            print(
                json.dumps(several if compose.is_sweep(args) else outcome.documents[0], indent=2), flush=True
            )
        except BrokenPipeError:
            return _unread()
    return _afterwards(outcome)


def _afterwards(outcome: Outcome) -> int:
    """The exit code, once that was asked which a hit does not wait for."""
    try:
        for ask in outcome.afterwards:
            ask()
    except TrtbuildError as error:
        outcome.failed(error)
    except StoreFailure as failure:
        outcome.failed(refused(failure))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return outcome.exit_code


def _unread() -> int:
    """The exit code of a command the reader of whose stdout has gone: that of SIGPIPE."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141


def _point(verb: _Verb, config: schema.Config, outcome: Outcome, words: Sequence[str]) -> None:
    """One config, start to end."""
    gc.enable()  # which `entry` left off
    outcome.json = config.output is choices.Output.json
    if config.report is not None:
        raise InputError(
            "works only with a sweep", option="report", hint="add -m; `trtstore report` covers a whole store"
        )
    try:
        store = Store.open(
            locations.root(config.store.root),
            durability=config.store.durability.value,
            shared_with=config.store.shared_with and config.store.shared_with.value,
            verity=config.store.verify is not choices.Verify.never,
        )
        watcher = terminal.watcher(None if outcome.json else sys.stdout)
        try:
            verb(_Asked(config, store, watcher, outcome, words))
        finally:
            watcher.close()
    except StoreFailure as failure:
        outcome.failed(refused(failure))
    except TrtbuildError as error:
        outcome.failed(error)


@dataclass(frozen=True)
class _Asked:
    """One config, and what its verb works with. `words` are the user's own, `name=value`."""

    config: schema.Config
    store: Store
    watcher: Watcher
    outcome: Outcome
    words: Sequence[str]


_Verb = Callable[[_Asked], None]


@dataclass(frozen=True)
class _Job:
    """A config that was resolved and planned."""

    plan: Plan
    session: Session
    outcome: Outcome
    words: Sequence[str]

    def done(self, result: pipeline.Result, **more: Any) -> None:
        if self.outcome.json:
            self.outcome.documents.append({**document.result(result), **more})


def _planned(verb: Callable[[_Job], None]) -> _Verb:
    """A verb that works on a plan."""

    def run(asked: _Asked) -> None:
        resolved = resolve(asked.config, Hasher(asked.store.index, asked.watcher))
        plan = make_plan(resolved.recipe, asked.config.until)
        job_check.check(plan, asked.config)
        session = Session(asked.config, asked.store, lambda: resolved.source, asked.watcher, resolved.examine)
        asked.outcome.later(session.sharing.afterwards)
        verb(_Job(plan, session.expect(plan), asked.outcome, asked.words))

    return run


def _build(job: _Job) -> None:
    _show(job, pipeline.build(job.plan, job.session))


def _fetch(job: _Job) -> None:
    _show(job, pipeline.fetch(job.plan, job.session))


def _show(job: _Job, result: pipeline.Result) -> None:
    job.done(result)
    if not job.outcome.json:
        unseen = result.check is not None and result.check.get("executed") is False  # told of a hit, too
        if result.check is not None and (unseen or result.outcome == "built"):
            job.session.watcher.note(terminal.check_line(result.check))
        losses = provenance.loss(result.record)
        if losses is not None:
            job.session.watcher.note(f"loss     {records.loss(losses)}")
        print(result.path, flush=True)


def _plan(job: _Job) -> None:
    notes = preview.notes(job.plan, job.session)
    outlooks = preview.survey(job.plan, job.session)
    tools = preview.toolchains(outlooks, job.session)
    if job.outcome.json:
        job.outcome.documents.append(document.plan(job.plan, outlooks, tools, notes))
    else:
        print("\n".join(map(bounded, plans.lines(job.plan, outlooks, tools, notes))))


def _explain(job: _Job) -> None:
    step = job.plan.final
    found = job.session.find(step)
    near = None if found.record is not None else preview.nearest(step, job.plan, job.session)
    if job.outcome.json:
        job.outcome.documents.append(document.explanation(job.plan, found, near))
    else:
        shared = [(each, preview.sharers(each, job.session)) for each in job.plan.steps]
        print("\n".join(map(bounded, explanations.lines(job.plan, found, near, job.words, shared))))


def _run(job: _Job) -> None:
    preview.check_run(job.plan, job.session.config)
    preview.refuse_to_load(job.plan)
    result = pipeline.build(job.plan, job.session)
    answer = pipeline.generate(result, job.session)
    job.done(result, run=dict(answer))
    if not job.outcome.json:
        print(flush=True)
        job.session.watcher.note(f"{records.speed(answer)}; {result.path}")


def _rebuild(key: str, asked: _Asked) -> None:
    named = any(word.startswith(("model=", "model.")) for word in asked.words)
    receipt = rebuild.receipt(asked.store, key, asked.config)

    def source() -> Source:
        digester = Hasher(asked.store.index, asked.watcher)
        return receipt.open_source(asked.config.model if named else None, digester)

    session = Session(asked.config, asked.store, source, asked.watcher, exact=True)
    asked.outcome.later(session.sharing.afterwards)
    done = rebuild.rebuild(receipt, session)
    if asked.outcome.json:
        asked.outcome.documents.append(document.rebuilt(done))
    else:
        print("\n".join(map(bounded, explanations.rebuilt_lines(done))), flush=True)
    if not done.same:
        asked.outcome.exit_code = asked.outcome.exit_code or BuildError.exit_code


VERBS: dict[str, Callable[[_Job], None]] = {
    "build": _build,
    "plan": _plan,
    "explain": _explain,
    "fetch": _fetch,
    "run": _run,
}
REBUILD = "rebuild"  # the verb that takes a key, and no plan
DOCTOR = "doctor"  # the one that works where no plan can be made and no store opened


def _verb(args: list[str]) -> tuple[_Verb, list[str]]:
    """The verb, and the words for Hydra. It is the first word, and one without `=`; left out, it is build."""
    if not args or "=" in args[0] or args[0].startswith("-"):
        return _planned(_build), args
    if args[0] == REBUILD:
        if len(args) < 2 or "=" in args[1] or args[1].startswith("-"):
            raise InputError("rebuild needs a key", hint="trtbuild rebuild KEY; `trtstore ls` shows the keys")
        return partial(_rebuild, args[1]), args[2:]
    if args[0] in VERBS:
        return _planned(VERBS[args[0]]), args[1:]
    verbs = [*VERBS, REBUILD, DOCTOR]
    near = get_close_matches(args[0], verbs, n=1)
    hint = (
        f"did you mean {near[0]}?" if near else f"verbs: {', '.join(verbs)}; options are written name=value"
    )
    raise InputError(f"there is no verb {args[0]!r}", hint=hint)


def _doctor(config: schema.Config, outcome: Outcome) -> None:
    outcome.json = config.output is choices.Output.json
    try:
        checks = examine(config, World())
    except TrtbuildError as error:
        outcome.failed(error)
        return
    if outcome.json:
        outcome.documents.append(doctor.document(checks))
    else:
        print("\n".join(map(bounded, doctor.lines(checks))), flush=True)
    if any(check.failed for check in checks):
        outcome.exit_code = outcome.exit_code or BuildError.exit_code


def _sweep_verb(args: list[str]) -> str:
    return args[0] if args[0] in (*VERBS, REBUILD) else "build"


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
