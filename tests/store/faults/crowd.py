"""A crowd: many processes that build, read, root, pin, verify, import and collect in one store, and what they saw."""

from __future__ import annotations

import io
import json
import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.store.faults.operations import read_artifact, write_artifact
from tests.store.faults.storm import files_of, key_of, publish_folder, trouble
from trtstore import Corrupt, Record, Store
from trtstore.exchange import bundle
from trtstore.upkeep.maintenance import Maintenance

KEYS = 256  # more than processes have roots and pins; the first are each pinned by one process
PACKED = range(0, KEYS, 32)  # the keys of the bundle
GRACES = (0.0, 0.0, 0.2, 1.0, 2.0)
LIMITS = (0, 0, 100_000, 500_000, None)


@dataclass
class Worker:
    """One process: its number, its dice, the links that it made, and how often it did what."""

    home: Path
    number: int
    dice: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    links: dict[Path, int] = field(default_factory=dict)
    pinned: bool = False

    def __post_init__(self) -> None:
        self.store = Store.open(self.home / "store")
        self.upkeep = Maintenance(self.store)

    def any_key(self) -> int:
        return self.dice.randrange(KEYS)

    def tell(self, kind: str, key: int | str, began: float, **more: Any) -> None:
        """One line, in one write, which no other process's line can cut in two."""
        key = key if isinstance(key, str) else key_of(key)
        line = {"kind": kind, "key": key, "began": began, "ended": time.monotonic(), "pid": os.getpid()}
        fd = os.open(self.home / "events", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, (json.dumps(line | more) + "\n").encode())
        finally:
            os.close(fd)


def use(worker: Worker, number: int) -> Record | None:
    return worker.store.use(key_of(number), on_problem=trouble)


def read(worker: Worker, number: int, record: Record) -> None:
    with worker.store.reading(record) as made:
        time.sleep(worker.dice.random() * 0.01)
        found = read_artifact(made.path)
    assert found == files_of(number), f"{number} has other bytes"


def get(worker: Worker) -> None:
    """What a build system does: a hit is read; a miss is built by one, published, and read under its lock."""
    number = worker.any_key()
    began = time.monotonic()
    record = use(worker, number)
    if record is None:
        build(worker, number)
        return
    try:
        read(worker, number, record)
    except Corrupt:
        # No fault, if a collection's grace period was over by now: whoever needs longer holds a scratch folder.
        worker.tell("lost", number, began)
        worker.counts["lost"] += 1
    else:
        worker.counts["hits"] += 1


def build(worker: Worker, number: int) -> None:
    with worker.store.building(key_of(number), who="a worker"):
        began = time.monotonic()
        record = worker.store.lookup(key_of(number), on_problem=trouble)
        if record is None:
            with worker.store.scratch() as work:
                folder = write_artifact(work / "out", files_of(number))
                time.sleep(worker.dice.random() * 0.02)
                record = publish_folder(worker.store, number, folder)
            worker.tell("build", number, began)
            worker.counts["builds"] += 1
        read(worker, number, record)


def get_safely(worker: Worker) -> None:
    """Under a scratch folder, nothing that is used is taken, whatever the grace period."""
    number = worker.any_key()
    with worker.store.scratch():
        record = use(worker, number)
        if record is not None:
            time.sleep(worker.dice.random() * 0.05)
            read(worker, number, record)
            worker.counts["safe hits"] += 1


def root(worker: Worker) -> None:
    """Add a link, and look through the others: what they lead to is whole for as long as they are there."""
    for link, number in worker.links.items():
        assert read_artifact(link) == files_of(number), f"the root of {number} leads to other bytes"
    if len(worker.links) > 1:
        gone = worker.dice.choice(sorted(worker.links))
        gone.unlink()
        del worker.links[gone]
    number = worker.any_key()
    link = worker.home / "links" / f"{worker.number}-{worker.counts['roots']}"
    with worker.store.scratch():
        record = use(worker, number)
        if record is None:
            build(worker, number)
            record = use(worker, number)
        assert record is not None, "what was built in the life of a scratch folder is gone"
        worker.store.add_root(link, record)
    worker.links[link] = number
    worker.counts["roots"] += 1


def pin(worker: Worker) -> None:
    """Pin a key that is this process's own; or find it where it was, and unpin it."""
    key = key_of(worker.number)
    if worker.pinned:
        assert worker.store.lookup(key, on_problem=trouble) is not None, "what was pinned is gone"
        worker.upkeep.unpin(key)
        worker.pinned = False
        return
    worker.upkeep.pin(key, "a worker")
    if worker.store.lookup(key, on_problem=trouble) is None:
        build(worker, worker.number)
    worker.pinned = True
    worker.counts["pins"] += 1


def verify(worker: Worker) -> None:
    everything = worker.dice.random() < 0.2
    findings = worker.upkeep.verify(None if everything else [key_of(worker.any_key())])
    assert findings == [], str(findings)
    worker.counts["whole verifies" if everything else "verifies"] += 1


def collect(worker: Worker) -> None:
    limit, grace = worker.dice.choice(LIMITS), worker.dice.choice(GRACES)
    began = time.monotonic()
    plan = worker.upkeep.collect(limit, grace=grace)
    for decision in plan.removed:
        if decision.kind == "record":
            assert decision.reason == "cheapest to lose", decision.reason
            worker.tell("removed", decision.name, began, grace=grace)
            worker.counts["removed"] += 1
    worker.counts["collections"] += 1


def import_bundle(worker: Worker) -> None:
    data = (worker.home / "bundle").read_bytes()
    received = list(bundle.import_from(worker.store, io.BytesIO(data)))
    assert [r.record.key for r in received] == sorted(map(key_of, PACKED))
    worker.counts["imports"] += 1
    worker.counts["imported"] += sum(r.new for r in received)


#: Each process does each of these once, then any of them, until its time is over. What is more usual is there twice.
ACTIONS: tuple[Callable[[Worker], None], ...] = (
    *(get,) * 12,
    *(get_safely,) * 4,
    *(root,) * 2,
    *(pin,) * 2,
    *(verify,) * 2,
    *(collect,) * 3,
    import_bundle,
)


def mingle(worker: Worker, seconds: float, least: Mapping[str, int]) -> None:
    """For so long; where the machine is too busy for `least` of each, up to four times as long."""
    began = time.monotonic()
    for action in worker.dice.sample(ACTIONS, len(ACTIONS)):
        action(worker)
    while (passed := time.monotonic() - began) < seconds or (
        passed < 4 * seconds and any(worker.counts[name] < count for name, count in least.items())
    ):
        worker.dice.choice(ACTIONS)(worker)


def build_often(worker: Worker, builds: int) -> None:
    """Builds whose results a collector, which comes again and again, takes as soon as it may."""
    for _ in range(builds):
        build(worker, worker.any_key())


def collect_until_told(worker: Worker) -> None:
    while not (worker.home / "over").exists():
        worker.counts["removed"] += len(worker.upkeep.collect(0, grace=0).removed)
        worker.counts["collections"] += 1


@dataclass
class Outcome:
    """What all processes did, and the tracebacks of those that failed."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    links: dict[Path, int] = field(default_factory=dict)
    pinned: list[int] = field(default_factory=list)


def together(home: Path, seed: int, work: Sequence[Callable[[Worker], None]]) -> list[tuple[int, int]]:
    """A process for each; returns their ids, and pipes that say how they ended."""
    started = []
    for number, act in enumerate(work):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _live(home, number, seed, act, writing)
        os.close(writing)
        started.append((child, reading))
    return started


def _live(home: Path, number: int, seed: int, act: Callable[[Worker], None], pipe: int) -> None:
    dice = random.Random(seed * 1000 + number)  # dice, no secret
    worker = Worker(home, number, dice)
    failure = ""
    try:
        act(worker)
    except BaseException:  # noqa: BLE001  # the parent must hear of any
        failure = traceback.format_exc()
    links = {str(link): key for link, key in worker.links.items()}
    said = {"failure": failure, "counts": worker.counts, "links": links, "pinned": worker.pinned}
    with os.fdopen(pipe, "w") as file:
        json.dump(said, file)
    sys.stdout.flush()
    os._exit(0)


def ended(started: Iterable[tuple[int, int]], outcome: Outcome, first: int = 0) -> Outcome:
    """Wait for all of `together`, and add up what they said."""
    for number, (child, pipe) in enumerate(started, first):
        with os.fdopen(pipe) as file:
            text = file.read()
        _, status = os.waitpid(child, 0)
        if status or not text:
            outcome.failures.append(f"process {number} ended with the status {status}")
            continue
        said = json.loads(text)
        outcome.counts += Counter(said["counts"])
        outcome.failures += [said["failure"]] if said["failure"] else []
        outcome.links |= {Path(link): key for link, key in said["links"].items()}
        outcome.pinned += [number] if said["pinned"] else []
    return outcome


def pack(home: Path) -> None:
    """The file that workers import: artifacts of another store."""
    other = Store.open(home / "other", durability="fast")
    for number in PACKED:
        with other.scratch() as work:
            publish_folder(other, number, write_artifact(work / "out", files_of(number)))
    bundle.export_file(other, map(key_of, PACKED), home / "bundle")
