"""Who adds to a store and who removes from it: `locks/store`, held together by adders and alone by a remover.

flock(2) lets new sharers pass a waiting remover for ever, so everybody goes through `locks/turn` first: a remover
keeps it while it waits, so that no new adder slips in. An adder holds the gate for a few renames, never for a copy.
A holder must release it before it asks again: with a remover waiting, that would be a deadlock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from trtstore.disk import locks
from trtstore.disk.layout import Layout
from trtstore.errors import NoLocks, NoSpace, NotWritable, as_store_failures


@contextmanager
def adding(layout: Layout) -> Iterator[None]:
    """Hold off removers. Raises NotWritable, NoLocks, StoreFailure."""
    _prepare(layout)
    with ExitStack() as held:
        with locks.shared(layout.lock("turn")):
            held.enter_context(locks.shared(layout.lock("store")))
        yield


@contextmanager
def removing(layout: Layout, *, who: str, on_wait: locks.OnWait | None = None) -> Iterator[None]:
    """Be the only one that adds or removes: what is decided inside stays true until the end. Raises as `adding`."""
    _prepare(layout)
    with (
        locks.exclusive(layout.lock("turn"), who=who, on_wait=on_wait, keep=True),
        locks.exclusive(layout.lock("store"), who=who, on_wait=on_wait, keep=True),
    ):
        yield


@contextmanager
def looking(layout: Layout) -> Iterator[None]:
    """As `adding`, for readers: if the lock cannot be written, nothing is removed from the store either."""
    with ExitStack() as held:
        with suppress(NotWritable, NoLocks, NoSpace):
            held.enter_context(adding(layout))
        yield


def _prepare(layout: Layout) -> None:
    with as_store_failures(layout.root):
        layout.make(layout.locks)
