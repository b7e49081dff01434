"""How long the Hub may take: each step over the network has an end, also where a server sends a byte now and then.

The timeouts of the Hub's client are of one read each, so that a byte every few seconds would hold a plan for ever.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from huggingface_hub import constants

from trtbuild.sources.hub.guard import GUARD, Guard

_RATE = 16 << 10  # bytes a second that a download makes at least
_LISTING_RATE = 128 << 10
_XET = 6  # times as long: its bytes are reported only when a whole block is there
_LOOKS = 10  # a grace: how often it is looked whether it is over
_T = TypeVar("_T")


class Stalled(OSError):
    """Too little came; its text says how little."""


@dataclass(frozen=True)
class Pace:
    """At least `rate` bytes a second, after `grace` seconds: all together, or (`steady`) in each such time."""

    grace: float
    rate: int
    steady: bool = False


def lookup() -> Pace:
    """A small file, or the beginning of a large one: 20 s, and more for bytes that come."""
    return Pace(2.0 * constants.HF_HUB_ETAG_TIMEOUT, _RATE)


def listing() -> Pace:
    """A list of files, of whatever length."""
    return Pace(2.0 * constants.HF_HUB_ETAG_TIMEOUT, _LISTING_RATE)


def download() -> Pace:
    """A file of weights: as long as it makes progress."""
    return Pace(2.0 * constants.HF_HUB_DOWNLOAD_TIMEOUT, _RATE, steady=True)


def within(pace: Pace, guard: Guard, call: Callable[[], _T]) -> _T:
    """What `call` gives, all of its requests under `guard`. Raises what it raises, and Stalled when it takes too long.

    It runs in a thread that the process does not wait for: a read that hangs cannot be ended from outside.
    """
    done = threading.Event()
    results: list[_T] = []
    failures: list[BaseException] = []

    def work() -> None:
        GUARD.set(guard)
        try:
            results.append(call())
        except BaseException as failure:  # noqa: BLE001  # handed to the caller, in whose thread it belongs
            failures.append(failure)
        finally:
            done.set()

    threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
    try:
        _wait(done, pace, guard)
    finally:
        guard.over = True  # if it still runs, its next byte is its last
    if failures:
        raise failures[0]
    return results[0]


def _wait(done: threading.Event, pace: Pace, guard: Guard) -> None:
    since, mark = time.monotonic(), 0
    while not done.wait(pace.grace / _LOOKS):
        grace = pace.grace * (_XET if guard.xet else 1)
        passed, came = time.monotonic() - since, guard.moved - mark
        if pace.steady and came >= pace.rate * grace:
            since, mark = time.monotonic(), guard.moved
        elif passed > grace + (0 if pace.steady else came / pace.rate) and not done.is_set():
            raise Stalled(f"{came} bytes in {passed:.0f} s")
