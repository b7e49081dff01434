"""Maintenance of a whole store: list it, pin artifacts, verify it, collect garbage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trtstore.content import verify
from trtstore.disk import gate, locks
from trtstore.disk.hashing import OnBytes, ignore_bytes
from trtstore.errors import as_store_failures
from trtstore.format.digest import checked_key
from trtstore.marks import pins, roots
from trtstore.store import Store
from trtstore.upkeep import collect
from trtstore.upkeep.catalog import Catalog, OnParsed
from trtstore.upkeep.decisions import EvictionPlan

GRACE = 3600.0  # seconds after a use in which a collector leaves an artifact alone


class Maintenance:
    """The keeper of one store. Everything here may run while others build and read.

    >>> maintenance = Maintenance(store)
    >>> maintenance.pin(key, "the release of May")
    >>> [decision.reason for decision in maintenance.collect(limit=0, grace=0).decisions]
    ['pinned: the release of May']
    """

    def __init__(self, store: Store) -> None:
        self._layout, self._index = store._layout, store.index

    @property
    def catalog(self) -> Catalog:
        """The records at a glance."""
        return Catalog(self._layout, self._index)

    def roots(self) -> list[roots.Root]:
        """Every root, the dead ones included. Raises NotReadable, StoreFailure."""
        with as_store_failures(self._layout.root, reading=True):
            return roots.found(self._layout)

    def pin(self, key: str, note: str = "") -> None:
        """Keep the artifact of `key`, whether it is here already or not, until `unpin`."""
        checked_key(key)
        # Not while a collector decides: what is there once this returns stays there.
        with gate.adding(self._layout):
            pins.add(self._layout, key, note)

    def unpin(self, key: str) -> bool:
        """Let collectors have `key` again; whether it was pinned."""
        return pins.remove(self._layout, checked_key(key))

    def pins(self) -> dict[str, pins.Pin]:
        """The pins, by key."""
        with as_store_failures(self._layout.root, reading=True):
            return pins.found(self._layout)

    def verify(self, keys: Iterable[str] | None = None, *, on_bytes: OnBytes = ignore_bytes) -> list[verify.Finding]:
        """Read every byte of the artifacts of `keys`, or of the whole store, and quarantine what is damaged."""
        return verify.verify(self._layout, keys, on_bytes)

    def size(self, keys: Sequence[str] | None = None) -> int:
        """Bytes of the blobs that `verify` will read. Raises NotReadable, StoreFailure."""
        with as_store_failures(self._layout.root, reading=True):
            return verify.total_bytes(self._layout, keys)

    def collect(
        self,
        limit: int | None = None,
        *,
        grace: float = GRACE,
        dry_run: bool = False,
        on_parsed: OnParsed = lambda _: None,
        on_wait: locks.OnWait | None = None,
    ) -> EvictionPlan:
        """Remove garbage, and what is cheapest to lose until at most `limit` bytes of files are left.

        What was used within `grace` seconds stays, as do roots, pins, and what is built or read. With `dry_run`
        nothing is changed. Raises NotWritable, StoreFailure.
        """
        if dry_run:
            return collect.plan(self._layout, self._index, limit, grace, on_parsed)
        return collect.collect(self._layout, self._index, limit, grace, on_parsed, on_wait)
