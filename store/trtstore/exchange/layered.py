"""One's own store in front of others: what one of those has is copied here, verified in full, and used from here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from trtstore import deadlines
from trtstore.errors import Corrupt, StoreFailure, Unreachable
from trtstore.format import expected
from trtstore.format.record import Record
from trtstore.store import Store
from trtstore.transfer.protocols import Failing, OnProgress, Reader, ignore_progress

log = logging.getLogger("trtstore")


class Layered:
    """`local`, then each of `others` in order. `on_fetched` is told of each artifact that was copied, and from where.

    What is wrong with one of `others`, or with what it has, is told and never fails a lookup: the next is asked.
    What is wrong with `local` (a full disk) is raised. Looking in one of them takes `patience` seconds at most.
    """

    def __init__(
        self,
        local: Store,
        others: Sequence[Reader],
        *,
        on_fetched: Callable[[Record, Reader], None] | None = None,
        on_progress: OnProgress = ignore_progress,
        patience: float = deadlines.PATIENCE,
    ) -> None:
        self.local = local
        self._others = tuple(others)
        self._on_fetched = on_fetched
        self._on_progress = on_progress
        self._patience = patience

    def lookup(
        self,
        key: str,
        *,
        manifest: str | None = None,
        on_problem: Callable[[str], None] | None = None,
        anew: bool = False,
    ) -> Record | None:
        """The record of `key` in the local store, after a copy where only another has it, else None.

        With `anew` the others are asked though the local store has it: a doubted one gives way to one that is not.

        With `manifest`, a record of another is passed over in every store, and replaced in the local one.

        Raises Invalid for what is no key, and what reading and writing the local store raises.
        """
        tell = on_problem or log.warning
        record = None if anew else self.local.lookup(key, on_problem=tell)
        if record is not None and expected.trouble(record, manifest) is not None:
            record = None
        for other in self._others:
            if record is not None:
                break
            record = self._fetch(other, key, manifest, tell)
        return record

    def _fetch(
        self, other: Reader, key: str, manifest: str | None, tell: Callable[[str], None]
    ) -> Record | None:
        try:
            with deadlines.deadline(self._patience):
                found = other.lookup(key, on_problem=tell)
                if found is None:
                    return None
                if (wrong := expected.trouble(found, manifest)) is not None:
                    tell(f"{other} is passed over: {wrong}")
                    return None
                envelope = other.envelope(key)
                doubt = other.doubt(key)
        except (StoreFailure, OSError) as trouble:
            tell(f"{other} is passed over: {trouble}")
            return None
        try:
            received = self.local.receive(
                key, envelope, other, self._on_progress, manifest=manifest, doubt=doubt
            )
        except (Corrupt, Unreachable) as trouble:
            if isinstance(other, Failing):
                other.failed(key, trouble)
            tell(f"{key} of {other} is taken as absent: {trouble}")
            return None
        if self._on_fetched is not None:
            self._on_fetched(received.record, other)
        return received.record
