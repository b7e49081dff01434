"""The way of a build, in one place: look up, lock, run the step, check, publish, share, materialise.

`build` asks for the last step of a plan. `ensure` answers from the stores, or takes the key's lease and lock, looks
again (somebody else may have built it meanwhile), makes the steps that it reads, runs the worker apart,
checks what came out and publishes it. A hit anywhere ends the way down: what is upstream of it is not
needed. Nothing is published before it was checked, and a failure leaves nothing behind.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtbuild.artifacts import provenance
from trtbuild.building import model_bytes, serving
from trtbuild.building.model_bytes import ModelBytes
from trtbuild.building.preview import notes, refuse_elsewhere
from trtbuild.building.session import Session, StepResult, bytes_of
from trtbuild.compilers.registry import COMPILERS
from trtbuild.errors import BuildError, InputError, NotInStoreError
from trtbuild.planning.plan import Plan, Planned
from trtstore import Doubt, Record, folder_manifest


@dataclass(frozen=True)
class Result:
    """What was asked for: its record and folder, and what became of each step."""

    plan: Plan
    record: Record
    path: Path
    method: str  # how the folder was made: present, reflink, hardlink, copy
    steps: tuple[StepResult, ...]
    check: Mapping[str, Any] | None

    @property
    def outcome(self) -> str:
        return self.steps[-1].outcome


def build(plan: Plan, session: Session) -> Result:
    """Take the plan's last step from the store, or build it. Raises InputError, BuildError, StoreFailure."""
    _check_out(session.config.out)
    serving.check(session.config, plan.final.step)
    for words in notes(plan, session):
        session.watcher.note(f"note: {words}")
    return _result(plan, ensure(plan.final, plan, session), session)


def fetch(plan: Plan, session: Session) -> Result:
    """As build, but a miss is NotInStoreError."""
    _check_out(session.config.out)
    serving.check(session.config, plan.final.step)
    with session.sharing.once.holding():
        record = session.use(plan.final)
        if record is None:
            session.sharing.refuse_doubt(plan.final.key)
            others = "".join(f", nor in {other}" for other in session.stores.others)
            raise NotInStoreError(
                f"{plan.final.name} {plan.final.key[:12]} is not in the store {session.store.root}{others}",
                hint="`trtbuild build` with the same options makes it; `trtbuild plan` shows what would run",
            )
    return _result(plan, _hit(plan.final, record, session), session)


def generate(result: Result, session: Session) -> Mapping[str, Any]:
    """Let the engine answer `prompt`; the text streams to the watcher. Raises BuildError, InputError."""
    config = session.config
    options = {
        "prompt": config.prompt,
        "max_tokens": config.generate.max_tokens,
        "temperature": config.generate.temperature,
        "top_p": config.generate.top_p,
        "seed": config.generate.seed,
        "raw": config.generate.raw,
    }
    worker = COMPILERS[result.plan.recipe.tools.name].generate
    # Not the store's folder: that may be read-only. Its tree is held for as long as the engine is loaded from it.
    with tempfile.TemporaryDirectory(prefix="trtbuild-run-") as home, session.store.reading(result.record):
        return session.load("generate", worker, options, result.plan.final, result.path, Path(home)).facts


def ensure(planned: Planned, plan: Plan, session: Session) -> Record:
    """Take one step of the plan from the store, or build it and what it reads. Raises as build."""
    store, refresh = session.store, session.refreshes(planned.key)
    record = None if refresh else session.use(planned)
    if record is not None:
        return _hit(planned, record, session)
    refuse_elsewhere(planned, plan, session)
    session.preflight(planned)
    with session.alone(planned, provenance.labels(planned, plan), plan.recipe.model.bytes) as lease:
        if lease.found is not None:
            return _hit(planned, lease.found, session)
        with store.building(planned.key, who=session.who(planned), on_wait=session.on_wait):
            first = store.lookup(planned.key) if refresh else session.use(planned)
            if first is not None and not refresh:
                return _hit(planned, first, session)
            inputs = {up.name: store.materialise(ensure(up, plan, session)).path for up in planned.inputs}
            model = model_bytes.given(planned, session) if planned.step.reads_model else None
            record = _run(planned, plan, model, inputs, session, first)
        if planned.step.handling.shared:
            session.sharing.share(record, lease.held, session.on_share)
        return record


def _run(
    planned: Planned,
    plan: Plan,
    model: ModelBytes | None,
    inputs: Mapping[str, Path],
    session: Session,
    first: Record | None,
) -> Record:
    """Run one step, check what it made, publish it; compare with `first`, the record that there was before."""
    session.watcher.step_started(planned.name)
    with session.store.scratch() as scratch:
        out, home = scratch / "out", scratch / "worker"
        home.mkdir()
        started = time.time()
        ran = session.run(planned, {} if model is None else model.paths, inputs, out, home)
        checked = _check(planned, plan, out, scratch / "check", session)
        if model is not None:
            model.recheck()  # the bytes that were read must be those that the key names
        size = bytes_of(out)
        digest = folder_manifest(out, session.store.index).digest if first is not None else None
        doubt, doubted = _inherited(planned, session), session.store.doubt(planned.key) is not None
        record = session.store.publish(
            planned.key,
            out,
            predicate_type=provenance.PREDICATE_TYPE,
            predicate=provenance.predicate(planned, plan, ran, checked, started, time.time()),
            labels=provenance.labels(planned, plan),
            attachments={"log": ran.log, **_locks(planned, scratch)},
            seconds=ran.seconds,
            doubt=doubt,
        )
        session.made.add(planned.key)
        session.ended(
            StepResult(planned.name, planned.key, "built", ran.seconds, size, ran.peak_memory_bytes)
        )
        if digest is not None:
            same = (
                "the same bytes as" if first is not None and digest == first.manifest else "other bytes than"
            )
            kept = "this one, as the first was doubted" if doubted and doubt is None else "the first"
            session.watcher.note(f"{planned.name}: built again, {same} in the store, which keeps {kept}")
        return record


def _inherited(planned: Planned, session: Session) -> Doubt | None:
    """What is to be remembered against an artifact because of what it was built from."""
    found = None
    for up in planned.inputs:
        doubt = session.store.doubt(up.key)
        if doubt is not None:
            found = doubt.passed_on(found, up.name)
    return found


def _locks(planned: Planned, scratch: Path) -> dict[str, Path]:
    """The locks of the step and of all that is upstream of it, as files: so the record alone can make it again."""
    found = {}
    for step in provenance.chain(planned):
        if step.step.lock is not None:
            path = found[provenance.LOCK + step.name] = scratch / f"{step.name}.lock"
            # Where wheels come from is each user's own affair, and an address may hold a secret.
            path.write_text(replace(step.step.lock, indexes=()).text, encoding="utf-8")
    return found


def _check(planned: Planned, plan: Plan, out: Path, home: Path, session: Session) -> Mapping[str, Any] | None:
    """Load a new engine and let it speak, before anyone else can have it."""
    conf = session.config.check
    if not planned.step.handling.loads or not conf.enabled:
        return None
    session.watcher.step_started("check")
    home.mkdir()
    options = {"prompt": conf.prompt, "max_tokens": conf.max_tokens, "raw": False}
    try:
        ran = session.load("check", COMPILERS[plan.recipe.tools.name].check, options, planned, out, home)
    except BuildError as error:
        error.hint = error.hint or "the engine is not kept; check=none keeps one unchecked"
        raise
    return {**ran.facts, "peak_memory_bytes": ran.peak_memory_bytes}


def _hit(planned: Planned, record: Record, session: Session) -> Record:
    if planned.name in session.results:
        return record  # this command line built it, or has met it before
    took = provenance.stats(record)
    seconds, peak = took.get("seconds"), took.get("peak_memory_bytes")
    outcome = "hit-team" if planned.key in session.stores.from_team else "hit-local"
    session.ended(StepResult(planned.name, planned.key, outcome, seconds, record.bytes, peak))
    return record


def _result(plan: Plan, record: Record, session: Session) -> Result:
    made = session.store.materialise(record)
    if session.config.out is not None:
        session.store.add_root(Path(session.config.out).absolute(), record)
        served = serving.write(session.config)
        if served is not None:
            session.watcher.note(f"serve    {session.config.serve.value:<9} {served}")
    steps = tuple(session.results.get(p.name, StepResult(p.name, p.key, "unneeded")) for p in plan.steps)
    return Result(plan, record, made.path, made.method, steps, provenance.check(record))


def _check_out(out: str | None) -> None:
    if out is None:
        return
    link = Path(out)
    if not link.is_symlink() and link.exists():
        raise InputError(
            f"{out} exists and is no link of trtbuild's", option="out", hint="choose another path"
        )
    if not link.absolute().parent.is_dir():
        raise InputError(
            f"the folder {link.absolute().parent} is not there", option="out", hint="make it first"
        )
