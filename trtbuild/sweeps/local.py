"""Runs units on this machine: each in a worker process of its own, a thread waiting for it."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Sequence

from trtbuild.building import pipeline
from trtbuild.building.results import StepResult
from trtbuild.errors import TrtbuildError
from trtbuild.executors import cgroup_limits
from trtbuild.sweeps.schedule import Observer, UnitResult
from trtbuild.sweeps.work import CPU, Unit, refused
from trtbuild.targets import gpu_slots
from trtstore import StoreFailure

PATIENCE = 10.0  # seconds for workers that were ended to be gone
SPARE = 0.9  # of the free memory: the rest is for what was never measured


class Local:
    """The cores, the memory and the GPUs of this machine."""

    def __init__(self, jobs: int | None, observer: Observer) -> None:
        """`jobs` is how many units at a time; None is as many as there are cores."""
        self._cores = cgroup_limits.cores()
        self._slots = jobs or self._cores
        self._memory = cgroup_limits.free_memory() * SPARE
        self._observer = observer
        self._running: dict[str, tuple[Unit, str | None, int]] = {}  # with the GPU that it has to itself, and a place
        self._ended: queue.SimpleQueue[UnitResult | BaseException] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self, ready: Sequence[Unit]) -> Sequence[Unit]:
        """Those that fit; one always does. The cores are shared out among all that run then."""
        started = [unit for unit in ready if self._take(unit)]
        # Threads wait for each other busily: more of them than there are cores took nine times as long.
        threads = max(1, self._cores // len(self._running)) if len(self._running) > 1 else None
        for unit in started:
            _, device, lane = self._running[unit.key]
            name = f"{os.uname().nodename} {lane}" + (f", GPU {device}" if device else "")
            self._observer.started(unit, name)
            # A daemon: what cannot be interrupted (a download) does not hold up the end of this process.
            thread = threading.Thread(target=self._work, args=(unit, device, threads, name), daemon=True)
            self._threads.append(thread)
            thread.start()
        return started

    def _take(self, unit: Unit) -> bool:
        """Give the unit a place, and a GPU if it needs one, where there are."""
        if len(self._running) >= self._slots or not self._fits(unit):
            return False
        free = self._gpus(unit)
        if free is not None and not free:
            return False
        lane = min(set(range(1, self._slots + 1)) - {lane for _, _, lane in self._running.values()})
        self._running[unit.key] = (unit, free[0] if free else None, lane)
        return True

    def wait(self) -> Sequence[UnitResult]:
        """Raises a fault of trtbuild's own as it came."""
        ended = self._ended.get()
        if isinstance(ended, BaseException):
            raise ended
        del self._running[ended.unit.key]
        return [ended]

    def stop(self) -> None:
        """Kill the workers and wait for their threads, which clear away what was half done."""
        for unit, _, _ in self._running.values():
            unit.job.planned[1].cancellation.cancel()
        until = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self, unit: Unit, device: str | None, threads: int | None, name: str) -> None:
        plan, runner = unit.job.planned
        reporter = self._observer.reporter(unit)
        started = time.time()
        result: StepResult | None = None
        error: TrtbuildError | None = None
        try:
            pipeline.ensure(unit.planned, plan, runner.beside(reporter, device, threads))
            result = runner.events.results[unit.planned.name]
        except TrtbuildError as failure:
            error = failure
        except StoreFailure as failure:
            error = refused(failure)
        except BaseException as fault:  # the thread that waits raises it  # noqa: BLE001
            self._ended.put(fault)
            return
        phases = tuple(reporter.phases)
        self._ended.put(UnitResult(unit, result, error, started, time.time(), name, started, phases))

    def _fits(self, unit: Unit) -> bool:
        if not self._running:
            return True
        used = sum(memory_of(other) for other, _, _ in self._running.values())
        return used + memory_of(unit) <= self._memory

    def _gpus(self, unit: Unit) -> list[str] | None:
        """The free GPUs of the kind that a unit needs; None where it needs none."""
        if unit.group == CPU:
            return None
        plan, _ = unit.job.planned
        here = gpu_slots(plan.recipe.target)
        if not here:
            return None  # it is refused as soon as it starts, with what is here
        taken = {device for _, device, _ in self._running.values()}
        return [name for name in here if name not in taken]


def memory_of(unit: Unit) -> float:
    """Bytes that a unit's worker is likely to hold; a guess if nothing like it was measured."""
    if unit.estimate is not None and unit.estimate.peak_memory_bytes is not None:
        return unit.estimate.peak_memory_bytes
    plan, _ = unit.job.planned
    return 0.5e9 + 3 * plan.recipe.model.bytes
