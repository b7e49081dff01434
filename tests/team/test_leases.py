"""One build of a key at a time across machines: who waits, who takes over, and that clocks do not matter."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.support import KEY, OTHER
from tests.team.support import Place
from trtstore.errors import Unreachable
from trtstore.remote.connect import connect
from trtstore.remote.leases import Leases, State
from trtstore.remote.objects import Objects

BEAT = 0.4


def leases(place: Place, host: str = "a", *, write: bool = True, objects: Objects | None = None) -> Leases:
    return Leases(
        objects or connect(place.url),
        owner="ci",
        host=host,
        heartbeat=BEAT,
        write=write,
        on_problem=lambda _: None,
    )


def nothing() -> None:
    return None


def unknown() -> None:
    return None


def hold(made: Leases, look: Callable[[], str | None] = nothing, on_wait=lambda _: None, expected=unknown):
    return made.hold(KEY, expected=expected, look=look, on_wait=on_wait)


def test_of_many_at_once_one_builds_and_the_others_have_what_it_made(place: Place) -> None:
    made: list[str] = []
    built: list[int] = []
    found: list[str] = []

    def look() -> str | None:
        return made[0] if made else None

    def machine(number: int) -> None:
        with hold(leases(place, f"host{number}"), look) as outcome:
            if outcome.found is not None:
                found.append(outcome.found)
                return
            assert outcome.held is not None
            built.append(number)
            time.sleep(BEAT * 4)  # longer than anybody's patience with a dead one
            made.append("engine")

    threads = [threading.Thread(target=machine, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert found == ["engine"] * 4


def test_who_waits_sees_who_builds_and_how_far(place: Place) -> None:
    seen: list[State] = []
    ready = threading.Event()

    def builder() -> None:
        with hold(leases(place, "gpu-7"), expected=lambda: 100.0) as outcome:
            outcome.held.tell("layer 3 of 12\x1b[2J")
            ready.set()
            time.sleep(BEAT * 3)

    thread = threading.Thread(target=builder)
    thread.start()
    ready.wait(10)
    with hold(leases(place, "b"), on_wait=seen.append) as outcome:
        assert outcome.held is not None  # that one built nothing, and let go
        assert outcome.held.number == 2
    thread.join()
    words = [state.words() for state in seen]
    assert any(said.startswith("ci on gpu-7, ") and "left" in said for said in words)
    assert any("layer 3 of 12[2J" in said for said in words)
    assert not any("\x1b" in said for said in words)


def abandoned(place: Place, clock: float = 0.0) -> None:
    """The lease of a machine that died, as it lies there."""
    state = State(1, "dead", 3, BEAT, "ci", "dead", clock, None, "", released=False)
    assert connect(place.url).create(f"v1/leases/{KEY}/00000001", state.encode())


def test_a_dead_holder_is_outlived_within_three_beats(place: Place) -> None:
    abandoned(place)
    began = time.monotonic()
    with hold(leases(place)) as outcome:
        took = time.monotonic() - began
        assert outcome.held is not None
        assert outcome.held.number == 2
    assert took > BEAT * 2  # it is given time to show life


@pytest.mark.parametrize("elapsed", [-1e9, 0.0, 1e12])
def test_what_a_clock_says_does_no_harm(shared_folder: Place, elapsed: float) -> None:
    """A holder whose clock is minutes or years off is waited for as long as it lives, and no longer."""
    abandoned(shared_folder, elapsed)
    with hold(leases(shared_folder)) as outcome:
        assert outcome.held is not None


def test_of_many_who_outlive_one_takes_over(place: Place) -> None:
    abandoned(place)
    held: list[int] = []
    together: list[int] = []

    def machine(number: int) -> None:
        with hold(leases(place, f"host{number}")) as outcome:
            held.append(number)
            together.append(len(held))
            time.sleep(BEAT / 2)
            held.remove(number)
            assert outcome.held is not None

    threads = [threading.Thread(target=machine, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [1, 1, 1, 1]


class Late:
    """Objects of which one `create` takes so long that something happens before it."""

    def __init__(self, objects: Objects, meanwhile: Callable[[], None]) -> None:
        self._objects = objects
        self._meanwhile: list[Callable[[], None]] = [meanwhile]

    def create(self, name: str, data: bytes) -> bool:
        if self._meanwhile:
            self._meanwhile.pop()()
        return self._objects.create(name, data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._objects, name)


def test_a_number_that_was_cleared_away_meanwhile_is_not_taken_again(place: Place) -> None:
    """Two others had the lease, one after the other, while this one was about to create the first one's number."""
    abandoned(place)
    objects = connect(place.url)
    theirs = State(3, "other", 0, BEAT, "ci", "other", 0.0, None, "", released=False)

    def meanwhile() -> None:
        assert objects.create(f"v1/leases/{KEY}/00000003", theirs.encode())
        objects.delete(f"v1/leases/{KEY}/00000001")

    seen: list[State] = []
    with hold(leases(place, "late", objects=Late(objects, meanwhile)), on_wait=seen.append) as outcome:
        assert outcome.held is not None
        assert outcome.held.number == 4
    assert 3 in [state.number for state in seen]  # it waited for them
    assert [one.name.rpartition("/")[2] for one in objects.listed(f"v1/leases/{KEY}/")] == ["00000004"]


def test_a_holder_that_slept_through_its_takeover_knows_it(place: Place) -> None:
    with hold(leases(place, "sleeper")) as outcome:
        assert outcome.held is not None
        objects = connect(place.url)
        theirs = State(2, "other", 0, BEAT, "ci", "other", 0.0, None, "", released=False)
        assert objects.create(f"v1/leases/{KEY}/00000002", theirs.encode())
        deadline = time.monotonic() + 30
        while not outcome.held.lost and time.monotonic() < deadline:
            time.sleep(0.05)
        assert outcome.held.lost
    assert json.loads(place.get(f"v1/leases/{KEY}/00000002"))["token"] == "other"  # noqa: S105  # and is left alone


def test_numbers_only_grow(place: Place) -> None:
    numbers = []
    for _ in range(3):
        with hold(leases(place)) as outcome:
            numbers.append(outcome.held.number)
    assert numbers == [1, 2, 3]


def test_who_may_not_write_waits_and_takes_nothing(place: Place) -> None:
    made: list[str] = []
    inside, go = threading.Event(), threading.Event()

    def builder() -> None:
        with hold(leases(place, "gpu")):
            inside.set()
            go.wait(30)
            made.append("engine")

    thread = threading.Thread(target=builder)
    thread.start()
    inside.wait(30)

    def on_wait(_: State) -> None:
        go.set()

    with hold(leases(place, "dev", write=False), lambda: made[0] if made else None, on_wait) as outcome:
        assert outcome.found == "engine"
        assert outcome.held is None
    thread.join()
    with leases(place, "dev", write=False).hold(OTHER, expected=unknown, look=nothing) as outcome:
        assert outcome.held is None
        assert outcome.found is None
    assert not list(connect(place.url).listed(f"v1/leases/{OTHER}/"))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"token": 1}', b'{"beat": 1e999}', b"\xff" * 100], ids=range(6))
def test_a_lease_that_makes_no_sense_is_outlived(shared_folder: Place, data: bytes) -> None:
    shared_folder.put(f"v1/leases/{KEY}/00000001", data)
    shared_folder.put(f"v1/leases/{KEY}/not-a-number", b"")
    state = leases(shared_folder).state(KEY)
    assert state is not None
    assert state.heartbeat <= 5
    assert not state.released
    assert state.number == 1


def test_nobody_is_waited_for_where_the_place_cannot_be_asked(tmp_path: Path) -> None:
    told: list[str] = []
    gone = connect((tmp_path / "gone").as_uri())
    made = Leases(gone, owner="ci", host="a", heartbeat=BEAT, write=True, on_problem=told.append)
    with made.hold(KEY, expected=unknown, look=nothing) as outcome:
        assert outcome.held is None
        assert outcome.found is None
    assert "is not there" in told[0]
    with pytest.raises(Unreachable):
        made.state(KEY)
