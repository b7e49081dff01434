"""The points of a sweep: Hydra's sweepers say which, and one function gets the configs of all of them at once.

Beside `compose` the only module that knows Hydra: a launcher, to which Hydra's sweeper and those of plugins hand their
jobs, and a sweeper as Hydra's own without its second composition of each point.

Composing a config costs Hydra a tenth of a second. The words of a point are about parts of the config (`quant=int8`,
`profile.max_seq_len=4k`) that seldom touch one another, so each part is composed once, and points are put together
from parts. Where parts are not independent, points are composed whole.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins import basic_sweeper
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from trtbuild import schema

NAME = "trtbuild"  # of the launcher and of the sweeper: hydra/launcher=trtbuild
_PLUGINS = "hydra_plugins.trtbuild"  # Hydra takes plugins from modules of such a name alone

Compose: TypeAlias = Callable[[Sequence[str]], DictConfig]
Checked: TypeAlias = Callable[[DictConfig], schema.Config]


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
    checked: Checked


_task: ContextVar[_Task] = ContextVar(
    "task"
)  # Hydra makes the launcher, from a config: it takes no arguments of ours


@contextmanager
def launching(run: Run, checked: Checked) -> Iterator[None]:
    """Until the end, the launcher gives its points to `run`; `checked` makes a Config of what Hydra composed."""
    register()
    token = _task.set(_Task(run, checked))
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

        task, composer = _task.get(), _Composer(self._loader, self._config)
        configs = configs_of(job_overrides, composer, task.checked)
        jobs = enumerate(zip(job_overrides, configs, strict=True), initial_job_idx)
        found = [Point(index, tuple(words), config) for index, (words, config) in jobs]
        values = task.run(found)
        return [
            JobReturn(overrides=words, status=JobStatus.COMPLETED, _return_value=value)
            for words, value in zip(job_overrides, values, strict=True)
        ]


class _Composer:
    """Composes as Hydra does for a job of a sweep, and once for all jobs that choose the same files."""

    def __init__(self, loader: Any, config: DictConfig) -> None:
        self._loader, self._config = loader, config
        self._parser = OverridesParser.create(config_loader=loader)
        self._chosen: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}
        self._default: dict[str, str] = {}  # group -> what is chosen where no word chooses
        self._chosen[()] = self._compose(())

    def __call__(self, words: Sequence[str]) -> DictConfig:
        """Without Hydra's own node. Raises what Hydra raises."""
        overrides = self._parser.parse_overrides(list(words))
        chooses = [self._is_choice(override) for override in overrides]
        choices = tuple(
            word
            for word, override, chosen in zip(words, overrides, chooses, strict=True)
            if chosen and self._default.get(override.key_or_group) != override.value()
        )
        if choices not in self._chosen:
            self._chosen[choices] = self._compose(choices)
        whole, own = self._chosen[choices]
        composed = copy.deepcopy(own)
        values = [override for override, chosen in zip(overrides, chooses, strict=True) if not chosen]
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)  # after all files, as Hydra has it
        if has_references(composed):
            HydraConfig.instance().set_config(whole)  # ${hydra:runtime.choices.quant} reads it there
        return composed

    def _compose(self, choices: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
        """What Hydra composed, and that without its own node."""
        whole: DictConfig = self._loader.load_sweep_config(self._config, list(choices))
        if not choices:
            self._default = dict(whole.hydra.runtime.choices)
        own = copy.copy(whole)
        with open_dict(own):
            del own["hydra"]
        return whole, own

    def _is_choice(self, override: Override) -> bool:
        """As Hydra decides it: a choice of a file comes before any value."""
        is_group = self._loader.repository.group_exists(override.key_or_group)
        return bool(is_group) and not isinstance(override.value(), dict)


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


def configs_of(jobs: Sequence[Sequence[str]], compose: Compose, checked: Checked) -> list[schema.Config]:
    """The config of each job. Raises what `compose` and `checked` raise."""
    whole: dict[tuple[str, ...], schema.Config] = {}

    def of(words: Sequence[str]) -> schema.Config:
        if (at := tuple(words)) not in whole:
            whole[at] = checked(compose(at))
        return whole[at]

    parts = _Parts(compose, checked)
    if len(jobs) < 3 or not parts.take(jobs):
        return [of(words) for words in jobs]
    # What is put together from parts is compared with Hydra's own work for the point that has most of them.
    if parts.config(most := max(jobs, key=parts.changes)) != of(most):
        return [of(words) for words in jobs]
    return [parts.config(words) for words in jobs]


class _Parts:
    """Configs put together from parts that were composed apart.

    A part is the words about one or more nodes of the config's root. Alone it may change just these nodes; two parts
    that change the same node are one part. That is all that parts can do to one another as long as nothing is
    interpolated.
    """

    def __init__(self, compose: Compose, checked: Checked) -> None:
        self._compose, self._checked = compose, checked
        self._made: dict[tuple[str, ...], schema.Config | None] = {}
        self._of: dict[str, str] = {name: name for name in _ROOTS}  # node or group -> the part that it belongs to

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
        found = base
        for part in self._split(words).values():
            made = self._part(part)
            assert made is not None  # noqa: S101  # the same
            found = replace(found, **{name: getattr(made, name) for name in self._changes(part)})
        return found

    def changes(self, words: Sequence[str]) -> int:
        """How many nodes the words of a job change."""
        return sum(len(self._changes(part)) for part in self._split(words).values())

    def _split(self, words: Sequence[str]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for word in words:
            name = self._of.setdefault(root := str(_root(word)), root)
            found[name] = (*found.get(name, ()), word)
        return found

    def _changes(self, part: tuple[str, ...]) -> frozenset[str]:
        """The nodes that a part changes, alone."""
        base, made = self._part(()), self._part(part)
        if base is None or made is None:
            return _UNKNOWN
        return frozenset(name for name in _ROOTS if getattr(base, name) != getattr(made, name))

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
            composed = self._compose(part)
            self._made[part] = None if has_references(composed) else self._checked(composed)
        return self._made[part]


_ROOTS = tuple(field.name for field in fields(schema.Config))
_UNKNOWN: frozenset[str] = frozenset({"?"})


def _root(word: str) -> str | None:
    """The node or the group of the config's root that a word is about; None where that is not plain to see."""
    name = word.lstrip("+").partition("=")[0].partition(".")[0]
    return name if name.isidentifier() and name != "hydra" and "${" not in word else None


def has_references(config: DictConfig) -> bool:
    """Whether any value is interpolated, those of Hydra's own node aside."""
    names = [str(name) for name in config if name != "hydra"]
    if any(OmegaConf.is_interpolation(config, name) for name in names):
        return True
    nodes = [config._get_node(name) for name in names]
    return any(
        _refers(OmegaConf.to_container(node, resolve=False)) for node in nodes if isinstance(node, DictConfig)
    )


def _refers(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_refers(each) for each in value.values())
    if isinstance(value, list):
        return any(_refers(each) for each in value)
    return isinstance(value, str) and "${" in value
