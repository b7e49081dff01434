"""Every call to the operating system, in every operation: killed before and after it, refused by it, cut in half."""

from __future__ import annotations

import errno
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.faults import failpoint
from tests.store.faults.checks import after_the_next_writer, half_written, held_locks, usable, wrong_artifacts
from tests.store.faults.failpoint import CALLS, CHANGING, REFUSED_BY, Fault, Kind
from tests.store.faults.operations import CARELESS, OPERATIONS, Operation, World, create
from tests.store.faults.zygote import Outcome, Zygote
from trtstore import Store

pytestmark = pytest.mark.slow

#: The one class for each errno; where reading and writing have a class each, either.
CLASS_OF = {
    errno.ENOSPC: {"NoSpace"},
    errno.EDQUOT: {"NoSpace"},
    errno.EACCES: {"NotWritable", "NotReadable"},
    errno.EROFS: {"NotWritable", "NotReadable"},
    errno.EMFILE: {"TooManyOpenFiles"},
    errno.ENOLCK: {"NoLocks"},
    errno.EIO: {"StoreFailure"},
}


class Bench:
    """One operation, its world as it was before, and the calls that it makes when nothing goes wrong."""

    def __init__(self, zygote: Zygote, operation: Operation, folder: Path) -> None:
        self._zygote = zygote
        self._operation = operation
        self._home = folder / "world"
        self._template = folder / "template"
        operation.prepare(create(self._home))
        self._usable = usable(World(self._home))
        self._known = set(half_written(World(self._home).base))
        shutil.copytree(self._home, self._template, symlinks=True)
        outcome = self.run(Fault())
        assert (outcome.signal, outcome.raised, outcome.kept) == (0, None, [])
        assert self.findings(outcome) == []
        self.calls = [call.split()[0] for call in outcome.calls]

    def run(self, fault: Fault) -> Outcome:
        shutil.rmtree(self._home)
        shutil.copytree(self._template, self._home, symlinks=True)
        return self._zygote.run(self._operation, self._home, fault)

    def each(self, fault: Callable[[int], Fault]) -> Iterator[tuple[str, Outcome]]:
        """(words for the boundary, outcome) of each call that the fault is about."""
        total = sum(call in fault(0).names for call in self.calls)
        for at in range(1, total + 1):
            outcome = self.run(fault(at))
            boundary = outcome.calls[at - 1] if len(outcome.calls) >= at else "no call"
            yield f"{fault(at).kind.name} {at} of {total}, {boundary}", outcome

    def findings(self, outcome: Outcome) -> list[str]:
        """What is wrong with the store after `outcome`. Writes to it."""
        world = World(self._home)
        world.store = Store.open(world.store.root, durability="fast")
        found = list(held_locks(world.base))
        found += set(half_written(world.base)) - self._known
        now = usable(world)
        found += [f"{key[:4]}… is lost" for key in self._usable - now - {*self._operation.may_remove}]
        if outcome.raised is not None:
            found += [f"{key[:4]}… was added by what failed" for key in now - self._usable]
        found += wrong_artifacts(world)
        if not outcome.signal and outcome.raised is None:
            try:
                self._operation.verify(world)
            except AssertionError as error:
                found.append(f"what was done is not there: {error}")
        return [*found, *after_the_next_writer(world)]


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    library = tmp_path_factory.mktemp("library") / "failpoint.so"
    trouble = failpoint.build(library)
    if trouble is not None:
        pytest.skip(trouble)
    zygote = Zygote(library)
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def bench_of(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Operation], Bench]:
    """The bench of an operation, prepared once."""
    benches: dict[Operation, Bench] = {}

    def get(operation: Operation) -> Bench:
        if operation not in benches:
            benches[operation] = Bench(zygote, operation, tmp_path_factory.mktemp("bench"))
        return benches[operation]

    return get


operations = pytest.mark.parametrize("operation", OPERATIONS, ids=str)
BenchOf = Callable[[Operation], Bench]


@operations
@pytest.mark.parametrize("kind", [Kind.KILL_BEFORE, Kind.KILL_AFTER], ids=["before", "after"])
def test_killed_at_any_call_it_leaves_whole_artifacts_and_nothing_to_repair(
    bench_of: BenchOf, operation: Operation, kind: Kind
) -> None:
    bench = bench_of(operation)
    found = []
    for boundary, outcome in bench.each(lambda at: Fault(kind, at, CHANGING)):
        if outcome.signal != signal.SIGKILL:
            found.append(f"{boundary}: it was not killed but {outcome}")
        found += [f"{boundary}: {finding}" for finding in bench.findings(outcome)]
    assert found == []


@operations
@pytest.mark.parametrize("refusal", REFUSED_BY, ids=errno.errorcode.__getitem__)
@pytest.mark.parametrize("kind", [Kind.REFUSE_ONCE, Kind.REFUSE_FROM_THEN_ON], ids=["once", "from then on"])
def test_refused_at_any_call_it_is_one_error_that_names_a_path_or_does_its_work(
    bench_of: BenchOf, operation: Operation, refusal: int, kind: Kind
) -> None:
    bench = bench_of(operation)
    found = []
    for boundary, outcome in bench.each(lambda at: Fault(kind, at, REFUSED_BY[refusal], refusal)):
        troubles = [*wrong_end(bench, outcome, refusal), *bench.findings(outcome)]
        found += [f"{boundary}: {trouble}" for trouble in troubles]
    assert found == []


def wrong_end(bench: Bench, outcome: Outcome, refusal: int) -> Iterator[str]:
    if outcome.signal:
        yield f"it died by signal {outcome.signal}"
    if outcome.kept:
        yield f"it kept {outcome.kept} open"
    if outcome.raised is not None:
        name, message = outcome.raised
        if name not in CLASS_OF[refusal] or str(bench._home) not in message or "\n" in message:
            yield f"it raised {name}: {message}"


@operations
def test_a_transfer_that_stops_halfway_is_gone_on_with(bench_of: BenchOf, operation: Operation) -> None:
    bench = bench_of(operation)
    found = []
    for boundary, outcome in bench.each(lambda at: Fault(Kind.HALVE, at, ("write", "read"))):
        if outcome.signal or outcome.raised is not None:
            found.append(f"{boundary}: {outcome.raised}")
        found += [f"{boundary}: {finding}" for finding in bench.findings(outcome)]
    assert found == []


def test_the_calls_of_a_publish_are_seen(bench_of: BenchOf) -> None:
    calls = set(bench_of(OPERATIONS[0]).calls)
    assert calls <= set(CALLS)
    wanted = {"create", "write", "clone", "fsync", "rename", "mkdir", "chmod", "utime", "flock", "unlink", "rmdir"}
    assert wanted | {"open", "read", "opendir", "readdir", "stat"} <= calls


@pytest.mark.parametrize("operation", CARELESS, ids=str)
def test_a_writer_that_is_not_atomic_is_found_out(bench_of: BenchOf, operation: Operation) -> None:
    bench = bench_of(operation)
    killed = [
        finding
        for _, outcome in bench.each(lambda at: Fault(Kind.KILL_BEFORE, at, CHANGING))
        for finding in bench.findings(outcome)
    ]
    assert any("is lost" in finding for finding in killed)
    refused = [
        trouble
        for _, outcome in bench.each(lambda at: Fault(Kind.REFUSE_ONCE, at, ("write",), errno.EIO))
        for trouble in wrong_end(bench, outcome, errno.EIO)
    ]
    assert any("it raised OSError" in trouble for trouble in refused)
