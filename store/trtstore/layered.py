"""One's own store in front of others: what one of those has is copied here, verified in full, and used from here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from trtstore.errors import Corrupt, StoreFailure, Unreachable
from trtstore.protocols import OnProgress, Reader, ignore_progress
from trtstore.records import Record
from trtstore.store import Store

log = logging.getLogger("trtstore")


class Layered:
    """`local`, then each of `others` in order. `on_fetched` is told of each artifact that was copied, and from where.

    What is wrong with one of `others`, or with what it has, is told and never fails a lookup: the next is asked.
    What is wrong with `local` (a full disk) is raised.
    """

    def __init__(
        self,
        local: Store,
        others: Sequence[Reader],
        *,
        on_fetched: Callable[[Record, Reader], None] | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        self.local = local
        self._others = tuple(others)
        self._on_fetched = on_fetched
        self._on_progress = on_progress

    def lookup(
        self, key: str, *, on_problem: Callable[[str], None] | None = None, anew: bool = False
    ) -> Record | None:
        """The record of `key` in the local store, after a copy where only another has it, else None. With `anew` the
        others are asked though the local store has it: what is doubted there gives way to what is not.

        Raises Invalid for what is no key, and what reading and writing the local store raises.
        """
        tell = on_problem or log.warning
        record = None if anew else self.local.lookup(key, on_problem=tell)
        for other in self._others:
            if record is not None:
                break
            record = self._fetch(other, key, tell)
        return record

    def _fetch(self, other: Reader, key: str, tell: Callable[[str], None]) -> Record | None:
        try:
            if other.lookup(key, on_problem=tell) is None:
                return None
            envelope = other.envelope(key)
            doubt = other.doubt(key)
        except (StoreFailure, OSError) as trouble:
            tell(f"{other} is passed over: {trouble}")
            return None
        try:
            received = self.local.receive(key, envelope, other, self._on_progress, doubt)
        except (Corrupt, Unreachable) as trouble:
            tell(f"{key} of {other} is taken as absent: {trouble}")
            return None
        if self._on_fetched is not None:
            self._on_fetched(received.record, other)
        return received.record
