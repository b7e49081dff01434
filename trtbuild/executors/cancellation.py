"""Kills all workers at once, whichever threads wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trtbuild.errors import BuildError


class Cancellation:
    """A cancellation token: once set, workers are killed and none start. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kills: list[Callable[[], None]] = []
        self._cancelled = False

    @contextmanager
    def on_cancel(self, kill: Callable[[], None]) -> Iterator[None]:
        """Inside this context a cancellation calls `kill`; at once, if it is already set."""
        with self._lock:
            self._kills.append(kill)
            if self._cancelled:
                kill()
        try:
            yield
        finally:
            with self._lock:
                self._kills.remove(kill)

    def cancel(self) -> None:
        """Set the token, and kill every worker that runs."""
        with self._lock:
            self._cancelled = True
            for kill in self._kills:
                kill()

    def check(self) -> None:
        """Raises BuildError if the token is set: a cancelled step has no result, and its failure is not reported."""
        if self._cancelled:
            raise BuildError("interrupted")
