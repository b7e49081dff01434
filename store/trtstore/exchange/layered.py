"""The local store in front of others: an artifact that one of those has is copied here, verified in full."""

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

    A failure of one of `others`, or of an artifact in it, is noted and never fails a lookup: the next one is asked. A
    failure of `local`, such as a full disk, is raised. A lookup in one store takes at most `patience` seconds.

    >>> Layered(Store.open(Path("mine")), [store]).lookup(key).labels["model"]
    'llama'
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
    ) -> Record | None:
        """The record of `key` in the local store, after a copy if only another store has it; None if none has.

        With `manifest`, a record of another one is passed over in every store, and replaced in the local one. Raises
        Invalid for a malformed key, and what reading and writing the local store raises.
        """
        record = self.local.lookup(key, on_problem=on_problem or log.warning)
        if record is not None and expected.trouble(record, manifest) is None:
            return record
        return self.fetch(key, manifest=manifest, on_problem=on_problem)

    def fetch(
        self,
        key: str,
        *,
        manifest: str | None = None,
        on_problem: Callable[[str], None] | None = None,
    ) -> Record | None:
        """As `lookup`, after the caller looked in the local store: the first of the others that has it is copied.

        A usable record that came into the local store meanwhile stays, unless it is doubted and the other is not.
        """
        tell = on_problem or log.warning
        for other in self._others:
            record = self._fetch(other, key, manifest, tell)
            if record is not None:
                return record
        return None

    def _fetch(self, other: Reader, key: str, manifest: str | None, tell: Callable[[str], None]) -> Record | None:
        try:
            with deadlines.deadline(self._patience):
                record = other.lookup(key, on_problem=tell)
                if record is None:
                    return None
                if (wrong := expected.trouble(record, manifest)) is not None:
                    tell(f"{other} is passed over: {wrong}")
                    return None
                envelope = other.envelope(key)
                doubt = other.doubt(key)
        except (StoreFailure, OSError) as trouble:
            tell(f"{other} is passed over: {trouble}")
            return None
        try:
            received = self.local.receive(key, envelope, other, self._on_progress, manifest=manifest, doubt=doubt)
        except (Corrupt, Unreachable) as trouble:
            if isinstance(other, Failing):
                other.failed(key, trouble)
            tell(f"{key} of {other} is taken as absent: {trouble}")
            return None
        if self._on_fetched is not None:
            self._on_fetched(received.record, other)
        return received.record
