"""A storm: processes that use one store at once and are killed at random moments, and what is found after each kill."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.store.faults.checks import half_written, held_locks
from tests.store.faults.operations import read_artifact, write_artifact
from tests.store.support import PREDICATE_TYPE
from trtstore import Record, Store
from trtstore.format.digest import hash_bytes
from trtstore.upkeep.maintenance import Maintenance

LONGEST = 0.06  # seconds that a worker may live
TOGETHER = 2  # workers at a time
WINDOW = 6  # keys that the workers of one moment publish: few, so that they meet


@dataclass(frozen=True)
class Worker:
    """What a worker works with: the store, its dice, and the newest key that it may publish."""

    store: Store
    dice: random.Random
    newest: int
    pipe: int

    def any_key(self) -> int:
        return self.newest - self.dice.randrange(WINDOW)

    def say(self, word: str) -> None:
        os.write(self.pipe, f"{word}\n".encode())


def key_of(number: int) -> str:
    return hash_bytes(b"%d" % number)


def files_of(number: int) -> dict[str, bytes]:
    """The files of a key, the same in every process: some of its own, one that it shares with others."""
    dice = random.Random(number)  # dice, no secret
    files = {"own.bin": dice.randbytes(dice.randrange(60_000)), "shared.bin": b"%d" % (number % 5) * 9000}
    return files | ({"bin/run": dice.randbytes(3000)} if number % 3 == 0 else {"sub/empty": b""})


def is_pinned(number: int) -> bool:
    """Half of the keys are pinned before they are published, so that no collection may take them."""
    return number % 2 == 0


def publish(worker: Worker) -> None:
    number = worker.any_key()
    if is_pinned(number):
        Maintenance(worker.store).pin(key_of(number))
    with worker.store.scratch() as work:
        publish_folder(worker.store, number, write_artifact(work / "out", files_of(number)))
        worker.say(f"published {number}")  # before the scratch folder is removed, which a kill may cut short


def build(worker: Worker) -> None:
    number = worker.any_key()
    with worker.store.building(key_of(number), who="a worker"):
        if look(worker.store, number) is None:
            publish(Worker(worker.store, worker.dice, number, worker.pipe))


def materialise(worker: Worker) -> None:
    number = worker.any_key()
    with worker.store.scratch():  # while it is there, no collector takes what is used
        record = worker.store.use(key_of(number), on_problem=trouble)
        if record is not None:
            check(worker.store, number, record)


def look_up(worker: Worker) -> None:
    number = worker.any_key()
    record = look(worker.store, number)
    if record is not None and record.labels != {"number": str(number)}:
        raise AssertionError(f"key {number} is a hit with the labels {record.labels}")


def put_and_get(worker: Worker) -> None:
    number = worker.any_key()
    worker.store.index.put("test", str(number), number)
    if worker.store.index.get("test", str(number)) not in (number, None):
        raise AssertionError(f"row {number} has another value")


def collect(worker: Worker) -> None:
    plan = Maintenance(worker.store).collect(worker.dice.choice((None, 0, 200_000)), grace=0)
    worker.say(f"collected {len(plan.removed)}")


def verify(worker: Worker) -> None:
    for finding in Maintenance(worker.store).verify([key_of(worker.any_key())]):
        trouble(str(finding))


#: What workers do, at random: one line for one more thing that is to survive a kill.
WORK: tuple[Callable[[Worker], None], ...] = (
    publish,
    build,
    materialise,
    look_up,
    put_and_get,
    collect,
    verify,
)


def publish_folder(store: Store, number: int, folder: Path) -> Record:
    return store.publish(
        key_of(number),
        folder,
        predicate_type=PREDICATE_TYPE,
        predicate={},
        labels={"number": str(number)},
    )


def look(store: Store, number: int) -> Record | None:
    """The record of `number`. Raises AssertionError where it is there and unusable: a record comes last."""
    return store.lookup(key_of(number), on_problem=trouble)


def trouble(problem: str) -> None:
    raise AssertionError(problem)


def check(store: Store, number: int, record: Record) -> None:
    """Raise AssertionError unless the record leads to all bytes of `number`."""
    with store.reading(record) as made:
        if read_artifact(made.path) != files_of(number):
            raise AssertionError(f"key {number} is a hit with wrong bytes")


class Storm:
    """The parent: starts workers, kills them, and keeps count of what it finds wrong."""

    def __init__(self, root: Path, seed: int) -> None:
        self._root = root
        self._store = Store.open(root, durability="fast")
        self._dice = random.Random(seed)  # dice, no secret
        self.complete: set[int] = set()  # keys that were published, and that no collector may take
        self.collections: list[int] = []  # how much each one took
        self.findings: list[str] = []
        self.kills = 0
        self.cut_short = 0  # kills that found a writer at work

    def rage(self, kills: int) -> None:
        """Kill so many; where the machine is too busy for workers to get anywhere, up to four times as many."""
        while self.kills < kills or (self.kills < 4 * kills and not self._met(kills)):
            # A window that moves slowly: each key is met half published, published, and by the next worker.
            newest = WINDOW + self.kills // 6
            for child, pipe in [self._start(newest) for _ in range(TOGETHER)]:
                time.sleep(self._dice.uniform(0, LONGEST))
                self._kill(child, pipe)
                self._look(newest)

    def _met(self, kills: int) -> bool:
        """Whether the kills have met work enough to prove anything: what the test asks for."""
        return (
            self.cut_short > kills / 10
            and len(self.complete) > kills / 20
            and len(self.collections) > kills / 20
            and sum(self.collections) > 0
        )

    def _start(self, newest: int) -> tuple[int, int]:
        seed = self._dice.random()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            dice = random.Random(seed)  # dice, no secret
            _work(Worker(Store.open(self._root), dice, newest, writing))
        os.close(writing)
        os.read(reading, len("ready\n"))
        return child, reading

    def _kill(self, child: int, pipe: int) -> None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.kills += 1
        tmp = self._root / "v1" / "tmp"
        self.cut_short += tmp.is_dir() and any(path.name.startswith(f"{child}.") for path in tmp.iterdir())
        with os.fdopen(pipe) as said:
            for line in said:
                word, _, rest = line.strip().partition(" ")
                if word == "published":
                    self.complete |= {int(rest)} if is_pinned(int(rest)) else set()
                elif word == "collected":
                    self.collections.append(int(rest))
                else:
                    self._find(rest)

    def _look(self, newest: int) -> None:
        """No key that was published is lost, and no hit is partial: all keys of the window, some older ones."""
        older = self._dice.sample(sorted(self.complete), min(5, len(self.complete)))
        for number in {*range(newest - WINDOW + 1, newest + 1), *older}:
            record = self._store.lookup(key_of(number), on_problem=self._find)
            if record is None and number in self.complete:
                self._find(f"key {number} was published and is lost")
            if record is not None and record.manifest != manifest_of(number):
                self._find(f"key {number} is a hit of another artifact")

    def settle(self) -> Iterator[str]:
        """What is wrong once all is quiet and one more writer has come."""
        base = self._root / "v1"
        with self._store.scratch() as work:
            publish_folder(self._store, 0, write_artifact(work / "out", files_of(0)))
        Maintenance(self._store).pin(key_of(0))
        self.complete.add(0)
        yield from held_locks(base)
        yield from half_written(base)
        yield from (f"tmp/{path.name} is left over" for path in (base / "tmp").iterdir())
        for number in sorted(self.complete):
            record = self._store.lookup(key_of(number), on_problem=self._find)
            if record is None:
                yield f"key {number} was published and is lost"
                continue
            try:
                check(self._store, number, record)
            except AssertionError as error:
                yield str(error)

    def collect_all(self) -> Iterator[str]:
        """What is wrong once the last collection took all that it may."""
        Maintenance(self._store).collect(0, grace=0)
        if garbage := self.garbage()["blobs"]:
            yield f"{garbage} blobs that no record names are left"
        kept = {key_of(number) for number in self.complete}
        # One that was pinned and published by a worker that could not say so any more stays too.
        left = {*self._store.keys()} - Maintenance(self._store).pins().keys()
        yield from (f"the key {key[:8]}… is not pinned, and left" for key in left)
        yield from (f"the key {key[:8]}… is pinned, and gone" for key in kept - {*self._store.keys()})

    def _find(self, finding: str) -> None:
        self.findings.append(f"after {self.kills} kills: {finding}")

    def garbage(self) -> dict[str, int]:
        """Blobs that no record leads to, which a collector may remove: their number and bytes."""
        base = self._root / "v1"
        named = set()
        for path in base.glob("records/??/*"):
            record = self._store.lookup(path.name)
            if record is not None:
                manifest = record.manifest.removeprefix("sha256:")
                entries = json.loads((base / "blobs" / "sha256" / manifest[:2] / manifest).read_bytes())["entries"]
                named |= {manifest, *(entry["sha256"] for entry in entries)}
        loose = [path for path in base.glob("blobs/sha256/??/*") if path.name not in named]
        return {"blobs": len(loose), "bytes": sum(path.stat().st_size for path in loose)}


def manifest_of(number: int) -> str:
    """The digest that the README's rules give the files of a key, without the store's code."""
    entries = [
        {
            "mode": "0755" if name.startswith("bin/") else "0644",
            "path": name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
        }
        for name, data in sorted(files_of(number).items())
    ]
    text = json.dumps({"entries": entries, "schema": 1}, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hash_bytes(text.encode())}"


def _work(worker: Worker) -> None:
    """Work until somebody kills this process; say what goes wrong."""
    worker.say("ready")
    try:
        while True:
            worker.dice.choice(WORK)(worker)
    except Exception as error:  # noqa: BLE001  # the parent must hear of any
        worker.say(f"trouble {type(error).__name__}: {error}")
    finally:
        signal.pause()


def main() -> None:
    storm = Storm(Path(sys.argv[1]), int(sys.argv[2]))
    storm.rage(int(sys.argv[3]))
    storm.findings += storm.settle()
    garbage = storm.garbage()
    storm.findings += storm.collect_all()
    facts = {"kills": storm.kills, "cut_short": storm.cut_short, "complete": len(storm.complete)}
    facts |= {"collections": len(storm.collections), "collected": sum(storm.collections)}
    print(json.dumps(facts | {"garbage": garbage, "findings": storm.findings}))


if __name__ == "__main__":
    main()
