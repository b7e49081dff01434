"""Notes of one command, each told once, and not at all where the error that ends the command says the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[str], None]


class Once:
    """Tells a sentence to `tell` the first time that it comes. The points of a sweep share one."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._turn = threading.Lock()
        self._said: set[str] = set()
        self._mine = _Mine()

    def __call__(self, words: str, tell: Tell | None = None) -> None:
        """Tell `words`, by `tell` where that is given."""
        with self._turn:
            if words in self._said:
                return
            self._said.add(words)
        tell = tell or self._tell
        if self._mine.held is None:
            tell(words)
        else:
            self._mine.held.append((words, tell))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """What this thread is to tell waits for `release`, or for the end."""
        self._mine.held = []
        try:
            yield
        finally:
            self.release()
            self._mine.held = None

    def release(self) -> None:
        """Tell what waits."""
        waiting = self._mine.held or []
        while waiting:
            words, tell = waiting.pop(0)
            tell(words)

    def drop(self, words: str) -> None:
        """What waits and has `words` in it is not told: the caller says it."""
        if self._mine.held is not None:
            self._mine.held = [each for each in self._mine.held if words not in each[0]]


class _Mine(threading.local):
    """What this thread holds back; None where it tells at once."""

    held: list[tuple[str, Tell]] | None = None
