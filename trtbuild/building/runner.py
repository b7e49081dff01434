"""Runs the steps of one plan: finds what is there, chooses limits and tools, and starts the workers."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from trtbuild.artifacts.chain import Located, StoreChain
from trtbuild.artifacts.history import History, history_of
from trtbuild.building import input_folders
from trtbuild.building.events import Events, ProgressReporter
from trtbuild.building.setup import Setup
from trtbuild.building.tools import StepTools
from trtbuild.executors import cgroup_limits, container, process
from trtbuild.executors.cancellation import Cancellation
from trtbuild.facts.key import IMAGE, TOOL
from trtbuild.planning.plan import PlannedStep
from trtbuild.toolchains import team_wheels
from trtbuild.toolchains.environments import ToolchainEnvironments
from trtbuild.toolchains.lock import Lock
from trtbuild.toolchains.pythons import Python
from trtstore import Expected, LeaseOutcome, Record, StoreFailure

START = 600.0  # seconds for a worker to start, import its libraries, and compile kernels
LOADS = 20e6  # bytes a second from the slowest disk
READS = 200e6  # bytes a second from the slowest memory, if an engine is larger than the free part
PER_TOKEN = 0.5  # seconds at least, however small the engine
MANY_RECORDS = 2000  # reading more takes a second


class Runner:
    """Runs the steps of one plan as `setup` says, and reports to `reporter`.

    Runners may share `cancellation`, which ends their workers, and `built`, the keys that this command has built.
    """

    def __init__(
        self,
        setup: Setup,
        reporter: ProgressReporter,
        cancellation: Cancellation | None = None,
        built: set[str] | None = None,
    ) -> None:
        self.setup = setup
        self.cancellation = cancellation or Cancellation()
        self.events = Events(reporter, setup.team, self.cancellation)
        self.built = set[str]() if built is None else built
        self._devices: str | None = None
        self._threads: int | None = None

    def beside(self, reporter: ProgressReporter, devices: str | None, threads: int | None) -> Runner:
        """A runner of the same plan for a step that runs beside others on this machine. It shares this one's results.

        `devices` is CUDA_VISIBLE_DEVICES of its workers; `threads` is how many a worker gets if no option says it.
        """
        other = Runner(self.setup, reporter, self.cancellation, self.built)
        other.events.results = self.events.results
        other._devices, other._threads = devices, threads
        return other

    @property
    def reporter(self) -> ProgressReporter:
        return self.events.reporter

    @cached_property
    def stores(self) -> StoreChain:
        """All stores of this run."""
        setup = self.setup
        return StoreChain(setup.config.store, setup.store, setup.team, self.reporter)

    @cached_property
    def history(self) -> History:
        """Earlier builds in all these stores."""

        def on_parsed(count: int) -> None:
            if count >= MANY_RECORDS:  # only the first time, as the index remembers them
                self.reporter.waiting(f"reading the store's records for the first time, {count} so far")

        return history_of(self.setup.store, self.stores.also, self.setup.team.connection, self.reporter.note, on_parsed)

    @cached_property
    def tools(self) -> StepTools:
        """Where the steps run."""
        setup = self.setup
        environments = ToolchainEnvironments(setup.store, self.reporter, self._wheels, setup.config.store.verify.value)
        return StepTools(setup.config, environments, setup.exact)

    def _wheels(self, lock: Lock, python: Python) -> Path | None:
        """The folder of a toolchain's wheels from the team store; None if it has none with that name and content."""
        if self.setup.team.connection is None:
            return None
        record = self.stores.use(team_wheels.expected(lock, python))
        return None if record is None else self.setup.store.materialise(record).path

    def find(self, planned: PlannedStep) -> Located:
        """As `StoreChain.find`."""
        return self.stores.find(Expected(planned.key, planned.labels, None))

    def use(self, planned: PlannedStep) -> Record | None:
        """As `StoreChain.use`."""
        return self.stores.use(Expected(planned.key, planned.labels, None))

    def refreshes(self, key: str) -> bool:
        """Whether to build an artifact even if it is a hit: once, and in a job of a sweep only the job's own key."""
        config = self.setup.config
        return config.refresh and key not in self.built and config.sweep.key in (None, key)

    def preflight(self, planned: PlannedStep) -> None:
        """Before a download: check or install the tools of the steps to run, and check that the result can be shared.

        Raises InputError, StoreError, StoreFailure.
        """
        self.setup.team.check_writable()
        missing = [up for up in planned.inputs if self.find(up).record is None]
        self.tools.prepare([*missing, planned, *([planned.loader] if planned.step.handling.loads else [])])

    def lease(self, planned: PlannedStep, model_bytes: int) -> AbstractContextManager[LeaseOutcome[Record]]:
        """Be the only machine of the team that builds this step, or get the artifact that another one built."""

        def expected_seconds() -> float | None:
            estimate = self.history.estimate(planned, model_bytes)
            return None if estimate is None else estimate.seconds

        refresh = self.setup.config.refresh
        return self.setup.team.lease(
            planned.key, expected_seconds, lambda: self.use(planned), self.events.waiting, refresh
        )

    @property
    def limits(self) -> process.StepLimits:
        conf = self.setup.config.executor
        memory = None if conf.memory_gb is None else int(conf.memory_gb * 1e9)
        threads = conf.threads or self._threads or cgroup_limits.thread_limit()
        return process.StepLimits(conf.timeout_minutes * 60, memory, threads, self._devices)

    def task(
        self, planned: PlannedStep, model: Mapping[str, Path], inputs: Mapping[str, Path], home: Path
    ) -> process.Task:
        """The task of a step, with hints from earlier builds if it uses them. Raises InputError, StoreFailure."""
        step, setup = planned.step, self.setup
        options = {name: value for name, value in step.facts.items() if not name.startswith(TOOL)}
        folders = input_folders.locate(setup.config.compiler, step.facts, setup.store.index)
        task = process.Task(
            planned.name,
            planned.key,
            step.worker.module,
            options,
            self.tools.versions(planned),
            model,
            {**inputs, **folders},
        )
        if step.handling.hint is None:
            return task
        hints = setup.store.hints.take(step.handling.hint, home / "hints", step.handling.max_hints)
        return replace(task, hints=tuple(hints), learnt=home / "learnt")

    def finish(self, planned: PlannedStep, task: process.Task) -> None:
        """After a task: keep the hint that its worker left for later builds.

        Raises BuildError if a folder that it read is no longer what the key says.
        """
        setup, hint = self.setup, planned.step.handling.hint
        if hint is not None and task.learnt is not None:
            try:
                setup.store.hints.leave(hint, task.learnt, [path.name for path in task.hints])
            except StoreFailure as trouble:  # this build is done; only the next one takes longer
                self.reporter.note(f"{planned.name}: what it learnt of the hardware is not kept: {trouble}")
        input_folders.recheck(setup.config.compiler, planned.step.facts, setup.store.index)

    def run(
        self,
        task: process.Task,
        planned: PlannedStep,
        out: Path,
        home: Path,
        limits: process.StepLimits | None = None,
    ) -> process.WorkerResult:
        """Run a worker where the step `planned` runs, into the empty folder `out`. Raises InputError, BuildError."""
        out.mkdir(exist_ok=True)
        limits, on_event, config = limits or self.limits, self.events.worker, self.setup.config
        image, lock = planned.step.facts.get(IMAGE), planned.step.lock
        if image is not None:
            inside = self.tools.container(str(image))
            return container.run(task, out, home, inside, limits, on_event, self.cancellation)
        with self.tools.interpreter(lock, home) as (python, managed):
            ran = process.run(
                task,
                out,
                home,
                python,
                limits,
                on_event,
                self.cancellation,
                config.executor.env,
                sealed=managed,
            )
        return replace(ran, executor="managed") if managed else ran

    def load(
        self,
        name: str,
        worker: str,
        options: Mapping[str, Any],
        planned: PlannedStep,
        engine: Path,
        home: Path,
    ) -> process.WorkerResult:
        """Run a worker, "check" or "generate", that loads the engine in the folder `engine`. Raises as `run`."""
        # An engine that fails its check lies beside `home`, and is removed with it.
        lasting = not engine.is_relative_to(home.parent)
        versions = self.tools.versions(planned.loader)
        task = process.Task(name, planned.key, worker, options, versions, {}, {"engine": engine}, lasting)
        conf = self.setup.config.check if name == "check" else self.setup.config.generate
        limits = loading_limits(self.limits, name, conf.timeout_minutes, conf.max_tokens, bytes_of(engine))
        return self.run(task, planned.loader, home / "out", home, limits)


def loading_limits(
    limits: process.StepLimits, name: str, asked: float | None, tokens: int, size: int
) -> process.StepLimits:
    """The limits of a worker that loads an engine of `size` bytes and generates `tokens`.

    `asked` is the minutes that the user allows. Otherwise they follow from what the slowest machines take: `START` to
    begin, then time to read the engine once to load it, and once for each token. No more than a step may take.
    """
    option = f"{name}.timeout_minutes"
    if asked is not None:
        return replace(limits, timeout_seconds=asked * 60, option=option)
    seconds = START + size / LOADS + tokens * (size / READS + PER_TOKEN)
    if seconds >= limits.timeout_seconds:
        return limits
    return replace(limits, timeout_seconds=seconds, option=option)


def bytes_of(folder: Path) -> int:
    """Of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def builder(planned: PlannedStep) -> str:
    """Who builds this step, for the processes that wait for it."""
    return f"{planned.name} on {socket.gethostname()}, process {os.getpid()}"
