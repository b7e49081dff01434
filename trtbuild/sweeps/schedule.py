"""Runs units in the order that their inputs allow, the longest chain first, on the given workers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from trtbuild.building.events import ProgressReporter
from trtbuild.building.results import StepResult
from trtbuild.errors import TrtbuildError
from trtbuild.sweeps.work import Unit, urgency


@dataclass(frozen=True)
class UnitResult:
    """A unit that ran, or could not. Times are seconds since the epoch; `worker` is where it ran, for people.

    `handed` is when the workers got it; `phases` are (what it did, since when), if known.
    """

    unit: Unit
    result: StepResult | None
    error: TrtbuildError | None
    started: float
    ended: float
    worker: str
    handed: float
    phases: tuple[tuple[str, float], ...] = ()


class UnitReporter(ProgressReporter, Protocol):
    """Reports what a unit does; called by the thread that waits for it."""

    @property
    def phases(self) -> Sequence[tuple[str, float]]:
        """The steps that it has started, each with its time."""
        ...


class Observer(Protocol):
    """Observes a sweep; called by the thread that runs it."""

    def reporter(self, unit: Unit) -> UnitReporter: ...

    def started(self, unit: Unit, worker: str) -> None: ...
    def ended(self, ended: UnitResult) -> None: ...


class Workers(Protocol):
    """A machine or a cluster that runs units."""

    def start(self, ready: Sequence[Unit]) -> Sequence[Unit]:
        """Start as many of `ready` as there is room for, first come first; those that were started."""
        ...

    def wait(self) -> Sequence[UnitResult]:
        """What has ended since; waits for the first, or a moment."""
        ...

    def stop(self) -> None:
        """End all that runs. Nothing is left running."""
        ...


def run(units: Sequence[Unit], workers: Workers, observer: Observer) -> Mapping[str, UnitResult]:
    """Run all units; by key, what became of each. The units that wait for one that failed fail as it did.

    However it ends, an interrupt included, nothing is left running.
    """
    chains = urgency(units)
    waiting = {unit.key: unit for unit in sorted(units, key=lambda unit: -chains[unit.key])}
    done: dict[str, UnitResult] = {}
    running = 0

    def note(ended: UnitResult) -> None:
        done[ended.unit.key] = ended
        observer.ended(ended)

    try:
        while waiting or running:
            for unit in _spoilt(waiting, done):
                del waiting[unit.key]
                now = time.time()
                note(UnitResult(unit, None, _cause(unit, done), now, now, "", now))
            ready = [unit for unit in waiting.values() if all(key in done for key in unit.needs)]
            for unit in workers.start(ready) if ready else ():
                del waiting[unit.key]
                running += 1
            if running:
                for ended in workers.wait():
                    running -= 1
                    note(ended)
    finally:
        workers.stop()
    return done


def _spoilt(waiting: Mapping[str, Unit], done: Mapping[str, UnitResult]) -> list[Unit]:
    return [unit for unit in waiting.values() if _cause(unit, done) is not None]


def _cause(unit: Unit, done: Mapping[str, UnitResult]) -> TrtbuildError | None:
    errors = (done[key].error for key in unit.needs if key in done)
    return next((error for error in errors if error is not None), None)
