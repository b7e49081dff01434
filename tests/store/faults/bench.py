"""One operation on a bench: what it does when nothing goes wrong, and what each fault does to it and its store."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.store.faults.checks import (
    after_the_next_writer,
    fingerprint,
    half_written,
    held_locks,
    unusable,
    usable,
    wrong_artifacts,
)
from tests.store.faults.failpoint import Fault, Kind
from tests.store.faults.operations import Operation, World, create
from tests.store.faults.zygote import Outcome, Zygote
from trtstore import Store


@dataclass(frozen=True)
class Sample:
    """One in `every` of the calls that are tried, from one that the seed and a case's words choose."""

    every: int
    seed: int

    def first(self, words: str, most: int) -> int:
        return random.Random(f"{self.seed} {words}").randrange(most)  # dice, no secret


class Bench:
    """One operation, its world as it was before, and the calls that it makes when nothing goes wrong."""

    def __init__(self, zygote: Zygote, operation: Operation, folder: Path) -> None:
        self._zygote = zygote
        self._operation = operation
        self.home = folder / "world"
        self._template = folder / "template"
        self._seen: dict[object, list[str]] = {}
        operation.prepare(create(self.home))
        shutil.copytree(self.home, self._template, symlinks=True)
        self._clean = fingerprint(self.home, index=self._operation.index)
        world = World(self.home)
        self._known = {*half_written(world.base), *unusable(world, self._operation.may_remove)}
        self._recorded = {path.name for path in world.base.glob("records/*/*")}
        self._usable = usable(world)
        outcome = self._run(Fault())
        assert (outcome.signal, outcome.raised, outcome.kept) == (0, None, [])
        assert self._findings(outcome, Fault()) == []
        self.calls = [call.split()[0] for call in outcome.calls]

    def each(
        self, fault: Callable[[int], Fault], sample: Sample | None = None
    ) -> Iterator[tuple[str, Outcome, list[str]]]:
        """(words for the boundary, outcome, what is wrong with the store) of each call that the fault is about.

        Of each call in the sample, where one is given.
        """
        total = sum(call in fault(0).names for call in self.calls)
        every = self._operation.every
        # Another start for each kind: what one passes over, another may meet.
        first = fault(0).kind % every
        if sample is not None:
            every *= sample.every
            first = sample.first(f"{self._operation} {fault(0)}", max(1, min(every, total)))  # none has no case
        for at in range(1 + first, total + 1, every):
            outcome = self._run(fault(at))
            boundary = outcome.calls[at - 1] if len(outcome.calls) >= at else "no call"
            words = f"{fault(at).kind.name} {at} of {total}, {boundary}"
            yield words, outcome, [f"{words}: {finding}" for finding in self._findings(outcome, fault(at))]

    def _run(self, fault: Fault) -> Outcome:
        if fingerprint(self.home, index=self._operation.index) != self._clean:
            shutil.rmtree(self.home)
            shutil.copytree(self._template, self.home, symlinks=True)
        return self._zygote.run(self._operation, self.home, fault)

    def _findings(self, outcome: Outcome, fault: Fault) -> list[str]:
        """What is wrong with the store; the same disk after the same end needs no second look."""
        held = [*held_locks(World(self.home).base)]
        # Who is refused from then on cannot take a record back either.
        alone = fault.kind is Kind.REFUSE_ONCE and outcome.raised is not None
        seen = (
            fingerprint(self.home, index=self._operation.index),
            outcome.signal,
            outcome.raised is None,
            alone,
        )
        if seen not in self._seen:
            self._seen[seen] = [*self._look(outcome, alone)]
        return [*held, *self._seen[seen]]

    def _look(self, outcome: Outcome, alone: bool) -> Iterator[str]:
        world = World(self.home)
        world.store = Store.open(world.store.root, durability="fast")
        self._operation.again(world)
        yield from {*half_written(world.base), *unusable(world, self._operation.may_remove)} - self._known
        now = usable(world)
        yield from (f"{key[:4]}… is lost" for key in self._usable - now - {*self._operation.may_remove})
        if alone:
            yield from (f"{key[:4]}… was added by what failed" for key in now - self._recorded)
        yield from wrong_artifacts(world)
        if not outcome.signal and outcome.raised is None:
            try:
                self._operation.verify(world)
            except AssertionError as error:
                yield f"what was done is not there: {error}"
        yield from after_the_next_writer(world)
