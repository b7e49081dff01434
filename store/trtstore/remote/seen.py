"""Which blobs of a team store this machine has read, or sent, and found to be what their names say."""

from __future__ import annotations

import threading

from trtstore.format.digest import hash_bytes
from trtstore.index.index import Index
from trtstore.remote.objects import Stat

TABLE = "team-blob"


class Seen:
    """Blobs of the store at `url`, each as it was put there: written anew, it is unknown again. `index` keeps it."""

    def __init__(self, url: str, index: Index | None = None) -> None:
        self._where = hash_bytes(url.encode())[:16]
        self._index = index
        self._sent: set[str] = set()
        self._turn = threading.Lock()

    def sent(self, digits: str) -> None:
        """The blob was sent just now, and is there as it was sent."""
        with self._turn:
            self._sent.add(digits)

    def has(self, digits: str, stat: Stat) -> bool:
        """Whether this very object is known to be the blob."""
        if digits in self._sent:
            self.keep(digits, stat)
            return True
        row = None if self._index is None else self._index.get(TABLE, self._name(digits))
        return row == [stat.size, stat.stamp]

    def keep(self, digits: str, stat: Stat) -> None:
        """The object was read, and is the blob."""
        if self._index is not None:
            self._index.put(TABLE, self._name(digits), [stat.size, stat.stamp])

    def suspect(self, digits: str) -> None:
        """Forget the blob, since other bytes were read: the next check has to read them again."""
        with self._turn:
            self._sent.discard(digits)
        if self._index is not None:
            self._index.forget(TABLE, [self._name(digits)])

    def _name(self, digits: str) -> str:
        return f"{self._where}:{digits}"
