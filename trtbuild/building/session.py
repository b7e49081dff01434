"""What one run of the command line works with: config, store, source, and who is told what happens."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from trtbuild.artifacts import provenance
from trtbuild.artifacts.chain import Found, Lookup
from trtbuild.artifacts.history import History, Place
from trtbuild.artifacts.team import Sharing
from trtbuild.building import input_folders
from trtbuild.building.workbench import Workbench
from trtbuild.config import schema
from trtbuild.executors import cgroup_limits, process, worker_events
from trtbuild.executors.cancellation import Cancellation
from trtbuild.facts.key import TOOL
from trtbuild.planning.plan import Plan, Planned
from trtbuild.sources import Source
from trtbuild.toolchains import team_wheels as wheels
from trtbuild.toolchains.environments import ToolchainEnvironments
from trtbuild.toolchains.lock import Lock
from trtbuild.toolchains.pythons import Python
from trtstore import (
    Expected,
    Holder,
    LeaseOutcome,
    Maintenance,
    Record,
    Store,
    StoreFailure,
    catalog_of,
    team_summaries,
)

FROM_TEAM = 24  # records of the team's store that are read to find the nearest: each comes across a network
START = 600.0  # seconds for a worker to start and import its libraries, and to compile what it needs
LOADS = 20e6  # bytes a second from the slowest disk
READS = 200e6  # and from the slowest memory, where an engine is larger than what is free
PER_TOKEN = 0.5  # seconds, however small the engine
MANY = 2000  # records: reading more takes a second


@dataclass(frozen=True)
class StepResult:
    """What became of one step. Seconds, bytes and peak memory are of the build that made it, now or before."""

    name: str
    key: str
    outcome: str  # hit-local, hit-team, built, unneeded
    seconds: float | None = None
    bytes: int | None = None
    peak_memory_bytes: int | None = None


class Watcher(Protocol):
    """Is told what happens; the report makes words of it."""

    def step_started(self, name: str) -> None: ...
    def step_ended(self, result: StepResult) -> None: ...
    def progress(self, what: str, done: int, total: int, unit: str) -> None: ...
    def hashing(
        self, done: int, total: int
    ) -> None: ...  # bytes; from any thread, the last time with all done
    def text(self, piece: str) -> None: ...
    def note(self, words: str) -> None: ...
    def waiting(self, words: str) -> None: ...


@dataclass
class Session:
    """One config on its way through the pipeline, and the results of its steps so far."""

    config: schema.Config
    store: Store
    open_source: Callable[[], Source]
    watcher: Watcher
    #: looks at the checkpoint's headers and small files: notes, or InputError where no engine can be right
    examine: Callable[[], tuple[str, ...]] = tuple
    results: dict[str, StepResult] = field(default_factory=dict)
    fetching: bool = False
    exact: bool = False  # the steps are those of a record: no option may choose other tools
    devices: str | None = None  # CUDA_VISIBLE_DEVICES of its workers, where others build beside them
    threads: int | None = None  # of its workers, where the config says nothing and others build beside them
    cancellation: Cancellation = field(
        default_factory=Cancellation
    )  # of its workers, where others are waited for, too
    made: set[str] = field(default_factory=set)  # keys that were built for this command line
    shared: Sharing | None = None  # of the points of a sweep: one connection to the team's store
    labels: dict[str, Mapping[str, str]] = field(
        default_factory=dict
    )  # by key, of the steps that are expected

    @cached_property
    def source(self) -> Source:
        """The checkpoint. Raises InputError."""
        return self.open_source()

    @property
    def limits(self) -> process.StepLimits:
        conf = self.config.executor
        memory = None if conf.memory_gb is None else int(conf.memory_gb * 1e9)
        threads = conf.threads or self.threads or cgroup_limits.thread_limit()
        return process.StepLimits(conf.timeout_minutes * 60, memory, threads, self.devices)

    def refreshes(self, key: str) -> bool:
        """Whether an artifact is built even where it is there: once, and in a job of a sweep the job's own alone."""
        only = self.config.sweep.key
        return self.config.refresh and key not in self.made and only in (None, key)

    def ended(self, result: StepResult) -> None:
        self.results[result.name] = result
        self.watcher.step_ended(result)

    def on_fetch(self, what: str, done: int, total: int) -> None:
        if not self.fetching:  # a folder on this disk is not fetched, and nothing is said of it
            self.fetching = True
            self.watcher.step_started("source")
        self.watcher.progress(what, done, total, "B")

    def on_event(self, event: worker_events.Event) -> None:
        if event["event"] == "progress":
            self.watcher.progress(event["what"], event["done"], event["total"], event["unit"])
            self.sharing.tell(event["what"], event["done"], event["total"])
        elif event["event"] == "text":
            self.watcher.text(event["text"])

    def on_wait(self, holder: Holder) -> None:
        self.cancellation.check()
        self.watcher.waiting(f"waiting for {holder.who}, {time.time() - holder.started:.0f} s so far")

    def on_share(self, what: str, done: int, total: int) -> None:
        self.watcher.progress(what, done, total, "B")

    def alone(
        self, planned: Planned, labels: Mapping[str, str], model_bytes: int
    ) -> AbstractContextManager[LeaseOutcome[Record]]:
        """Be the only machine of the team that builds this step, or have what another one built meanwhile."""

        def expected() -> float | None:
            estimate = self.history.estimate(planned, labels, model_bytes)
            return None if estimate is None else estimate.seconds

        def look() -> Record | None:
            return self.use(planned)

        def waiting(words: str) -> None:
            self.cancellation.check()
            self.watcher.waiting(words)

        return self.sharing.alone(planned.key, expected, look, waiting, self.config.refresh)

    def who(self, planned: Planned) -> str:
        """For those who wait for this build."""
        return f"{planned.name} on {socket.gethostname()}, process {os.getpid()}"

    def run(
        self, planned: Planned, model: Mapping[str, Path], inputs: Mapping[str, Path], out: Path, home: Path
    ) -> process.WorkerResult:
        """Run a step's worker into the empty folder `out`. Raises InputError, BuildError."""
        step = planned.step
        options = {name: value for name, value in step.facts.items() if not name.startswith(TOOL)}
        given = {**inputs, **input_folders.given(self.config.compiler, step.facts, self.store.index)}
        task = process.Task(
            planned.name,
            planned.key,
            step.worker.module,
            options,
            self.workbench.tools(planned),
            model,
            given,
        )
        ran = self._hinted(task, planned, out, home)
        input_folders.recheck(self.config.compiler, step.facts, self.store.index)
        return ran

    def _hinted(self, task: process.Task, planned: Planned, out: Path, home: Path) -> process.WorkerResult:
        """With what earlier builds learnt of the hardware, where the step takes it; what this one learns is kept."""
        handling, hints, learnt = planned.step.handling, self.store.hints, home / "learnt"
        if handling.hint is None:
            return self._bench(task, planned, out, home)
        taken = hints.take(handling.hint, home / "hints", handling.max_hints)
        ran = self._bench(replace(task, hints=tuple(taken), learnt=learnt), planned, out, home)
        try:
            hints.leave(handling.hint, learnt, [path.name for path in taken])
        except StoreFailure as trouble:  # the build is done, and the next one takes longer
            self.watcher.note(f"{planned.name}: what it learnt of the hardware is not kept: {trouble}")
        return ran

    def _bench(
        self,
        task: process.Task,
        planned: Planned,
        out: Path,
        home: Path,
        limits: process.StepLimits | None = None,
    ) -> process.WorkerResult:
        bounds = limits or self.limits
        return self.workbench.run(task, planned, out, home, bounds, self.on_event, self.cancellation)

    @cached_property
    def sharing(self) -> Sharing:
        """The team's store, as far as the config says."""
        return self.shared or Sharing(self.config.store, self.store, self.watcher.note)

    @cached_property
    def stores(self) -> Lookup:
        """All stores of this run."""
        return Lookup(self.config.store, self.store, self.sharing, self.watcher)

    def expect(self, plan: Plan) -> Session:
        """Say what will be asked for, before anything is: a key of the team's counts for that as far as its scope goes.

        Raises InputError, StoreError.
        """
        self.labels |= {step.key: provenance.labels(step, plan) for step in plan.steps}
        self.sharing.expect(self.labels)
        return self

    def wanted(self, planned: Planned) -> Expected:
        """The question for a step's result. The team is not asked for one that no plan of this session holds."""
        return Expected(planned.key, self.labels.get(planned.key), None)

    def find(self, planned: Planned) -> Found:
        """As `Lookup.find`."""
        return self.stores.find(self.wanted(planned))

    def use(self, planned: Planned) -> Record | None:
        """As `Lookup.use`."""
        return self.stores.use(self.wanted(planned))

    @cached_property
    def history(self) -> History:
        """Earlier builds in all these stores."""
        index = self.store.index
        places = [Place(self.store, True, Maintenance(self.store).catalog.summaries)]
        places += [Place(other, False, catalog_of(other, index).summaries) for other in self.stores.also]
        team = self.sharing.team
        if team is not None:
            places.append(Place(team, False, partial(team_summaries, team, index), FROM_TEAM))
        return History(places, self.watcher.note, self._parsed)

    def _parsed(self, count: int) -> None:
        if count >= MANY:  # once: the index remembers them
            self.watcher.waiting(f"reading the store's records for the first time, {count} so far")

    def load(
        self, name: str, worker: str, options: Mapping[str, Any], planned: Planned, engine: Path, home: Path
    ) -> process.WorkerResult:
        """Run a worker that loads the engine in the folder `engine`. Raises InputError, BuildError."""
        inputs, tools = {"engine": engine}, self.workbench.tools(planned.loader)
        # An engine that fails its check lies beside `home`, and goes with it.
        lasting = not engine.is_relative_to(home.parent)
        task = process.Task(name, planned.key, worker, options, tools, {}, inputs, lasting)
        conf = self.config.check if name == "check" else self.config.generate
        limits = speaking(self.limits, name, conf.timeout_minutes, conf.max_tokens, bytes_of(engine))
        return self._bench(task, planned.loader, home / "out", home, limits)

    @cached_property
    def workbench(self) -> Workbench:
        """Where its steps run."""
        kept = ToolchainEnvironments(self.store, self.watcher, self._wheels, self.config.store.verify.value)
        return Workbench(self.config, kept, self.exact)

    def _wheels(self, lock: Lock, python: Python) -> Path | None:
        """The wheels of a toolchain in the team's store, as a folder; None where there is none, or not these."""
        record = None if self.sharing.team is None else self.stores.use(wheels.expected(lock, python))
        return None if record is None else self.store.materialise(record).path

    def preflight(self, planned: Planned) -> None:
        """Before a checkpoint is downloaded: are the tools of the steps to come there, and may the result be shared?

        Raises InputError, StoreError, StoreFailure.
        """
        self.sharing.ready()
        missing = [up for up in planned.inputs if self.find(up).record is None]
        self.workbench.prepare(
            [*missing, planned, *([planned.loader] if planned.step.handling.loads else [])]
        )


def speaking(
    limits: process.StepLimits, name: str, asked: float | None, tokens: int, size: int
) -> process.StepLimits:
    """The limits of a worker that loads an engine of `size` bytes and lets it say `tokens`.

    `asked` are the minutes that the user allows. Else they follow from what the slowest machines take: `START` to
    begin, and time to read the engine once to load it, and once for each token. No more than a step may take.
    """
    if asked is not None:
        return replace(limits, timeout_seconds=asked * 60, option=f"{name}.timeout_minutes")
    found = START + size / LOADS + tokens * (size / READS + PER_TOKEN)
    if found >= limits.timeout_seconds:
        return limits
    return replace(limits, timeout_seconds=found, option=f"{name}.timeout_minutes")


def bytes_of(folder: Path) -> int:
    """Of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
