"""What a listing of a team store's objects says of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Listed:
    """An object: its name, bytes, and when it was put there in seconds since the epoch, by the place's own clock."""

    name: str
    size: int
    modified: float
