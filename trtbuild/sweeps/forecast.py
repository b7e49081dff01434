"""What a sweep will do, before it does it: points, hits, steps, and minutes and bytes for each kind of hardware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from trtbuild.artifacts.history import Estimate
from trtbuild.building.preview import ToolchainState, toolchains_of
from trtbuild.config.sweep_schema import SweepConf
from trtbuild.errors import InputError
from trtbuild.sweeps.work import Job, Unit, Workplace, urgency
from trtstore import format_seconds, format_size


@dataclass(frozen=True)
class Group:
    """The steps of one kind of hardware. `seconds` and `bytes` are of those with a basis; `unknown` are the others."""

    name: str
    units: tuple[Unit, ...]

    @property
    def _estimates(self) -> list[Estimate]:
        return [unit.estimate for unit in self.units if unit.estimate is not None]

    @property
    def seconds(self) -> float:
        return sum(estimate.seconds for estimate in self._estimates)

    @property
    def bytes(self) -> int:
        return sum(estimate.bytes for estimate in self._estimates)

    @property
    def unknown(self) -> tuple[Unit, ...]:
        return tuple(unit for unit in self.units if unit.estimate is None)


@dataclass(frozen=True)
class Forecast:
    """Of the points: `failed` have a config that cannot be built. Of their distinct keys: hits by store, and misses."""

    points: int
    failed: int
    keys: int
    here: int  # distinct keys that the local store has
    also: Mapping[str, int]  # and those that only another store has, by its name
    units: tuple[Unit, ...]
    groups: tuple[Group, ...]
    refresh: bool  # hits are built again
    tools: tuple[ToolchainState, ...]  # the locked toolchains of the steps

    @property
    def seconds(self) -> float:
        """Of work, all steps one after the other, as far as they have a basis."""
        return sum(group.seconds for group in self.groups)

    @property
    def bytes(self) -> int:
        return sum(group.bytes for group in self.groups)

    @property
    def unknown(self) -> tuple[Unit, ...]:
        return tuple(unit for group in self.groups for unit in group.unknown)

    @property
    def chain(self) -> float:
        """Seconds of the longest chain of steps, where all have a basis: no machine is quicker; else 0."""
        return 0.0 if self.unknown else max(urgency(self.units).values(), default=0.0)


def forecast(jobs: Sequence[Job], units: Sequence[Unit], place: Workplace) -> Forecast:
    """Of `jobs`, for which the units `found` must run."""
    keys: dict[str, str | None] = {}
    also: dict[str, int] = {}
    here = 0
    for job in jobs:
        if job.error is not None:
            continue
        plan, runner = job.planned
        if plan.final.key in keys:
            continue
        located = place.find(plan.final, runner)
        keys[plan.final.key] = located.also
        here += located.here
        if located.also is not None:
            also[located.also] = also.get(located.also, 0) + 1
    names = dict.fromkeys(unit.group for unit in units)
    return Forecast(
        points=len(jobs),
        failed=sum(job.error is not None for job in jobs),
        keys=len(keys),
        here=here,
        also=also,
        units=tuple(units),
        groups=tuple(Group(name, tuple(unit for unit in units if unit.group == name)) for name in names),
        refresh=any(job.point.config.refresh for job in jobs),
        tools=_tools(units),
    )


def _tools(units: Sequence[Unit]) -> tuple[ToolchainState, ...]:
    with suppress(
        InputError
    ):  # a Python that is not there is told by the steps that want it, and the others go on
        return toolchains_of((unit.planned, unit.job.planned[1]) for unit in units)
    return ()


def refuse_too_dear(forecast: Forecast, conf: SweepConf) -> None:
    """Raises InputError where the forecast is beyond sweep.max_minutes or sweep.max_gb."""
    hint = "raise it, or sweep over less; sweep.dry_run=true shows the forecast alone"
    if conf.max_minutes is not None and forecast.seconds > conf.max_minutes * 60:
        raise InputError(
            f"the forecast is {format_seconds(forecast.seconds)} of work",
            option=f"sweep.max_minutes={conf.max_minutes:g}",
            hint=hint,
        )
    if conf.max_gb is not None and forecast.bytes > conf.max_gb * 1e9:
        raise InputError(
            f"the forecast is {format_size(forecast.bytes)} of results",
            option=f"sweep.max_gb={conf.max_gb:g}",
            hint=hint,
        )
