"""What a team store's place says of an object, without its bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Listed:
    """An object: its name, bytes, and when it was put there in seconds since the epoch, by the place's own clock."""

    name: str
    size: int
    modified: float


@dataclass(frozen=True)
class Stat(Listed):
    """As a listing has it, and a `stamp` that changes when the object is written anew."""

    stamp: str
