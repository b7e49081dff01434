"""Every call to the operating system, in every operation: killed before and after it, refused by it, cut in half."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.faults import failpoint, memory
from tests.store.faults.bench import Bench, Sample
from tests.store.faults.failpoint import CALLS, CHANGING, REFUSED_BY, Fault, Kind
from tests.store.faults.operations import CARELESS, OPERATIONS, Operation
from tests.store.faults.zygote import Outcome, Zygote

pytestmark = pytest.mark.slow

#: Of these, which are much like others, one call in so many; another run begins elsewhere. EVERY asks for all of them.
#: A process that is killed after a call leaves what one leaves that is killed before the next.
BEFORE, AFTER, HALF = 2, 10, 2
SAMPLED = {
    errno.ENOSPC: 4,
    errno.EIO: 16,
    errno.EACCES: 20,
    errno.EROFS: 10,
    errno.EDQUOT: 10,
    errno.EMFILE: 10,
}
EVERY = "TRTSTORE_EVERY_FAULT"
SEED = "TRTSTORE_FAULT_SEED"

#: The one class for each errno; where reading and writing have a class each, either.
CLASS_OF = {
    errno.ENOSPC: {"NoSpace"},
    errno.EDQUOT: {"NoSpace"},
    errno.EACCES: {"NotWritable", "NotReadable"},
    errno.EROFS: {"NotWritable", "NotReadable"},
    errno.EMFILE: {"TooManyOpenFiles"},
    errno.ENOLCK: {"NoLocks"},
    errno.EIO: {"StoreFailure", "Corrupt"},
}


#: What a read that gives wrong bytes once may end in; AssertionError is an operation's own, that finds a miss.
#: A file that is published: what is read of it is what is stored.
SOURCE = re.compile(r"read (?!store/)|/work/out/|/work/.*/file\.\d+$")
READ_WRONG = {"Corrupt", "Invalid", "StoreFailure", "AssertionError"}


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
def quick_folder() -> Iterator[Path]:
    with memory.folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def bench_of(zygote: Zygote, quick_folder: Path) -> Callable[[Operation], Bench]:
    """The bench of an operation, prepared once."""
    benches: dict[Operation, Bench] = {}

    def get(operation: Operation) -> Bench:
        if operation not in benches:
            benches[operation] = Bench(zygote, operation, quick_folder / str(len(benches)))
        return benches[operation]

    return get


@pytest.fixture(scope="module")
def sample_of() -> SampleOf:
    """The sample of one call in so many; None of each."""
    seed = int(os.environ.get(SEED) or random.randrange(10**6))  # dice, no secret

    def get(every: int) -> Sample | None:
        if every == 1 or EVERY in os.environ:
            return None
        print(f"one call in {every}: the same again with {SEED}={seed}, all with {EVERY}=1")
        return Sample(every, seed)

    return get


# What a disk looks like is looked at once for all cases of an operation: they belong together.
operations = pytest.mark.parametrize(
    "operation",
    [pytest.param(each, marks=pytest.mark.xdist_group(f"faults of {each}")) for each in OPERATIONS],
    ids=str,
)
BenchOf = Callable[[Operation], Bench]
SampleOf = Callable[[int], Sample | None]


@operations
@pytest.mark.parametrize("kind", [Kind.KILL_BEFORE, Kind.KILL_AFTER], ids=["before", "after"])
def test_killed_at_any_call_it_leaves_whole_artifacts_and_nothing_to_repair(
    bench_of: BenchOf, operation: Operation, kind: Kind, sample_of: SampleOf
) -> None:
    bench = bench_of(operation)
    found = []
    sample = sample_of(AFTER if kind is Kind.KILL_AFTER else BEFORE)
    for boundary, outcome, findings in bench.each(lambda at: Fault(kind, at, CHANGING), sample):
        if outcome.signal != signal.SIGKILL:
            found.append(f"{boundary}: it was not killed but {outcome}")
        found += findings
    assert not found, "\n".join(found)


@operations
@pytest.mark.parametrize("refusal", REFUSED_BY, ids=errno.errorcode.__getitem__)
@pytest.mark.parametrize("kind", [Kind.REFUSE_ONCE, Kind.REFUSE_FROM_THEN_ON], ids=["once", "from then on"])
def test_refused_at_any_call_it_is_one_error_that_names_a_path_or_does_its_work(
    bench_of: BenchOf, operation: Operation, refusal: int, kind: Kind, sample_of: SampleOf
) -> None:
    bench = bench_of(operation)
    found = []
    for boundary, outcome, findings in bench.each(
        lambda at: Fault(kind, at, REFUSED_BY[refusal], refusal), sample_of(SAMPLED.get(refusal, 1))
    ):
        found += [f"{boundary}: {trouble}" for trouble in wrong_end(bench, outcome, refusal)] + findings
    assert not found, "\n".join(found)


def wrong_end(bench: Bench, outcome: Outcome, refusal: int) -> Iterator[str]:
    if outcome.signal:
        yield f"it died by signal {outcome.signal}"
    if outcome.kept:
        yield f"it kept {outcome.kept} open"
    if outcome.raised is not None:
        name, message = outcome.raised
        if refusal == errno.EIO and name == "AssertionError" and message.endswith("is not there"):
            return  # an operation's own, that finds a miss: what the disk does not give is one
        if name not in CLASS_OF[refusal] or str(bench.home) not in message or "\n" in message:
            yield f"it raised {name}: {message}"


@operations
def test_a_transfer_that_stops_halfway_is_gone_on_with(
    bench_of: BenchOf, operation: Operation, sample_of: SampleOf
) -> None:
    bench = bench_of(operation)
    found = []
    for boundary, outcome, findings in bench.each(lambda at: Fault(Kind.HALVE, at, ("write", "read")), sample_of(HALF)):
        if outcome.signal or outcome.raised is not None:
            found.append(f"{boundary}: {outcome.raised}")
        found += findings
    assert not found, "\n".join(found)


@operations
@pytest.mark.parametrize("kind", [Kind.TEAR, Kind.END], ids=["zeros", "end"])
def test_what_a_disk_reads_wrong_once_is_an_error_or_a_miss_and_never_served(
    bench_of: BenchOf, operation: Operation, kind: Kind, sample_of: SampleOf
) -> None:
    bench = bench_of(operation)
    found = []
    for boundary, outcome, findings in bench.each(lambda at: Fault(kind, at, ("read",)), sample_of(2)):
        if SOURCE.search(boundary):
            continue  # nobody can tell
        if outcome.signal or outcome.kept:
            found.append(f"{boundary}: signal {outcome.signal}, kept {outcome.kept}")
        if outcome.raised is not None and outcome.raised[0] not in READ_WRONG:
            found.append(f"{boundary}: {outcome.raised}")
        found += findings
    assert not found, "\n".join(found)


def test_the_calls_of_a_publish_are_seen(bench_of: BenchOf) -> None:
    calls = set(bench_of(OPERATIONS[0]).calls)
    assert calls <= set(CALLS)
    wanted = {
        "create",
        "write",
        "clone",
        "fsync",
        "rename",
        "mkdir",
        "chmod",
        "utime",
        "flock",
        "unlink",
        "rmdir",
    }
    assert wanted | {"open", "read", "opendir", "readdir", "stat"} <= calls


@pytest.mark.parametrize("operation", CARELESS, ids=str)
def test_a_writer_that_is_not_atomic_is_found_out(bench_of: BenchOf, operation: Operation) -> None:
    bench = bench_of(operation)
    killed = [
        finding
        for _, _, findings in bench.each(lambda at: Fault(Kind.KILL_BEFORE, at, CHANGING))
        for finding in findings
    ]
    assert any("is lost" in finding for finding in killed)
    refused = [
        trouble
        for _, outcome, _ in bench.each(lambda at: Fault(Kind.REFUSE_ONCE, at, ("write",), errno.EIO))
        for trouble in wrong_end(bench, outcome, errno.EIO)
    ]
    assert any("it raised OSError" in trouble for trouble in refused)
