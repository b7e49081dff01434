"""The points of a sweep, resolved and planned; and the distinct steps that must run for them, each once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trtbuild.artifacts.chain import Located, open_local
from trtbuild.artifacts.history import Estimate, History
from trtbuild.artifacts.team import TeamStore
from trtbuild.building.digests import Hasher
from trtbuild.building.events import ProgressReporter
from trtbuild.building.hardware import differs_here, not_here
from trtbuild.building.runner import Runner
from trtbuild.building.setup import Setup
from trtbuild.compilers.registry import COMPILERS
from trtbuild.config.choices import Durability, SharedWith, Verify
from trtbuild.config.points import Point
from trtbuild.config.schema import Config, StoreConf
from trtbuild.errors import InputError, StoreError, TrtbuildError
from trtbuild.executors.cancellation import Cancellation
from trtbuild.planning.memo import Memo
from trtbuild.planning.plan import Plan, PlannedStep, make_plan
from trtbuild.planning.resolve import resolve
from trtstore import Store, StoreFailure

CPU = "cpu"  # the group of steps that need no GPU


@dataclass
class Job:
    """A point with its plan and runner, or with the error of its config. `error` may also come later.

    `notes` are what the user should know before it is built.
    """

    point: Point
    plan: Plan | None = None
    runner: Runner | None = None
    error: TrtbuildError | None = None
    notes: tuple[str, ...] = ()

    @property
    def planned(self) -> tuple[Plan, Runner]:
        """For a job without an error."""
        assert self.plan is not None and self.runner is not None  # noqa: S101  # else there is an error
        return self.plan, self.runner


@dataclass(frozen=True)
class Unit:
    """A step that must run, for the first of the points that want it; no two units have the same key."""

    planned: PlannedStep
    job: Job
    group: str  # the kind of hardware that it needs: "cpu", or a target's name
    needs: tuple[str, ...]  # keys of units that come first
    estimate: Estimate | None
    obstacle: str | None  # why this machine cannot run it

    @property
    def key(self) -> str:
        return self.planned.key

    @property
    def label(self) -> str:
        """For people: the step, and what is particular to it."""
        plan, _ = self.job.planned
        recipe = plan.recipe
        names = [recipe.model.label]
        if self.planned is plan.final:
            names += [recipe.quant.scheme, recipe.target.name]
        return f"{self.planned.name:<8} {' '.join(names)}"


@dataclass
class Workplace:
    """What all points of a sweep share.

    That is the opened stores, what was found in them, the keys that were built, and the cancellation of all workers.
    """

    store_root: Callable[[str | None], Path]
    memory: Memo = field(default_factory=Memo)
    cancellation: Cancellation = field(default_factory=Cancellation)
    built: set[str] = field(default_factory=set)
    _stores: dict[tuple[Path, Durability, SharedWith | None, bool], Store] = field(default_factory=dict)
    _histories: dict[tuple[Path, tuple[str, ...]], History] = field(default_factory=dict)
    _teams: list[tuple[StoreConf, TeamStore]] = field(default_factory=list)
    _located: dict[tuple[int, str], Located] = field(default_factory=dict)

    def job(self, point: Point, hashing: ProgressReporter, reporter: ProgressReporter) -> Job:
        """The point, resolved and planned; or its error. `hashing` reports the reading of the checkpoint."""
        try:
            config = point.config
            store = self.store(config)
            resolved = resolve(config, Hasher(store.index, hashing), self.memory)
            plan = make_plan(resolved.recipe, config.until)
            team = self._team(config, store, reporter)
            setup = Setup(config, store, team, lambda: resolved.source, resolved.examine)
            team.expect(plan)
            return Job(point, plan, Runner(setup, reporter, self.cancellation, self.built))
        except TrtbuildError as error:
            return Job(point, error=error)
        except StoreFailure as failure:
            return Job(point, error=refused(failure))

    def store(self, config: Config) -> Store:
        """The store that a config names, opened once. Raises StoreFailure."""
        conf = config.store
        shared = conf.shared_with
        verity = conf.verify is not Verify.never
        at = (self.store_root(config.store.root), conf.durability, shared, verity)
        if at not in self._stores:
            self._stores[at] = open_local(conf, at[0])
        return self._stores[at]

    def _team(self, config: Config, store: Store, reporter: ProgressReporter) -> TeamStore:
        """The team store as these options name it: one for all points with the same options."""
        for options, team in self._teams:
            if options == config.store:
                return team
        self._teams.append((config.store, TeamStore(config.store, store, reporter.note)))
        return self._teams[-1][1]

    def history(self, runner: Runner) -> History:
        """Earlier builds in the runner's stores, listed once."""
        setup = runner.setup
        at = (setup.store.root, tuple(setup.config.store.also))
        if at not in self._histories:
            self._histories[at] = runner.history
        return self._histories[at]

    def find(self, planned: PlannedStep, runner: Runner) -> Located:
        """Where an artifact is; each key is looked up once."""
        at = (id(runner.setup.store), planned.key)
        if at not in self._located:
            self._located[at] = runner.find(planned)
        return self._located[at]


def refused(failure: StoreFailure) -> StoreError:
    """A store's failure as an error of the command line."""
    return StoreError(failure.message, option="store.root", hint=failure.hint)


def units(jobs: Sequence[Job], place: Workplace) -> tuple[Unit, ...]:
    """The steps that must run for `jobs`, upstream first, each once, with what each is likely to take."""
    units: dict[str, Unit] = {}
    for job in jobs:
        if job.error is None:
            plan, _ = job.planned
            _add(plan.final, job, place, units)
    return tuple(units.values())


def _add(planned: PlannedStep, job: Job, place: Workplace, units: dict[str, Unit]) -> bool:
    """Add the step to `units`, after the missing steps upstream of it. Returns False if it need not run."""
    plan, runner = job.planned
    config = runner.setup.config
    if planned.key in units:
        return True
    if place.find(planned, runner).record is not None and not config.refresh:
        return False
    needs = tuple(up.key for up in planned.inputs if _add(up, job, place, units))
    elsewhere = differs_here(planned, plan.recipe)
    units[planned.key] = Unit(
        planned,
        job,
        group=_group(planned, plan, config),
        needs=needs,
        estimate=place.history(runner).estimate(planned, plan.recipe.model.bytes),
        obstacle=not_here(plan.recipe, elsewhere) if elsewhere else None,
    )
    return True


def _group(planned: PlannedStep, plan: Plan, config: Config) -> str:
    """The hardware that a step needs: that of its target, unless it is built ahead of time."""
    recipe, job = plan.recipe, config.target.job
    if recipe.target.kind == "cpu" or not reads_hardware(planned):
        return CPU
    if COMPILERS[recipe.tools.name].hardware.ahead_of_time and job.gres is None and job.accelerator is None:
        return CPU
    return recipe.target.name


def reads_hardware(planned: PlannedStep) -> bool:
    """Whether a step depends on its target: by a fact in its key, or because its artifact is loaded there."""
    own = any(name.startswith("target.") for name in planned.step.facts)
    return own or (planned.step.handling.loads and any(map(reads_hardware, planned.inputs)))


def seconds_of(unit: Unit) -> float:
    """The likely duration of a unit; a guess from the checkpoint's size if nothing like it was built before."""
    if unit.estimate is not None:
        return unit.estimate.seconds
    plan, _ = unit.job.planned
    return 1.0 + plan.recipe.model.bytes / 1e8


def urgency(units: Sequence[Unit]) -> Mapping[str, float]:
    """Seconds from the start of each unit to the end of the longest chain that waits for it."""
    after: dict[str, float] = {}
    chains: dict[str, float] = {}
    for unit in reversed(units):  # downstream first
        chains[unit.key] = seconds_of(unit) + after.get(unit.key, 0.0)
        for key in unit.needs:
            after[key] = max(after.get(key, 0.0), chains[unit.key])
    return chains


def check_together(jobs: Sequence[Job]) -> None:
    """Raises InputError for options that contradict each other between the points of one sweep."""
    links: dict[str, str] = {}
    for job in jobs:
        if job.error is not None:
            continue
        (plan, _), config = job.planned, job.point.config
        if config.sweep != jobs[0].point.config.sweep:
            raise InputError("a sweep runs in one way: these options cannot differ between its points", option="sweep")
        if config.out is not None and links.setdefault(config.out, plan.final.key) != plan.final.key:
            raise InputError(
                f"several engines would have the link {config.out}",
                option="out",
                hint="give each a name of its own: out='engine-${hydra:runtime.choices.quant}'",
            )
