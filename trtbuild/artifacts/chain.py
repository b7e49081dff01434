"""Where an artifact is: in the local store, in another one on this machine, or in the team store.

An artifact that only another store has is copied to ours before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from trtbuild.artifacts.team import TeamStore
from trtbuild.config import schema
from trtbuild.config.choices import Verify
from trtstore import Expected, Layered, Reader, ReadOnly, Record, Store, deadline, format_size


class CopyReporter(Protocol):
    """Is told what a user should know, and how far a copy is."""

    def note(self, words: str) -> None: ...
    def progress(self, what: str, done: int, total: int, unit: str) -> None: ...


@dataclass(frozen=True)
class Located:
    """Where an artifact is: its record, None if no store has it; whether the local store has it; the store's name."""

    record: Record | None
    here: bool
    store: str = ""

    @property
    def also(self) -> str | None:
        """The other store that has it; None if ours has it, or none."""
        return None if self.here or self.record is None else self.store


def open_local(conf: schema.StoreConf, root: Path) -> Store:
    """The local store below `root`, as the options say. Raises StoreFailure."""
    return Store.open(
        root,
        durability=conf.durability.value,
        shared_with=conf.shared_with and conf.shared_with.value,
        verity=conf.verify is not Verify.never,
    )


class StoreChain:
    """The stores of one run, in the order in which they are asked.

    `from_team` holds the keys whose artifacts came from the team store.
    """

    def __init__(self, config: schema.StoreConf, store: Store, team: TeamStore, reporter: CopyReporter) -> None:
        self._config = config
        self._store = store
        self._team = team
        self._reporter = reporter
        self.from_team: set[str] = set()

    @cached_property
    def also(self) -> tuple[ReadOnly, ...]:
        """The other stores on this machine that may be read."""
        return tuple(ReadOnly.open(Path(root).expanduser()) for root in self._config.also)

    @property
    def others(self) -> tuple[Reader, ...]:
        """All stores that are asked after our own, in order. Raises InputError, StoreError."""
        team = self._team.connection
        return self.also if team is None else (*self.also, team)

    def tell(self, words: str) -> None:
        """Note what is wrong with a store, or with an artifact in it: each sentence once in a command."""
        self._team.notes(words, self._reporter.note)

    def find(self, wanted: Expected) -> Located:
        """Where the wanted artifact is. Copies nothing, and does not count as a use."""
        self._team.expect_labels(wanted.key, wanted.labels)
        record = self._look(self._store, wanted)
        if record is not None and (wanted.manifest or self._may_use(record)):
            return Located(record, here=True, store=str(self._store))
        for other in self._others_for(wanted):
            with deadline(self._config.patience):
                record = self._look(other, wanted)
            if record is not None and (wanted.manifest or self._may_use(record, other)):
                return Located(record, here=False, store=str(other))
        return Located(None, here=False)

    def _look(self, reader: Reader, wanted: Expected) -> Record | None:
        record = reader.lookup(wanted.key, on_problem=self.tell)
        return None if record is None or wanted.trouble(record) is not None else record

    def use(self, wanted: Expected) -> Record | None:
        """The wanted record, which now counts as used. None if no store has a usable one; a note says why not.

        An artifact that only another store has is copied to ours, and every byte is verified. An artifact of our own
        store is returned without asking the network: `TeamStore.check_served` asks afterwards whether it was revoked.
        """
        key, manifest = wanted.key, wanted.manifest
        self._team.expect_labels(key, wanted.labels)
        record = self._store.use(key, verify=self._config.verify.value, on_problem=self.tell, manifest=manifest)
        if record is not None and (manifest is not None or self._may_use(record)):
            self._team.served(record)
            return record
        self._team.refresh_revocations()
        others = self._others_for(wanted)
        if not others:
            return None
        layers = Layered(
            self._store,
            others,
            on_fetched=self._fetched,
            on_progress=self._on_fetching,
            patience=self._config.patience,
        )
        record = layers.fetch(key, manifest=manifest, on_problem=self.tell)
        if record is None or (manifest is None and not self._may_use(record)):
            return None
        self._store.count_hit(key)
        return record

    def _others_for(self, wanted: Expected) -> tuple[Reader, ...]:
        """The other stores that may answer: the team store only if the labels are known that a signer must cover."""
        return self.also if wanted.labels is None else self.others

    def _may_use(self, record: Record, of: Reader | None = None) -> bool:
        """Whether `record` of the store `of`, by default our own, may be used here. Notes each doubt about it once.

        Records of the team store were judged, and doubts about them noted, when they were looked up.
        """
        if of is not None and of is self._team.connection:
            return True
        doubt = (of or self._store).doubt(record.key)
        if doubt is None:
            return True
        step, may = record.labels.get("step", record.key[:12]), self._team.admits(record.key, doubt)
        if not may:
            words = f"{step}: what {of or 'the local store'} has {doubt}; it is not used for this"
        elif doubt.unsigned and self._config.trust.value != "off":
            words = f"{step}: {doubt}, and is used all the same; it is not signed here"
        else:
            return True
        self.tell(words)
        return may

    def _on_fetching(self, done: int, total: int) -> None:
        self._reporter.progress("fetch", done, total, "B")

    def _fetched(self, record: Record, other: Reader) -> None:
        step = record.labels.get("step", record.key[:12])
        signed = ""
        if other is self._team.connection:
            self.from_team.add(record.key)
            signed = self._team.signers_note(record.key)
        self._team.notes.release()
        self._reporter.note(
            f"{step:<8} copied    {format_size(record.bytes)} from {other}, {signed}every byte verified"
        )
