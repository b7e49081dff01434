"""Keys whose artifacts wait to be pushed to a team store: files in pending/, which collectors respect."""

from __future__ import annotations

from contextlib import suppress

from trtstore.disk.layout import Layout, entries
from trtstore.errors import as_store_failures
from trtstore.format.digest import checked_key, is_hex


class Pending:
    """The waiting keys of one store."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def add(self, key: str) -> None:
        """Remember that `key` is to be pushed. Raises NotWritable, StoreFailure."""
        with as_store_failures(self._layout.root):
            place = self._layout.make(self._layout.pending) / checked_key(key)
            with suppress(FileExistsError), place.open("x"):
                self._layout.sync(self._layout.pending)

    def remove(self, key: str) -> None:
        """Forget it, if it is there. Raises NotWritable, StoreFailure."""
        with as_store_failures(self._layout.root), suppress(FileNotFoundError, NotADirectoryError):
            (self._layout.own(self._layout.pending) / key).unlink()

    def waiting(self) -> list[str]:
        """The keys that wait, sorted. Raises Invalid where pending/ is a link, OSError."""
        return [path.name for path in entries(self._layout.own(self._layout.pending)) if is_hex(path.name)]
