"""Where an artifact is: our own store, others on this machine, the team's; what only another has is copied to ours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from trtbuild.artifacts.team import Sharing
from trtbuild.config import schema
from trtstore import Expected, Layered, Reader, ReadOnly, Record, Store, deadline, format_size


class Teller(Protocol):
    """Is told what a user should know, and how far a copy is."""

    def note(self, words: str) -> None: ...
    def progress(self, what: str, done: int, total: int, unit: str) -> None: ...


@dataclass(frozen=True)
class Found:
    """An artifact in the stores: its record, whether our own store has it, and which other one where not."""

    record: Record | None
    here: bool
    store: str = ""  # that has it

    @property
    def also(self) -> str | None:
        """The store that has it where ours does not."""
        return None if self.here or self.record is None else self.store


class Lookup:
    """The stores of one run, in the order in which they are asked. `from_team` are the keys that were fetched there."""

    def __init__(self, config: schema.StoreConf, store: Store, sharing: Sharing, teller: Teller) -> None:
        self._config = config
        self._store = store
        self._sharing = sharing
        self._teller = teller
        self.from_team: set[str] = set()

    @cached_property
    def also(self) -> tuple[ReadOnly, ...]:
        """The other stores on this machine that may be read."""
        return tuple(ReadOnly.open(Path(root).expanduser()) for root in self._config.also)

    @property
    def others(self) -> tuple[Reader, ...]:
        """All stores that are asked after our own. Raises InputError, StoreError."""
        team = self._sharing.team
        return self.also if team is None else (*self.also, team)

    def tell(self, words: str) -> None:
        """What is wrong with a store, or with what it has: each sentence once in a command."""
        self._sharing.once(words, self._teller.note)

    def find(self, wanted: Expected) -> Found:
        """Where what is wanted is; nothing is copied, and it does not count as a use."""
        if wanted.labels is not None:
            self._sharing.expect({wanted.key: wanted.labels})
        record = self._look(self._store, wanted)
        if record is not None and (wanted.manifest or self._may_use(record)):
            return Found(record, here=True, store=str(self._store))
        for other in self._asked(wanted):
            with deadline(self._config.patience):
                record = self._look(other, wanted)
            if record is not None and (wanted.manifest or self._may_use(record, other)):
                return Found(record, here=False, store=str(other))
        return Found(None, here=False)

    def _look(self, reader: Reader, wanted: Expected) -> Record | None:
        record = reader.lookup(wanted.key, on_problem=self.tell)
        return None if record is None or wanted.trouble(record) is not None else record

    def use(self, wanted: Expected) -> Record | None:
        """The record that is wanted, which counts as used; None, and a word why, where what is there is not usable.

        What only another store has is copied to ours, every byte verified. What ours has is given without a question
        to anybody: `Sharing.afterwards` asks whether it was revoked.
        """
        key, manifest = wanted.key, wanted.manifest
        if wanted.labels is not None:
            self._sharing.expect({key: wanted.labels})
        record = self._store.use(
            key, verify=self._config.verify.value, on_problem=self.tell, manifest=manifest
        )
        anew = record is not None and manifest is None and not self._may_use(record)
        if record is not None and not anew:
            self._sharing.gave(record)
            return record
        self._sharing.learn()
        others = self._asked(wanted)
        if not others:
            return None
        layers = Layered(
            self._store,
            others,
            on_fetched=self._fetched,
            on_progress=self._on_fetching,
            patience=self._config.patience,
        )
        if layers.lookup(key, manifest=manifest, on_problem=self.tell, anew=anew) is None:
            return None
        record = self._store.use(key, on_problem=self.tell, manifest=manifest)
        return record if record is not None and (manifest or self._may_use(record)) else None

    def _asked(self, wanted: Expected) -> tuple[Reader, ...]:
        """The other stores that may answer: the team's only where its scopes can be held to what is expected."""
        return self.also if wanted.labels is None else self.others

    def _may_use(self, record: Record, of: Reader | None = None) -> bool:
        """Whether what our own store, or another one, has may be used for what is asked for.

        Tells once what is doubted of it. What the team's store has was judged, and told, when it was looked up.
        """
        if of is not None and of is self._sharing.team:
            return True
        doubt = (of or self._store).doubt(record.key)
        if doubt is None:
            return True
        step, may = record.labels.get("step", record.key[:12]), self._sharing.admits(record.key, doubt)
        if not may:
            words = f"{step}: what {of or 'our own store'} has {doubt}; it is not used for this"
        elif doubt.unsigned and self._config.trust.value != "off":
            words = f"{step}: {doubt}, and is used all the same; it is not signed here"
        else:
            return True
        self.tell(words)
        return may

    def _on_fetching(self, done: int, total: int) -> None:
        self._teller.progress("fetch", done, total, "B")

    def _fetched(self, record: Record, other: Reader) -> None:
        step = record.labels.get("step", record.key[:12])
        signed = ""
        if other is self._sharing.team:
            self.from_team.add(record.key)
            signed = self._sharing.signed(record.key)
        self._sharing.once.release()
        self._teller.note(
            f"{step:<8} copied    {format_size(record.bytes)} from {other}, {signed}every byte verified"
        )
