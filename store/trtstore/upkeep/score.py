"""What it would cost to lose an artifact: seconds to build it again, times the chance that somebody asks, per byte."""

from __future__ import annotations

import math
from typing import NamedTuple

DAY = 86_400.0
HORIZON = 30.0  # days: the chance is that of at least one use within them
HALF_LIFE = 14.0  # days: without a use, the rate of uses is taken to halve in so many
UNKNOWN_SECONDS = 60.0  # to build, where no build in the whole store says


class Worth(NamedTuple):
    """`seconds` to build (`known`, or taken from the others), `chance` of use, `bytes` that losing it frees.

    Bytes that several artifacts share count in equal parts for each.
    """

    seconds: float
    known: bool
    hits: int
    idle: float
    chance: float
    bytes: float

    @property
    def density(self) -> float:
        """Expected seconds lost per byte freed: the lowest goes first."""
        return self.seconds * self.chance / max(self.bytes, 1.0)


def chance(hits: int, age: float, idle: float) -> float:
    """Of a use within `HORIZON`, after `hits` uses in `age` seconds, the last `idle` seconds ago.

    Uses are taken as a Poisson process whose rate is that so far (half a use in a week, before anything is known),
    halved for each `HALF_LIFE` without one.
    """
    rate = (hits + 0.5) / (max(age, 0.0) / DAY + 7.0)
    return 1.0 - math.exp(-rate * HORIZON * 0.5 ** (max(idle, 0.0) / DAY / HALF_LIFE))
