"""`trtbuild rebuild`: makes an artifact again from its record alone, and compares the two byte by byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trtstore
from trtbuild.artifacts import provenance
from trtbuild.building import attached_locks, model_bytes
from trtbuild.building.results import StepOutcome, StepResult
from trtbuild.building.runner import Runner, bytes_of
from trtbuild.compilers import registry
from trtbuild.config import schema
from trtbuild.errors import InputError, NotInStoreError, StoreError
from trtbuild.facts.key import LOCK, Step, explain, key_of
from trtbuild.facts.recipe import frozen
from trtbuild.planning.checkpoint import open_model
from trtbuild.planning.plan import PlannedStep
from trtbuild.sources import Digester, Source, identity
from trtbuild.toolchains import builtin
from trtbuild.toolchains.lock import Lock
from trtstore import Entry, Invalid, Manifest, Record, Store, folder_manifest

_NOT_FACTS = ("schema", "step.name", "step.version", "model.identity", LOCK)


@dataclass(frozen=True)
class File:
    """One path in which the two results differ; None on the side that lacks it."""

    path: str
    stored: Entry | None
    rebuilt: Entry | None


@dataclass(frozen=True)
class Rebuilt:
    """The digest of the new result, and the files in which it differs from the stored one."""

    record: Record
    digest: str
    files: tuple[File, ...]
    steps: tuple[StepResult, ...]

    @property
    def same(self) -> bool:
        return self.digest == self.record.manifest


@dataclass(frozen=True)
class Receipt:
    """A record and the chain of steps that it names. Each step was checked: its fields give its key."""

    record: Record
    step: PlannedStep
    build: provenance.ParsedProvenance

    @property
    def compiler(self) -> str | None:
        """The compiler whose options apply; None for a step that several compilers share."""
        name = self.step.fields.get("compiler.name")
        return name if isinstance(name, str) else None

    def open_source(self, named: schema.ModelConf | None, digester: Digester) -> Source:
        """The checkpoint that it was made from: at `named`, or where it was taken from the last time.

        Raises InputError if that was a folder, or if the files there are of another checkpoint.
        """
        source = open_model(named or self._model(), digester)
        wanted = {str(each["model.identity"]) for each in self.build.fields.values() if "model.identity" in each}
        if identity(source.files()) in wanted:
            return source
        other = [file.path for file in source.files() if self.build.files.get(file.path) != file.sha256]
        raise InputError(
            f"{self.record.key[:12]} was built from another checkpoint; other bytes in: {', '.join(other[:4])}",
            option="model.source",
            hint="name the checkpoint that it was built from",
        )

    def _model(self) -> schema.ModelConf:
        origin = self.build.origin
        if origin is None or not origin.startswith(("hf://", "wheel:")):
            raise InputError(
                f"the checkpoint of {self.record.key[:12]} was a {origin or 'folder'} of the machine that built it",
                option="model.source",
                hint="name one with the same bytes: model.source=/path/to/checkpoint",
            )
        return schema.ModelConf(source=origin, wheel=self._pins())

    def _pins(self) -> schema.WheelConf | None:
        """The pins of a wheel, with their types checked: anybody may have written the record."""
        pins = self.build.pins
        if pins is None:
            return None
        texts = [pins.get(name) for name in ("sha256", "member", "member_sha256")]
        size = pins.get("member_size")
        if not all(isinstance(each, str) for each in texts) or type(size) is not int:
            raise StoreError(
                f"the record of {self.record.key[:12]} pins no wheel",
                hint="name the checkpoint: model.source=…",
            )
        sha256, member, member_sha256 = map(str, texts)
        return schema.WheelConf(sha256=sha256, member=member, member_sha256=member_sha256, member_size=size)


def receipt(store: Store, prefix: str, config: schema.Config) -> Receipt:
    """The record whose key begins with `prefix`, ready to be made again; `config` says which locks are allowed.

    Raises NotInStoreError where there is none, StoreError where the record does not say how it was made or its fields
    do not give its key, InputError for what is no key and where this release of trtbuild makes such steps otherwise.
    """
    try:
        record = trtstore.find_record(store, trtstore.find_key(store, prefix))
    except trtstore.NotThere as absent:
        raise NotInStoreError(absent.message, hint=absent.hint) from None
    except Invalid as wrong:
        raise InputError(wrong.message, option=f"rebuild {prefix}", hint=wrong.hint) from None
    build = provenance.parse(record)
    if str(record.labels.get("step")) not in build.fields:
        raise StoreError(
            f"the record of {record.key[:12]} does not say how it was made",
            hint="it was not made by trtbuild's build, or by an early release: build it again with its options",
        )
    done: dict[str, PlannedStep] = {}
    for name, fields in build.fields.items():
        digest = fields.get(LOCK)
        lock = _lock(store, record, name, digest, config) if isinstance(digest, str) else None
        done[name] = _planned(name, fields, done, build, lock)
    return Receipt(record, done[str(record.labels["step"])], build)


def rebuild(receipt: Receipt, runner: Runner) -> Rebuilt:
    """Make an artifact again, in a scratch folder, and compare it with the stored one. Nothing is published.

    Upstream artifacts are taken from the store if they are there, unless `refresh` asks to make them again, too. Raises
    InputError, BuildError, StoreFailure.
    """
    store = runner.setup.store
    with store.scratch() as scratch:
        out = _make(receipt.step, runner, scratch)
        made = folder_manifest(out, store.index)
    files = _compare(store.manifest(receipt.record), made)
    return Rebuilt(receipt.record, made.digest, files, tuple(runner.events.results.values()))


def _planned(
    name: str,
    fields: Mapping[str, Any],
    done: Mapping[str, PlannedStep],
    build: provenance.ParsedProvenance,
    lock: Lock | None,
) -> PlannedStep:
    """The step of a record with these key fields. Raises StoreError, InputError."""
    compiler = fields.get("compiler.name")
    worker = registry.worker(name, compiler if isinstance(compiler, str) else None)
    key = build.keys[name]
    if worker is None:
        raise InputError(f"this release of trtbuild has no step {name} by {compiler}", option="rebuild")
    inputs = tuple(
        done[each.removeprefix(provenance.INPUT)]
        for each in sorted(fields)
        if each.startswith(provenance.INPUT) and each.removeprefix(provenance.INPUT) in done
    )
    facts = {
        each: tuple(value) if isinstance(value, list) else value
        for each, value in fields.items()
        if each not in _NOT_FACTS and not each.startswith(provenance.INPUT)
    }
    version = fields.get("step.version")
    step = Step(
        name,
        replace(worker, version=version if isinstance(version, int) else 0),
        frozen(facts),
        "model.identity" in fields,
        tuple(up.name for up in inputs),
        lock,
    )
    model, upstream = str(fields.get("model.identity")), {up.name: up.key for up in inputs}
    if key_of(step, model, upstream) != key:
        raise StoreError(
            f"the record of {key[:12]} does not belong to its key: its fields give another",
            hint="`trtstore verify` reads the store; a record of another schema is built again with its options",
        )
    if version != worker.version:
        raise InputError(
            f"{name} {key[:12]} was made by version {version} of that step, and this release has {worker.version}",
            option="rebuild",
            hint="install the release of trtbuild that made it: `trtstore show` names it",
        )
    return PlannedStep(step, key, explain(step, model, upstream), inputs)


def _lock(store: Store, record: Record, step: str, digest: str, config: schema.Config) -> Lock:
    """The lock with this digest, from trtbuild or from the record. Raises as `attached_locks.find`."""
    return builtin.of_digest(digest) or attached_locks.find(store, record, provenance.LOCK + step, step, digest, config)


def _make(planned: PlannedStep, runner: Runner, scratch: Path) -> Path:
    """Run a step again, below `scratch`; returns its folder."""
    setup, events = runner.setup, runner.events
    runner.preflight(planned)
    inputs = {}
    for up in planned.inputs:
        record = None if setup.config.refresh else runner.use(up)
        if record is None:
            inputs[up.name] = _make(up, runner, scratch)
        else:
            events.step_ended(StepResult(up.name, up.key, StepOutcome.hit_local, bytes=record.bytes))
            inputs[up.name] = setup.store.materialise(record).path
    model = model_bytes.verified_model(planned, runner) if planned.step.reads_model else None
    runner.reporter.step_started(planned.name)
    out, home = scratch / planned.name / "out", scratch / planned.name / "worker"
    home.mkdir(parents=True)
    task = runner.task(planned, {} if model is None else model.paths, inputs, home)
    ran = runner.run(task, planned, out, home)
    runner.finish(planned, task)
    if model is not None:
        model.recheck()
    peak = ran.peak_memory_bytes
    events.step_ended(StepResult(planned.name, planned.key, StepOutcome.rebuilt, ran.seconds, bytes_of(out), peak))
    return out


def _compare(stored: Manifest, made: Manifest) -> tuple[File, ...]:
    old, new = ({entry.path: entry for entry in side.entries} for side in (stored, made))
    paths = sorted({*old, *new})
    return tuple(File(path, old.get(path), new.get(path)) for path in paths if old.get(path) != new.get(path))
