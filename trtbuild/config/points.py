"""The points of a sweep: Hydra's sweepers say which, and one function gets the configs of all of them at once.

A launcher, to which Hydra's sweeper and those of plugins hand their jobs, and a sweeper as Hydra's own without its
second composition of each point.

Composing a config costs Hydra a tenth of a second. The words of a point are about parts of the config (`quant=int8`,
`profile.max_seq_len=4k`) that seldom touch one another, so each part is composed once, and points are put together
from parts. Where parts are not independent, points are composed whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from hydra._internal.core_plugins import basic_sweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from trtbuild.config import schema
from trtbuild.config.composer import ROOTS, Check, Composer

MANY = 3  # points: fewer are composed as quickly by Hydra
NAME = "trtbuild"  # of the launcher and of the sweeper: hydra/launcher=trtbuild
_PLUGINS = "hydra_plugins.trtbuild"  # Hydra takes plugins from modules of such a name alone


@dataclass(frozen=True)
class Point:
    """One config of a sweep. `words` are its own (`quant=int8`), those that all points share included."""

    index: int
    words: tuple[str, ...]
    config: schema.Config


#: is given all points of a batch, and returns a value for each: what a sweeper that optimizes reads
Run: TypeAlias = Callable[[Sequence[Point]], Sequence[float | None]]


@dataclass(frozen=True)
class _Task:
    run: Run
    check: Check


#: Hydra makes the launcher, from a config: it takes no arguments of ours.
_task: ContextVar[_Task] = ContextVar("task")


@contextmanager
def launching(run: Run, check: Check) -> Iterator[None]:
    """Until the end, the launcher gives its points to `run`."""
    register()
    token = _task.set(_Task(run, check))
    try:
        yield
    finally:
        _task.reset(token)


def register() -> None:
    """Make the launcher and the sweeper known to Hydra. Idempotent."""
    store = ConfigStore.instance()
    plugins = Plugins.instance()
    for group, plugin in (("launcher", AllAtOnce), ("sweeper", Products)):
        node: dict[str, Any] = {"_target_": f"{_PLUGINS}.{plugin.__name__}"}
        if plugin is Products:
            node |= {"max_batch_size": None, "params": None}
        store.store(group=f"hydra/{group}", name=NAME, node=node, provider=NAME)
        plugins.register(plugin)


class AllAtOnce(Launcher):
    """Composes all jobs that a sweeper launches together, and hands them over together."""

    __module__ = _PLUGINS

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's: `task_function` is for launchers that run one job after the other."""
        self._loader, self._config, self._alone = hydra_context.config_loader, config, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Raises what composing raises; the errors of points are theirs."""
        task = _task.get()
        configs = _configs(job_overrides, Composer(self._loader, self._config, task.check))
        jobs = enumerate(zip(job_overrides, configs, strict=True), initial_job_idx)
        values = task.run([Point(index, tuple(words), config) for index, (words, config) in jobs])
        return [
            JobReturn(overrides=words, status=JobStatus.COMPLETED, _return_value=value)
            for words, value in zip(job_overrides, values, strict=True)
        ]


class Products(Sweeper):
    """Every combination of the values of a command line, and of `hydra.sweeper.params`, as Hydra's own sweeper has it.

    Hydra's own composes each of them before it launches any, and the launcher does that again.
    """

    __module__ = _PLUGINS

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None) -> None:
        self._at_most, self._params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's."""
        self._loader = hydra_context.config_loader
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Raises what Hydra's parser and the launcher raise."""
        words = [*(f"{name}={value}" for name, value in self._params.items()), *arguments]
        overrides = OverridesParser.create(config_loader=self._loader).parse_overrides(words)
        first = 0
        for batch in basic_sweeper.BasicSweeper.split_arguments(overrides, self._at_most):
            self._launcher.launch(batch, initial_job_idx=first)
            first += len(batch)


def _configs(jobs: Sequence[Sequence[str]], composer: Composer) -> list[schema.Config]:
    """The config of each job. Raises what Hydra raises."""
    parts = _Parts(composer.part)
    if len(jobs) < MANY or not parts.take(jobs):
        return [composer.whole(words) for words in jobs]
    # What is put together from parts is compared with Hydra's own work for the point that has most of them.
    most = max(jobs, key=parts.changes)
    if parts.config(most) != composer.whole(most):
        return [composer.whole(words) for words in jobs]
    return [parts.config(words) for words in jobs]


class _Parts:
    """Configs put together from parts that were composed apart.

    A part is the words about one or more nodes of the config's root. Alone it may change just these nodes; two parts
    that change the same node are one part. That is all that parts can do to one another as long as nothing is
    interpolated.
    """

    def __init__(self, compose: Callable[[Sequence[str]], schema.Config | None]) -> None:
        self._compose = compose
        self._made: dict[tuple[str, ...], schema.Config | None] = {}
        self._changed: dict[tuple[str, ...], frozenset[str]] = {}
        self._of: dict[str, str] = {name: name for name in ROOTS}  # node or group -> the part that it belongs to

    def take(self, jobs: Sequence[Sequence[str]]) -> bool:
        """Compose all parts of `jobs`; False where they cannot be taken apart."""
        if any(_root(word) is None for words in jobs for word in words) or self._part(()) is None:
            return False
        while True:
            parts = {part: name for words in jobs for name, part in self._split(words).items()}
            changed = {name: self._changes(part) | {name} for part, name in parts.items()}
            for part, name in parts.items():
                if (made := self._changes(part)) is _UNKNOWN:
                    return False
                changed[name] |= made
            if not self._join(changed):
                return True

    def config(self, words: Sequence[str]) -> schema.Config:
        """The config of a job that was taken."""
        base = self._part(())
        assert base is not None  # noqa: S101  # `take` has looked
        config = base
        for part in self._split(words).values():
            made = self._part(part)
            assert made is not None  # noqa: S101  # the same
            config = replace(config, **{name: getattr(made, name) for name in self._changes(part)})
        return config

    def changes(self, words: Sequence[str]) -> int:
        """How many nodes the words of a job change."""
        return sum(len(self._changes(part)) for part in self._split(words).values())

    def _split(self, words: Sequence[str]) -> dict[str, tuple[str, ...]]:
        parts: dict[str, tuple[str, ...]] = {}
        for word in words:
            name = self._of.setdefault(root := str(_root(word)), root)
            parts[name] = (*parts.get(name, ()), word)
        return parts

    def _changes(self, part: tuple[str, ...]) -> frozenset[str]:
        """The nodes that a part changes, alone."""
        if part not in self._changed:
            base, made = self._part(()), self._part(part)
            self._changed[part] = (
                _UNKNOWN
                if base is None or made is None
                else frozenset(name for name in ROOTS if getattr(base, name) != getattr(made, name))
            )
        return self._changed[part]

    def _join(self, changed: Mapping[str, frozenset[str]]) -> bool:
        """Make one of parts that change the same node; whether there were any."""
        joined = False
        owner: dict[str, str] = {}
        for name, nodes in changed.items():
            for node in nodes:
                other = owner.setdefault(node, name)
                if self._of[other] != self._of[name]:
                    old, new = self._of[name], self._of[other]
                    self._of = {at: new if of == old else of for at, of in self._of.items()}
                    joined = True
        return joined

    def _part(self, part: tuple[str, ...]) -> schema.Config | None:
        """None where something is interpolated: then a part may reach into another."""
        if part not in self._made:
            self._made[part] = self._compose(part)
        return self._made[part]


_UNKNOWN: frozenset[str] = frozenset({"?"})


def _root(word: str) -> str | None:
    """The node or the group of the config's root that a word is about; None where that is not plain to see."""
    name = word.lstrip("+").partition("=")[0].partition(".")[0]
    return name if name.isidentifier() and name != "hydra" and "${" not in word else None
