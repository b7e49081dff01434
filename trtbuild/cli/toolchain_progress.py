"""Who tells a terminal, or a log, what `trtbuild toolchain` does."""

from __future__ import annotations

import sys
import time


class ToolchainReporter:
    """Says on standard error what happens; on a terminal also how far it is."""

    def __init__(self) -> None:
        self._told = 0.0
        self._open = False

    def step_started(self, name: str) -> None:
        self.note(f"{name} …")

    def progress(self, what: str, done: int, total: int, unit: str) -> None:  # noqa: ARG002  # one of a protocol
        if sys.stderr.isatty():
            self._open = True
            print(f"\r\x1b[K{done} of {total} {unit}", end="", file=sys.stderr, flush=True)

    def note(self, words: str) -> None:
        print(("\r\x1b[K" if self._open else "") + words, file=sys.stderr, flush=True)
        self._open = False

    def waiting(self, words: str) -> None:
        if time.monotonic() - self._told >= 10:  # this is called each second
            self._told = time.monotonic()
            self.note(words)
