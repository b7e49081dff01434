"""The outcome of a step, as reports and JSON show it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StepOutcome(StrEnum):
    """How the local store got a step's artifact, or why it has none."""

    hit_local = "hit-local"
    hit_team = "hit-team"
    built = "built"
    rebuilt = "rebuilt"  # made again from its record, for a comparison
    unneeded = "unneeded"  # a later step was a hit

    @property
    def ran(self) -> bool:
        """Whether a worker ran for it in this command."""
        return self in (StepOutcome.built, StepOutcome.rebuilt)

    @property
    def hit(self) -> bool:
        return self in (StepOutcome.hit_local, StepOutcome.hit_team)


@dataclass(frozen=True)
class StepResult:
    """The outcome of one step. Seconds, bytes and peak memory are of the build that made it, now or before."""

    name: str
    key: str
    outcome: StepOutcome
    seconds: float | None = None
    bytes: int | None = None
    peak_memory_bytes: int | None = None
