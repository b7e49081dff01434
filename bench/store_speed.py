"""Compare the store with the tools that limit its speed: openssl for the hash, dd for the disk.

usage: python bench/store_speed.py [--gigabytes 4] [--repeats 3] [--folder .] [--records 100000]

The script publishes with durability full. As often, and alternating, it runs `openssl dgst -sha256` on the same files,
and `dd` with as many bytes to the same disk (conv=fdatasync). The files are in the page cache and on the disk.
Medians are compared. It needs about four times --gigabytes on the disk of --folder.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import many_records

from trtstore import Record, Store

KEY = "5e" * 32
TARGET = 1.25  # of openssl's time for the same bytes
PIECES = 16
BLOCK = 16 << 20


@dataclass(frozen=True)
class Case:
    """One way to publish: its name, the files, and whether they lie in the store's scratch folder."""

    name: str
    files: Sequence[Path]
    in_scratch: bool


def write_file(path: Path, size: int) -> Path:
    """Write a file of `size` bytes with no two equal blocks, and sync it."""
    with path.open("wb") as file:
        for _ in range(0, size, BLOCK):
            file.write(os.urandom(BLOCK))
        file.truncate(size)
        os.fsync(file.fileno())
    return path


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def publish(store: Store, folder: Path) -> Record:
    return store.publish(KEY, folder, predicate_type="https://example.org/v1", predicate={}, labels={})


def publishing(case: Case, root: Path) -> float:
    """Publish into a new store, and return the seconds without the preparation."""
    shutil.rmtree(root, ignore_errors=True)
    store = Store.open(root)
    with store.scratch() as work:
        out = work / "out" if case.in_scratch else root.parent / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        for file in case.files:
            if case.in_scratch:
                shutil.copyfile(file, out / file.name)
            else:
                (out / file.name).hardlink_to(file)
        os.sync()
        return timed(lambda: publish(store, out))


def materialising(root: Path) -> str:
    store = Store.open(root)
    record = store.lookup(KEY)
    assert record is not None
    made, again = store.materialise(record), store.materialise(record)
    return f"{made.seconds * 1000:.1f} ms ({made.method}), again {again.seconds * 1000:.1f} ms ({again.method})"


def copy_to_disk(files: Sequence[Path], target: Path) -> None:
    """Return the seconds that the disk takes to write and sync as many bytes."""
    for number, file in enumerate(files):
        run("dd", f"if={file}", f"of={target}.{number}", "bs=1M", "conv=fdatasync")


def measure(case: Case, folder: Path, repeats: int) -> bool:
    """Print the row of `case`, and return whether it reached the target."""
    times: dict[str, list[float]] = {"openssl": [], "dd": [], "publish": []}
    for repeat in range(-1, repeats):  # the first, uncounted round fills the page cache
        round_of = {
            "openssl": timed(lambda: run("openssl", "dgst", "-sha256", *case.files)),
            "dd": timed(lambda: copy_to_disk(case.files, folder / "copy")),
            "publish": 0.0,
        }
        for copy in folder.glob("copy.*"):
            copy.unlink()
        round_of["publish"] = publishing(case, folder / "store")
        if repeat >= 0:
            for name, seconds in round_of.items():
                times[name].append(seconds)
    openssl, dd, ours = (statistics.median(times[name]) for name in ("openssl", "dd", "publish"))
    spread = f"({min(times['publish']):.2f}-{max(times['publish']):.2f})"
    print(
        f"{case.name:34} {openssl:9.2f} {dd:9.2f} {ours:9.2f} {spread:>14} {ours / openssl:11.2f} "
        f"{ours / max(openssl, dd):13.2f}",
        flush=True,
    )
    return ours <= TARGET * (openssl if case.in_scratch else max(openssl, dd))


def artifacts(folder: Path, size: int, repeats: int) -> bool:
    heads = ("publish, durability full", "openssl s", "dd s", "publish s", "(min-max)")
    print("{:34} {:>9} {:>9} {:>9} {:>14} {:>11} {:>13}".format(*heads, "to openssl", "to the slower"))
    reached = True
    for name, pieces, in_scratch in (
        ("(a) one file, in scratch", 1, True),
        ("(b) one file, elsewhere", 1, False),
        (f"(c) {PIECES} files, in scratch", PIECES, True),
    ):
        files = [write_file(folder / f"source.{n}", size // pieces) for n in range(pieces)]
        reached &= measure(Case(name, files, in_scratch), folder, repeats)
        print(f"    materialised in {materialising(folder / 'store')}", flush=True)
        shutil.rmtree(folder / "store")
        for file in files:
            file.unlink()
        shutil.rmtree(folder / "out", ignore_errors=True)
    return reached


def records(folder: Path, count: int) -> None:
    root = folder / "many"
    seconds = timed(lambda: many_records.fill(root, count))
    print(f"\n{count} records, made in {seconds:.0f} s")
    median, longest = many_records.lookups(root, 200)
    print(f"    lookup of a random key: {median:.2f} ms, {longest:.2f} ms at the most")
    plan = ("gc", "--dry-run", "--max-size", "1MB", "--grace", "0")
    for name, words in (
        ("ls, the first (reads every record)", ("ls",)),
        ("ls", ("ls",)),
        ("ls of a label", ("ls", "quant=int8")),
        ("gc plan, the first (reads every manifest)", plan),
        ("gc plan", plan),
        ("gc plan as JSON", (*plan, "--json")),
        ("stats", ("stats",)),
        ("gc that removes nothing", ("gc",)),
    ):
        seconds, peak = command(root, *words)
        print(f"    {name:44} {seconds:7.2f} s  peak {peak / 1e6:5.0f} MB", flush=True)


def command(root: Path, *words: str) -> tuple[float, int]:
    """Run the command `trtstore`; returns its seconds and peak resident bytes, start-up included."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "trtstore", "--store", root, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def machine(folder: Path) -> str:
    kind, source = run("findmnt", "-n", "-o", "FSTYPE,SOURCE", "-T", folder).split()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{name}, {cores} cores, {memory:.0f} GiB; Linux {platform.release()}; {kind} on {source}\n"
        f"Python {platform.python_version()}; {run('openssl', 'version').partition(' (')[0]}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(), help="where to work: its disk is measured")
    parser.add_argument("--records", type=int, default=100_000, help="0: leave them out")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=".store-speed-", dir=asked.folder) as scratch:
        folder = Path(scratch).resolve()
        print(f"{machine(folder)}\n{asked.gigabytes:g} GB an artifact, medians of {asked.repeats}\n", flush=True)
        reached = artifacts(folder, int(asked.gigabytes * 10**9), asked.repeats)
        if asked.records:
            records(folder, asked.records)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
