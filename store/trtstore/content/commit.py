"""The last steps by which an artifact comes into a store, while no collector decides: first blobs, then the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from trtstore.content import blobs
from trtstore.content.blobs import Staged
from trtstore.disk.layout import Layout
from trtstore.errors import Corrupt, StoreFailure
from trtstore.index.seals import Seals
from trtstore.marks import doubts
from trtstore.marks.doubts import Doubt


def settle(layout: Layout, staged: Sequence[Staged], wanted: Mapping[str, int], seals: Seals) -> None:
    """Commit the staged blobs; raises Corrupt unless all of `wanted` (digits -> bytes) are then there, OSError.

    The blobs that were there already may have gone meanwhile.
    """
    blobs.commit(layout, list(staged), seals)
    for digits, size in wanted.items():
        trouble = blobs.problem(layout, digits, size, seals=seals)
        if trouble is not None:
            raise Corrupt(trouble, "try again: it was there a moment ago")


def put_record(layout: Layout, key: str, envelope: bytes, temporary: Path, doubt: Doubt | None) -> None:
    """Make `envelope` the record of `key`, whose lock is held, with what is to be remembered against it.

    Raises OSError, and then there is no record.
    """
    if doubt is not None:
        doubts.mark(layout, key, doubt)  # first: a record is never there without its mark
    place = layout.record(key)
    layout.make(place.parent)
    temporary.write_bytes(envelope)
    temporary.chmod(blobs.MODE)
    layout.sync(temporary)
    blobs.put(temporary, place)
    try:
        layout.sync(place.parent)
    except OSError:
        place.unlink(missing_ok=True)  # a failed publish adds no record, and no reader may rely on this one
        raise
    if doubt is None:
        with suppress(StoreFailure):  # the record is there: a mark that cannot go makes others too careful, no more
            doubts.clear(layout, key)
