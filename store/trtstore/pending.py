"""Keys whose artifacts wait to be pushed to a team store: files in pending/, which collectors respect."""

from __future__ import annotations

from contextlib import suppress

from trtstore.digest import checked_key, is_hex
from trtstore.errors import translated
from trtstore.layout import Layout, entries


def add(layout: Layout, key: str) -> None:
    """Remember that `key` is to be pushed. Raises NotWritable and the like."""
    with translated(layout.root):
        place = layout.make(layout.pending) / checked_key(key)
        with suppress(FileExistsError), place.open("x"):
            layout.sync(layout.pending)


def remove(layout: Layout, key: str) -> None:
    """Forget it, if it is there. Raises NotWritable and the like."""
    with translated(layout.root), suppress(FileNotFoundError, NotADirectoryError):
        (layout.own(layout.pending) / key).unlink()


def found(layout: Layout) -> list[str]:
    """The keys that wait, sorted. Raises Invalid where pending/ is a link, OSError."""
    return [path.name for path in entries(layout.own(layout.pending)) if is_hex(path.name)]
