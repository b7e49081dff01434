"""Events of the steps that run, passed on to whoever reports them to the user."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from trtbuild.artifacts.team import TeamStore
from trtbuild.building.results import StepResult
from trtbuild.executors.cancellation import Cancellation
from trtbuild.executors.worker_events import Event
from trtstore import Holder


class ProgressReporter(Protocol):
    """Reports progress to the user; `trtbuild.report` has those for a terminal and for a log."""

    def step_started(self, name: str) -> None: ...
    def step_ended(self, result: StepResult) -> None: ...
    def progress(self, what: str, done: int, total: int, unit: str) -> None: ...

    def hashing(self, done: int, total: int) -> None:
        """Bytes. From any thread, and for the last time with `done` equal to `total`."""
        ...

    def text(self, piece: str) -> None:
        """A piece of an engine's answer."""
        ...

    def note(self, words: str) -> None: ...

    def waiting(self, words: str) -> None:
        """About once a second while another process is waited for."""
        ...


@dataclass
class Events:
    """Passes the events of one plan's steps on to `reporter`. `results` are those of its steps so far, by name.

    While the build waits for another process, a set `cancellation` raises BuildError.
    """

    reporter: ProgressReporter
    team: TeamStore
    cancellation: Cancellation
    results: dict[str, StepResult] = field(default_factory=dict)
    _fetching: bool = False

    def step_ended(self, result: StepResult) -> None:
        self.results[result.name] = result
        self.reporter.step_ended(result)

    def fetching(self, what: str, done: int, total: int) -> None:
        """Bytes of a download. The first call reports the step "source"; a checkpoint in place makes no call."""
        if not self._fetching:
            self._fetching = True
            self.reporter.step_started("source")
        self.reporter.progress(what, done, total, "B")

    def sharing(self, what: str, done: int, total: int) -> None:
        """Bytes of an upload."""
        self.reporter.progress(what, done, total, "B")

    def worker(self, event: Event) -> None:
        """A line of a worker's protocol."""
        if event["event"] == "progress":
            self.reporter.progress(event["what"], event["done"], event["total"], event["unit"])
            self.team.report_progress(event["what"], event["done"], event["total"])
        elif event["event"] == "text":
            self.reporter.text(event["text"])

    def waiting_for(self, holder: Holder) -> None:
        """Another process of this machine holds the key's lock."""
        self.waiting(f"waiting for {holder.who}, {time.time() - holder.started:.0f} s so far")

    def waiting(self, words: str) -> None:
        self.cancellation.check()
        self.reporter.waiting(words)
