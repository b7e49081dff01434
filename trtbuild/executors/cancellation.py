"""Ends the workers that several threads wait for, all at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trtbuild.errors import BuildError


class Cancellation:
    """Once it has come, workers are killed, and none is started any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kills: list[Callable[[], None]] = []
        self._come = False

    @contextmanager
    def awaited(self, kill: Callable[[], None]) -> Iterator[None]:
        """Inside, `kill` ends a worker that was just started."""
        with self._lock:
            self._kills.append(kill)
            if self._come:
                kill()
        try:
            yield
        finally:
            with self._lock:
                self._kills.remove(kill)

    def now(self) -> None:
        """Let it come. From any thread."""
        with self._lock:
            self._come = True
            for kill in self._kills:
                kill()

    def check(self) -> None:
        """Raises BuildError once it has come: what a worker did is then nobody's fault, and nothing to keep."""
        if self._come:
            raise BuildError("interrupted")
