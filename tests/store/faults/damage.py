"""Damaged stores, bundles and envelopes, by dice: all that is done with one is right, a miss, or an error of the store.

`python -m tests.store.faults.damage FOLDER SEED COUNT` tries so many of each, and prints what was found, as JSON.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.store.faults.operations import read_artifact, write_artifact
from tests.store.support import KEY, OTHER, PREDICATE_TYPE
from trtstore import Record, Store, StoreFailure
from trtstore.exchange import bundle
from trtstore.transfer.readonly import ReadOnly
from trtstore.upkeep.maintenance import Maintenance

PATIENCE = 60  # seconds until a case that hangs is ended, by SIGALRM
SHARED = b"of both" * 20_000
ARTIFACTS = {
    KEY: {"engine.bin": b"engine" * 1000, "bin/run": b"#!/bin/sh\n" * 50, "shared": SHARED},
    OTHER: {"config.json": b"{}", "shared": SHARED},
}


class Case:
    """One damaged store: what was done to it, and what is wrong with what it gives."""

    def __init__(self, home: Path, dice: random.Random, counts: Counter[str]) -> None:
        self._home, self._dice, self._counts = home, dice, counts
        self.words: list[str] = []
        self.findings: list[str] = []
        self._store = Store.open(home / "store", durability="fast")
        for key, files in ARTIFACTS.items():
            write_artifact(home / "out" / key, files)
            self._store.materialise(self._publish(key))
        Maintenance(self._store).pin(OTHER)
        self._store.add_root(home / "link", self._publish(KEY))
        self._store.close()

    def _publish(self, key: str) -> Record:
        facts = {"predicate_type": PREDICATE_TYPE, "predicate": {}, "labels": {}}
        return self._store.publish(key, self._home / "out" / key, **facts)

    def run(self) -> None:
        for _ in range(self._dice.randrange(1, 4)):
            self._damage()
        self._store = Store.open(self._home / "store", durability="fast")
        works = [
            self._use,
            self._materialise,
            self._read,
            self._verify,
            self._collect,
            self._export,
            self._copy,
        ]
        self._dice.shuffle(works)
        for work in works:
            self._attempt(work)
        for key in ARTIFACTS:
            self._attempt(lambda key=key: self._check(key, self._publish(key)))  # type: ignore[misc]

    def _damage(self) -> None:
        paths = [path for path in sorted((self._home / "store" / "v1").rglob("*")) if os.path.lexists(path)]
        path = self._dice.choice(paths)
        kind = self._dice.choice(DAMAGES)
        self.words.append(f"{kind.__name__} {path.relative_to(self._home)}")
        kind(path, self._dice)

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
            self._counts["right"] += 1
        except StoreFailure as failure:
            self._counts[type(failure).__name__] += 1
            if "\n" in failure.message:
                self.findings.append(f"an error of several lines: {failure.message}")
        except Exception as error:  # noqa: BLE001  # the point
            self.findings.append(f"{type(error).__name__}: {error}")

    def _check(self, key: str, record: Record) -> None:
        with self._store.reading(record) as made:
            if read_artifact(made.path) != ARTIFACTS[key]:
                self.findings.append(f"{key[:4]}… was handed out with wrong bytes")

    def _use(self) -> None:
        for key in ARTIFACTS:
            record = self._store.use(key, on_problem=lambda _: None)
            if record is not None:
                self._check(key, record)

    def _materialise(self) -> None:
        for key in ARTIFACTS:
            record = self._store.lookup(key, on_problem=lambda _: None)
            if record is not None:
                self._check(key, record)

    def _read(self) -> None:
        self._store.index.get("t", "k")
        self._store.index.put("t", "k", 1)
        Maintenance(self._store).pins()
        Maintenance(self._store).roots()
        list(Maintenance(self._store).catalog.named())

    def _verify(self) -> None:
        Maintenance(self._store).verify()

    def _collect(self) -> None:
        Maintenance(self._store).collect(None)

    def _export(self) -> None:
        file = io.BytesIO()
        bundle.export_to(self._store, list(ARTIFACTS), file)
        fresh = Store.open(self._home / "fresh", durability="fast")
        file.seek(0)
        list(bundle.import_from(fresh, file))

    def _copy(self) -> None:
        other = ReadOnly.open(self._home / "store")
        mine = Store.open(self._home / "mine", durability="fast")
        for key in ARTIFACTS:
            if other.lookup(key, on_problem=lambda _: None) is not None:
                record = mine.receive(key, other.envelope(key), other).record
                if read_artifact(mine.materialise(record).path) != ARTIFACTS[key]:
                    self.findings.append(f"{key[:4]}… was copied with wrong bytes")


def flip(path: Path, dice: random.Random) -> None:
    """Change a byte, and put the times back."""
    if not path.is_file() or path.is_symlink():
        return
    status, data = path.stat(), bytearray(path.read_bytes() or b"x")
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(status.st_mode & 0o7777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut(path: Path, dice: random.Random) -> None:
    if path.is_file() and not path.is_symlink():
        path.chmod(0o644)
        os.truncate(path, dice.randrange(path.stat().st_size + 1))


def zero_the_tail(path: Path, _dice: random.Random) -> None:
    if path.is_file() and not path.is_symlink():
        size = path.stat().st_size
        path.chmod(0o644)
        os.truncate(path, size // 2)
        os.truncate(path, size)


def make_junk(path: Path, dice: random.Random) -> None:
    away(path, dice)
    path.write_bytes(dice.choice([b"", b"[]", b"{}", b"9" * 5000, b'{"a":' * 3000, dice.randbytes(500)]))


def make_fifo(path: Path, dice: random.Random) -> None:
    away(path, dice)
    os.mkfifo(path)


def make_socket(path: Path, dice: random.Random) -> None:
    away(path, dice)
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def make_folder(path: Path, dice: random.Random) -> None:
    away(path, dice)
    (path / "inner").mkdir(parents=True)


def make_link(path: Path, dice: random.Random) -> None:
    target = path.with_name("moved")
    away(target, dice)
    path.rename(target)
    path.symlink_to(target if dice.random() < 0.7 else "/nowhere")


def away(path: Path, _dice: random.Random) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def touch(path: Path, dice: random.Random) -> None:
    os.utime(path, (dice.randrange(1 << 31),) * 2, follow_symlinks=False)


def swap(path: Path, dice: random.Random) -> None:
    """Two files of one folder change their names."""
    others = [each for each in path.parent.iterdir() if each != path]
    if others:
        other, aside = dice.choice(others), path.with_name("aside")
        path.rename(aside)
        other.rename(path)
        aside.rename(other)


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    *(flip, flip, flip, cut, zero_the_tail, make_junk, make_fifo, make_socket, make_folder, make_link, away),
    *(touch, swap),
)


def stores(folder: Path, seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """What became of the work on so many damaged stores, and what was wrong."""
    counts, findings = Counter[str](), []
    for number in range(count):
        signal.alarm(PATIENCE)
        home = folder / str(number)
        home.mkdir(parents=True)
        case = Case(home, random.Random(f"{seed} {number}"), counts)  # dice, no secret
        case.run()
        findings += [f"case {number} ({'; '.join(case.words)}): {found}" for found in case.findings]
        shutil.rmtree(home)
    signal.alarm(0)
    return counts, findings


def bundles(folder: Path, seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """The same of bundles, and of the envelopes in them."""
    counts, findings, file = Counter[str](), [], io.BytesIO()
    source = Store.open(folder / "source", durability="fast")
    for key, files in ARTIFACTS.items():
        out = write_artifact(folder / "out" / key, files)
        source.publish(key, out, predicate_type=PREDICATE_TYPE, predicate={}, labels={"a": "b"})
    bundle.export_to(source, list(ARTIFACTS), file)
    for number in range(count):
        signal.alarm(PATIENCE)
        dice = random.Random(f"{seed} {number}")  # dice, no secret
        store = Store.open(folder / "target", durability="fast")
        try:
            if number % 2:
                list(bundle.import_from(store, io.BytesIO(spoilt(file.getvalue(), dice, 300_000))))
            else:
                key = dice.choice(list(ARTIFACTS))
                store.receive(key, spoilt(source.envelope(key), dice, 10_000), source)
            counts["taken"] += 1
        except StoreFailure as failure:
            counts[type(failure).__name__] += 1
        except Exception as error:  # noqa: BLE001  # the point
            findings.append(f"bundle {number}: {type(error).__name__}: {error}")
        for key in ARTIFACTS:
            record = store.use(key, on_problem=findings.append)
            if record is not None and read_artifact(store.materialise(record).path) != ARTIFACTS[key]:
                findings.append(f"bundle {number}: {key[:4]}… has wrong bytes")
        store.close()
        shutil.rmtree(folder / "target", ignore_errors=True)
    signal.alarm(0)
    return counts, findings


def spoilt(data: bytes, dice: random.Random, most: int) -> bytes:
    """`data` with some bits flipped, a piece cut out, doubled, or put elsewhere."""
    changed = bytearray(data)
    start, length = dice.randrange(len(data)), dice.randrange(1, 600)
    kind = dice.randrange(5)
    if kind == 0:
        for _ in range(dice.randrange(1, 5)):
            changed[dice.randrange(min(len(data), most))] ^= 1 << dice.randrange(8)
    elif kind == 1:
        del changed[start : start + length]
    elif kind == 2:
        changed[start:start] = changed[start : start + length]
    elif kind == 3:
        changed[start : start + length] = dice.choice([b"9" * 5000, b"[" * 2000, b"\0" * length, b'"\\ud800"'])
    else:
        del changed[start:]
    return bytes(changed)


def main() -> None:
    folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    counts, findings = stores(folder / "stores", seed, count)
    more, others = bundles(folder / "bundles", seed, count)
    facts = {"stores": count, "outcomes": counts, "bundles and envelopes": count, "their outcomes": more}
    print(json.dumps(facts | {"findings": findings + others}))


if __name__ == "__main__":
    main()
