"""The notes of one command: each is shown once, and not at all if the error that ends the command says the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[str], None]


class NotesOnce:
    """Passes a note to `tell` the first time that it comes. The points of a sweep share one of these."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._turn = threading.Lock()
        self._seen: set[str] = set()
        self._held_back = _HeldBack()

    def __call__(self, words: str, tell: Tell | None = None) -> None:
        """Show `words`, through `tell` if it is given."""
        with self._turn:
            if words in self._seen:
                return
            self._seen.add(words)
        tell = tell or self._tell
        if self._held_back.notes is None:
            tell(words)
        else:
            self._held_back.notes.append((words, tell))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Inside, the notes of this thread wait for `release`, or for the end."""
        self._held_back.notes = []
        try:
            yield
        finally:
            self.release()
            self._held_back.notes = None

    def release(self) -> None:
        """Show the notes that wait."""
        waiting = self._held_back.notes or []
        while waiting:
            words, tell = waiting.pop(0)
            tell(words)

    def drop(self, words: str) -> None:
        """Drop the waiting notes that contain `words`: the caller says it."""
        if self._held_back.notes is not None:
            self._held_back.notes = [note for note in self._held_back.notes if words not in note[0]]


class _HeldBack(threading.local):
    """The notes that this thread holds back; None if it shows them at once."""

    notes: list[tuple[str, Tell]] | None = None
