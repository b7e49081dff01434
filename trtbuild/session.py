"""What one run of the command line works with: config, store, source, and who is told what happens."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from trtbuild import choices, folders, schema
from trtbuild.compilers.registry import COMPILERS
from trtbuild.errors import InputError
from trtbuild.executors import container, process
from trtbuild.executors.ending import Ending
from trtbuild.history import History, Place
from trtbuild.key import IMAGE, TOOL
from trtbuild.lookup import Found, Lookup
from trtbuild.plan import Planned
from trtbuild.sharing import Sharing
from trtbuild.sources import Source
from trtbuild.toolchains import pythons
from trtbuild.toolchains import shared as wheels
from trtbuild.toolchains.kept import Kept, chosen, holds
from trtbuild.toolchains.lock import Lock
from trtbuild.toolchains.pythons import Python
from trtbuild.worker import matches
from trtstore import Holder, Record, Store, StoreFailure
from trtstore.hints import Hints
from trtstore.leases import Outcome
from trtstore.upkeep import Upkeep

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
    results: dict[str, StepResult] = field(default_factory=dict)
    fetching: bool = False
    exact: bool = False  # the steps are those of a record: no option may choose other tools
    devices: str | None = None  # CUDA_VISIBLE_DEVICES of its workers, where others build beside them
    ending: Ending = field(default_factory=Ending)  # of its workers, where others are waited for, too
    made: set[str] = field(default_factory=set)  # keys that were built for this command line

    @cached_property
    def source(self) -> Source:
        """The checkpoint. Raises InputError."""
        return self.open_source()

    @property
    def python(self) -> str:
        return self.config.executor.python or sys.executable

    @property
    def limits(self) -> process.Limits:
        conf = self.config.executor
        memory = None if conf.memory_gb is None else int(conf.memory_gb * 1e9)
        return process.Limits(conf.timeout_minutes * 60, memory, conf.threads, self.devices)

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

    def on_event(self, event: process.Event) -> None:
        if event["event"] == "progress":
            self.watcher.progress(event["what"], event["done"], event["total"], event["unit"])
        elif event["event"] == "text":
            self.watcher.text(event["text"])

    def on_wait(self, holder: Holder) -> None:
        self.ending.check()
        self.watcher.waiting(f"waiting for {holder.who}, {time.time() - holder.started:.0f} s so far")

    def on_share(self, what: str, done: int, total: int) -> None:
        self.watcher.progress(what, done, total, "B")

    @contextmanager
    def alone(
        self, planned: Planned, labels: Mapping[str, str], model_bytes: int
    ) -> Iterator[Outcome[Record]]:
        """Be the only machine of the team that builds this step, or have what another one built meanwhile.

        With refresh=true nobody is waited for: it builds again what is there.
        """
        if self.config.refresh:
            yield Outcome(None, None)
            return

        def expected() -> float | None:
            estimate = self.history.estimate(planned, labels, model_bytes)
            return None if estimate is None else estimate.seconds

        def waiting(words: str) -> None:
            self.ending.check()
            self.watcher.waiting(words)

        with self.sharing.alone(planned.key, expected, lambda: self.use(planned.key), waiting) as outcome:
            yield outcome

    def who(self, planned: Planned) -> str:
        """For those who wait for this build."""
        return f"{planned.name} on {socket.gethostname()}, process {os.getpid()}"

    def run(
        self, planned: Planned, model: Mapping[str, Path], inputs: Mapping[str, Path], out: Path, home: Path
    ) -> process.Ran:
        """Run a step's worker into the empty folder `out`. Raises InputError, BuildError."""
        step = planned.step
        options = {name: value for name, value in step.facts.items() if not name.startswith(TOOL)}
        given = {**inputs, **folders.given(self.config.compiler, step.facts)}
        task = process.Task(
            planned.name, planned.key, step.worker, options, self.tools(planned), model, given
        )
        ran = self._hinted(task, planned, out, home)
        folders.recheck(self.config.compiler, step.facts, self.store.index)
        return ran

    def _hinted(self, task: process.Task, planned: Planned, out: Path, home: Path) -> process.Ran:
        """With what earlier builds learnt of the hardware, where the step takes it; what this one learns is kept."""
        if planned.step.hint is None:
            return self._run(task, planned, out, home)
        hints, learnt = Hints(self.store.layout), home / "learnt"
        taken = hints.take(planned.step.hint, home / "hints")
        ran = self._run(replace(task, hints=tuple(taken), learnt=learnt), planned, out, home)
        try:
            hints.leave(planned.step.hint, learnt, [path.name for path in taken])
        except StoreFailure as trouble:  # the build is done, and the next one takes longer
            self.watcher.note(f"{planned.name}: what it learnt of the hardware is not kept: {trouble}")
        return ran

    @cached_property
    def sharing(self) -> Sharing:
        """The team's store, as far as the config says."""
        return Sharing(self.config.store, self.store, self.watcher.note)

    @cached_property
    def stores(self) -> Lookup:
        """All stores of this run."""
        return Lookup(self.config.store, self.store, self.sharing, self.watcher)

    def find(self, key: str) -> Found:
        """As `Lookup.find`."""
        return self.stores.find(key)

    def use(self, key: str) -> Record | None:
        """As `Lookup.use`."""
        return self.stores.use(key)

    @cached_property
    def history(self) -> History:
        """Earlier builds in all these stores."""
        index = self.store.index
        places = [Place(self.store, True, Upkeep(self.store).catalog.summaries)]
        places += [Place(other, False, other.catalog(index).summaries) for other in self.stores.also]
        return History(places, self.watcher.note, self._parsed)

    def _parsed(self, count: int) -> None:
        if count >= MANY:  # once: the index remembers them
            self.watcher.waiting(f"reading the store's records for the first time, {count} so far")

    def load(
        self, name: str, worker: str, options: Mapping[str, Any], planned: Planned, engine: Path, home: Path
    ) -> process.Ran:
        """Run a worker that loads the engine in the folder `engine`. Raises InputError, BuildError."""
        inputs, tools = {"engine": engine}, self.tools(planned)
        # An engine that fails its check lies beside `home`, and goes with it.
        lasting = not engine.is_relative_to(home.parent)
        task = process.Task(name, planned.key, worker, options, tools, {}, inputs, lasting)
        return self._run(task, planned, home / "out", home)

    def _run(self, task: process.Task, planned: Planned, out: Path, home: Path) -> process.Ran:
        out.mkdir(exist_ok=True)
        image = planned.step.facts.get(IMAGE)
        if image is not None:
            inside = self.container(str(image))
            return container.run(task, out, home, inside, self.limits, self.on_event, self.ending)
        lock = planned.step.lock
        if lock is None or not self.managed(lock):
            return self._process(task, out, home, self.python)
        with self.kept.using(lock, self.here(lock), home) as interpreter:
            ran = self._process(task, out, home, str(interpreter))
        return replace(ran, executor="managed")

    def _process(self, task: process.Task, out: Path, home: Path, python: str) -> process.Ran:
        passed = self.config.executor.env
        return process.run(task, out, home, python, self.limits, self.on_event, self.ending, passed)

    def container(self, digest: str) -> container.Container:
        """What runs steps in the image with this digest. Raises InputError."""
        image = str(getattr(self.config.compiler, "image", None))
        if not image.endswith(digest):
            raise InputError(
                f"the step runs in the image {digest[:19]}…, and the config names {image}",
                option="compiler.image",
                hint="name that image where it is: compiler.image=NAME@sha256:…",
            )
        conf = self.config.executor
        return container.Container(
            engine=container.engine(conf.engine.value),
            image=image,
            gpus=conf.gpus.value,
            network=conf.network,
            env=tuple(conf.env),
            engine_flags=tuple(conf.engine_flags),
            flags=tuple(conf.flags),
        )

    @property
    def kept(self) -> Kept:
        """The toolchains' environments in our store."""
        return Kept(self.store, self.watcher, self._wheels)

    def _wheels(self, lock: Lock, python: Python) -> Path | None:
        """The wheels of a toolchain in the team's store, as a folder; None where there is none, or not these."""
        record = None if self.sharing.team is None else self.use(wheels.key_of(lock, python))
        return None if record is None else self.store.materialise(record).path

    def here(self, lock: Lock) -> Python:
        """The Python at hand, or `executor.python`, and what it holds of the toolchain. Raises InputError."""
        return pythons.python(self.config.executor.python, lock.chosen)

    def managed(self, lock: Lock) -> bool:
        """Whether steps of this toolchain run in an environment of their own. Raises InputError."""
        name = self.config.executor.name
        if name in (
            choices.Executor.auto,
            choices.Executor.container,
        ):  # what has a lock runs in no container
            return not self.holds(lock)
        return name is choices.Executor.managed

    def holds(self, lock: Lock) -> bool:
        """Whether the Python at hand has just the locked versions of all that bytes depend on. Raises InputError."""
        return holds(self.here(lock), lock)

    def tools(self, planned: Planned) -> dict[str, str]:
        """package -> version that the step's worker insists on. Raises InputError."""
        lock = planned.step.lock
        if IMAGE in planned.step.facts:  # its digest says all
            return {}
        return planned.toolchain if lock is None else chosen(lock, self.here(lock))

    def preflight(self, planned: Planned) -> None:
        """See to the tools of the steps to come, before a checkpoint is downloaded: they are here, made, or refused.

        So is the right to share what will be built. Raises InputError, StoreError, StoreFailure.
        """
        self.sharing.ready()
        wanted: dict[str, str] = {}
        missing = [up for up in planned.inputs if self.find(up.key).record is None]
        for step in (*missing, planned):
            lock, image = step.step.lock, step.step.facts.get(IMAGE)
            if image is not None:
                self.container(str(image))
            elif lock is not None and self.managed(lock):
                self.kept.ensure(lock, self.here(lock))
            elif lock is None and self.config.executor.name is choices.Executor.managed:
                versions = ", ".join(f"{name} {version}" for name, version in step.toolchain.items())
                raise InputError(
                    f"no lock has {versions} together",
                    option="executor=managed",
                    hint="make one (`trtbuild toolchain lock`) and give it: compiler.locks; or executor=process",
                )
            else:
                wanted |= self.tools(step)
        self._check_versions(wanted)

    def _check_versions(self, wanted: Mapping[str, str]) -> None:
        found = pythons.python(self.config.executor.python, wanted).versions
        missing = [f"{name} {version}" for name, version in wanted.items() if name not in found]
        if missing:
            raise InputError(
                f"{self.python} lacks what this build needs: {', '.join(missing)}",
                option="executor.python",
                hint=self._mend(missing),
            )
        for name, version in found.items():
            if not matches(version, wanted[name]):
                raise InputError(
                    f"{name} {version} is installed in {self.python}, and {wanted[name]} is pinned",
                    option="compiler.version",
                    hint=f"pip install '{name}=={wanted[name]}'"
                    + ("" if self.exact else ", or take what is there: compiler.version=installed"),
                )

    def _mend(self, missing: list[str]) -> str:
        if COMPILERS[self.config.compiler.name].image:
            return "name a Python that has them, executor.python=…, or take an image that does: executor=container"
        return f"executor=auto installs what has a lock; or pip install 'trtbuild[{self._extras(missing)}]'"

    def _extras(self, missing: list[str]) -> str:
        compiler = COMPILERS[self.config.compiler.name]
        genai = any(name.startswith(("torch ", "transformers ", "onnx-ir ")) for name in missing)
        return f"{compiler.extra},genai" if genai else compiler.extra


def bytes_of(folder: Path) -> int:
    """Of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
