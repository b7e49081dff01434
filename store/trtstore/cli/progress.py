"""One line of progress on a terminal, with rate and time left; nothing if stderr is not a terminal."""

from __future__ import annotations

import sys
import threading
import time

from trtstore import units

EVERY = 0.1  # seconds between two writings of the line
PATIENCE = 0.5  # seconds before the first: what is done by then needs no line


class Progress:
    """`done` of `total` bytes; threads may tell.

    >>> progress = Progress("copy", 10)
    >>> progress.add(4)
    >>> progress.done
    4
    >>> progress.close()
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what, self._total = what, total
        self._started = time.monotonic()
        self._told = self._started + PATIENCE - EVERY
        self._shown = False
        self._turn = threading.Lock()
        self.done = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def add(self, count: int) -> None:
        """So many bytes more."""
        with self._turn:
            self.done += count
            self._show(self._line)

    def tell(self, done: int, total: int) -> None:
        """So many bytes of so many."""
        with self._turn:
            self.done, self._total = done, total
            self._show(self._line)

    def count(self, number: int) -> None:
        """Show how many things were done so far, if their total is not known."""
        with self._turn:
            self._show(lambda: f"{self._what}: {number:,}")

    def close(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _line(self) -> str:
        rate = self.done / max(self.seconds, 1e-6)
        line = f"{self._what}: {units.format_size(self.done)}"
        if self._total:
            left = (self._total - self.done) / max(rate, 1.0)
            line += f" of {units.format_size(self._total)}, {units.format_size(rate)}/s"
            line += f", {units.format_seconds(max(left, 0))} left"
        return line

    def _show(self, line: object) -> None:
        now = time.monotonic()
        if now - self._told < EVERY or not sys.stderr.isatty():
            return
        self._told, self._shown = now, True
        sys.stderr.write(f"\r\x1b[K{line() if callable(line) else line}")
        sys.stderr.flush()
