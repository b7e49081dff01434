"""One build of a key across machines: lease objects that are made once, renewed by their holder, and outlived.

    v1/leases/<key>/<number>   {"schema":1,"token":"<32 hex>","beat":7,"owner":…,"host":…,"elapsed":…,"expected":…,…}

The holder of the highest number has the lease. To take one over is to create the next number, which one of many can do;
the number is the fencing token. Nobody compares clocks: who waits sees whether the beat changes, by a clock of his own.
A holder that slept through its takeover finds a higher number, stops renewing, and can overwrite no record: records are
made once, too.
"""

from __future__ import annotations

import json
import logging
import math
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from trtstore import deadlines
from trtstore.disk.layout import VERSION
from trtstore.errors import Malformed, StoreFailure
from trtstore.format import canonical_json
from trtstore.format.digest import checked_key
from trtstore.remote.objects import Objects

MAX_BYTES = 1 << 14
MAX_WORDS = 200
MAX_NUMBER = 10**8 - 1
MAX_HEARTBEAT = 300.0  # seconds: upper bound on a heartbeat that was read from an untrusted lease
#: Beats without a change after which a lease is taken over. Renewing and looking both take part of a beat: it is over
#: within three.
PATIENCE = 2.25
LOOKS = 5  # a beat

log = logging.getLogger("trtstore")
_T = TypeVar("_T")


@dataclass(frozen=True)
class State:
    """What a lease object says: whose it is, and how far the build is, by the holder's own clock in seconds.

    `number` is the fencing token. `expected` is what the build will take, or None where nothing like it was built.
    `heartbeat` is how often the beat changes at the least.
    """

    number: int
    token: str
    beat: int
    heartbeat: float
    owner: str
    host: str
    elapsed: float
    expected: float | None
    doing: str
    released: bool

    def encode(self) -> bytes:
        said = {name: value for name, value in vars(self).items() if name != "number"}
        return json.dumps({"schema": 1, **said}, sort_keys=True).encode()

    def words(self) -> str:
        """A text for waiting machines: who builds, since when, how far."""
        said = f"{self.owner} on {self.host}, {_span(self.elapsed)} so far"
        if self.expected is not None:
            said += f", about {_span(max(self.expected - self.elapsed, 0))} left"
        return f"{said}: {self.doing}" if self.doing else said


class HeldLease:
    """A lease that is held, until its heart stops or somebody takes it over."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._started = time.monotonic()
        self._doing = ""
        self.lost = False  # another has it now

    @property
    def number(self) -> int:
        """The fencing token."""
        return self._state.number

    def tell(self, doing: str) -> None:
        """Publish how far the build is, for waiting machines."""
        self._doing = _plain(doing)

    def next_state(self, *, released: bool = False) -> State:
        """The state to be written next; of one thread at a time."""
        self._state = replace(
            self._state,
            beat=self._state.beat + 1,
            elapsed=time.monotonic() - self._started,
            doing=self._doing,
            released=released,
        )
        return self._state


@dataclass(frozen=True)
class LeaseOutcome(Generic[_T]):
    """How the wait ended: with a lease that is held, or with what somebody else made, or with neither (alone)."""

    held: HeldLease | None
    found: _T | None


class Leases:
    """The leases in `objects`. `heartbeat` is in seconds; a waiting machine uses that of the holder.

    `write` says whether this machine may take a lease; otherwise it waits for the one that is there. `on_problem` gets
    a note if the place cannot be reached: it has `patience` seconds for each look, each beat and each take.

    >>> leases = Leases(connect(url), owner="me", host="here", heartbeat=5.0, write=True)
    >>> with leases.hold(key, expected=lambda: None, look=lambda: team.lookup(key)) as outcome:
    ...     outcome.held.tell("compiling")
    ...     outcome.held.number
    1
    """

    def __init__(
        self,
        objects: Objects,
        *,
        owner: str,
        host: str,
        heartbeat: float,
        write: bool,
        patience: float = deadlines.PATIENCE,
        on_problem: Callable[[str], None] = log.warning,
    ) -> None:
        self._objects = objects
        self._owner, self._host = _plain(owner), _plain(host)
        self._heartbeat = heartbeat
        self._write = write
        self._patience = patience
        self._tell = on_problem

    @contextmanager
    def hold(
        self,
        key: str,
        *,
        expected: Callable[[], float | None],
        look: Callable[[], _T | None],
        on_wait: Callable[[State], None] = lambda _: None,
    ) -> Iterator[LeaseOutcome[_T]]:
        """Have the lease of `key`, waiting for as long as somebody else has it and lives.

        `look` finds what that one made, which ends the wait. Where the place cannot be asked, or may not be written
        to, nobody is waited for any longer. Raises what `look` and `on_wait` raise.
        """
        outcome = self._wait(checked_key(key), expected, look, on_wait)
        if outcome.held is None:
            yield outcome
            return
        stop = threading.Event()
        heart = threading.Thread(target=self._beat, args=(key, outcome.held, stop), daemon=True)
        heart.start()
        try:
            yield outcome
        finally:
            stop.set()
            heart.join(self._patience)  # not for ever, after a Ctrl-C on a network that hangs
            with suppress(StoreFailure), deadlines.deadline(self._patience):  # then it is outlived
                if not heart.is_alive() and not outcome.held.lost and not self._overtaken(key, outcome.held):
                    state = outcome.held.next_state(released=True)
                    self._objects.replace(_name(key, state.number), state.encode())

    def _wait(
        self,
        key: str,
        expected: Callable[[], float | None],
        look: Callable[[], _T | None],
        on_wait: Callable[[State], None],
    ) -> LeaseOutcome[_T]:
        watch, waited = _Watch(), False
        while True:
            try:
                with deadlines.deadline(self._patience):
                    state = self.state(key)
                free = state is None or state.released or watch.stale(state)
                if free and not self._write:
                    return LeaseOutcome(None, look() if waited else None)
                held = self._take(key, 0 if state is None else state.number, expected()) if free else None
            except StoreFailure as trouble:
                self._tell(f"nobody is waited for: {trouble}")
                return LeaseOutcome(None, None)
            if held is not None:
                # The previous holder may have published in between, and then released it.
                return LeaseOutcome(held, look())
            if state is not None and not free:
                made = look()
                if made is not None:
                    return LeaseOutcome(None, made)
                on_wait(replace(state, elapsed=state.elapsed + watch.since))
            waited = True
            beat = self._heartbeat if state is None else state.heartbeat
            time.sleep(beat / LOOKS * (0.75 + random.random() / 4))  # noqa: S311  # not all in step

    def state(self, key: str) -> State | None:
        """The lease of `key` with the highest number, or None. Raises Unreachable, StoreFailure."""
        names = [one.name.rpartition("/")[2] for one in self._objects.listed(_name(key))]
        numbers = [int(name) for name in names if name.isascii() and name.isdigit() and len(name) == 8]
        if not numbers:
            return None
        data = self._objects.read(_name(key, max(numbers)), MAX_BYTES)
        return _parse(data or b"", max(numbers))

    def _take(self, key: str, after: int, expected: float | None) -> HeldLease | None:
        number = min(after + 1, MAX_NUMBER)
        token = secrets.token_hex(16)
        state = State(number, token, 0, self._heartbeat, self._owner, self._host, 0.0, expected, "", released=False)
        name, data = _name(key, number), state.encode()
        with deadlines.deadline(self._patience):
            return self._taken(key, HeldLease(state), after, name, data)

    def _taken(self, key: str, held: HeldLease, after: int, name: str, data: bytes) -> HeldLease | None:
        if not self._objects.create(name, data) and self._objects.read(name, MAX_BYTES) != data:
            return None
        if self._overtaken(key, held):
            # This machine was so slow that the number was taken, released and removed meanwhile: it is no longer free.
            with suppress(StoreFailure):
                self._objects.delete(name)
            return None
        if after:
            with suppress(StoreFailure):  # what is left of the one before is of no use
                self._objects.delete(_name(key, after))
        return held

    def _beat(self, key: str, held: HeldLease, stop: threading.Event) -> None:
        while not stop.wait(self._heartbeat / 2):
            # The next beat may get through: this one does not wait for longer than that.
            with suppress(StoreFailure), deadlines.deadline(min(self._patience, max(self._heartbeat, 5.0))):
                if self._overtaken(key, held):
                    held.lost = True
                    return
                state = held.next_state()
                self._objects.replace(_name(key, state.number), state.encode())

    def _overtaken(self, key: str, held: HeldLease) -> bool:
        state = self.state(key)
        return state is not None and state.number > held.number


class _Watch:
    """How long a lease has not changed, by this machine's clock."""

    def __init__(self) -> None:
        self._seen: tuple[int, str, int] | None = None
        self._changed = time.monotonic()

    @property
    def since(self) -> float:
        """Seconds since the last change that was seen."""
        return time.monotonic() - self._changed

    def stale(self, state: State) -> bool:
        now = (state.number, state.token, state.beat)
        if now != self._seen:
            self._seen, self._changed = now, time.monotonic()
        return self.since > state.heartbeat * PATIENCE


def _name(key: str, number: int | None = None) -> str:
    return f"{VERSION}/leases/{key}/" + ("" if number is None else f"{number:08d}")


def _parse(data: bytes, number: int) -> State:
    """What a lease says; where it does not parse, a holder of whom nothing is known, who will be outlived."""
    try:
        said = canonical_json.parse(data, "the lease")
        expected = said["expected"]
        return State(
            number,
            str(said["token"])[:64],
            said["beat"] if type(said["beat"]) is int else 0,
            min(max(_seconds(said["heartbeat"]), 0.05), MAX_HEARTBEAT),
            _plain(str(said["owner"])),
            _plain(str(said["host"])),
            _seconds(said["elapsed"]),
            None if expected is None else _seconds(expected),
            _plain(str(said["doing"])),
            said["released"] is True,
        )
    except (Malformed, KeyError, TypeError, ValueError, OverflowError):
        return State(number, "", 0, 5.0, "somebody", "a machine", 0.0, None, "", released=False)


def _seconds(value: object) -> float:
    seconds = float(value) if isinstance(value, int | float) else 0.0
    return min(max(seconds, 0.0), 1e9) if math.isfinite(seconds) else 0.0


def _plain(words: str) -> str:
    """Words that may be shown: anybody may have written a lease, and it ends up on a terminal."""
    return "".join(character for character in words if character.isprintable())[:MAX_WORDS]


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
