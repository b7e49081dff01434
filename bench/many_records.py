"""Fill a store with many records like those of a team's builds, and measure lookups of some of them.

usage: python bench/many_records.py ROOT [--records 100000] [--lookups 200]

Each record has its own engine (a few hundred bytes, because only the count matters), a config that ten records share, a
tokenizer that all records of a model share, the log of its build, and SLSA provenance as trtbuild writes it. The script
writes blobs and records straight to their places in the store's own encoding, which is faster than 100 000 publishes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from trtstore import Attachment, Record, Store
from trtstore.content import blobs
from trtstore.disk.layout import STAMP, Layout
from trtstore.format import manifest
from trtstore.format import record as records
from trtstore.format.digest import digest_of, hash_bytes
from trtstore.format.manifest import PLAIN, Entry

MODELS = [f"{family}-{size}" for family in ("llama3", "qwen3", "smollm2", "phi4", "gemma3") for size in "sml"]
QUANTS = ["none", "fp16", "int8", "int4", "fp8", "nvfp4"]
TARGETS = ["x86-avx2", "x86-avx512", "a10", "a100", "l40s", "h100", "h200", "b200"]
COMPILERS = ["onnxruntime", "tensorrt", "tensorrt-llm"]
STEPS = ["network", "quantized", "engine"]
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BATCH = 1000


def key_of(number: int) -> str:
    return hashlib.sha256(b"key %d" % number).hexdigest()


def labels_of(number: int) -> dict[str, str]:
    chosen = random.Random(number)  # noqa: S311  # nothing secret
    choices = {"model": MODELS, "quant": QUANTS, "target": TARGETS, "compiler": COMPILERS, "step": STEPS}
    return {name: chosen.choice(values) for name, values in choices.items()}


def predicate_of(number: int, labels: Mapping[str, str]) -> dict[str, object]:
    """Provenance of about 2.5 kB, with the structure of trtbuild/artifacts/provenance.py."""
    names = ("network", "quant", "compiler", "profile", "target")
    options = {f"{name}.option_{n}": f"{labels['quant']}-{n}" for name in names for n in range(5)}
    step = {"schema": 1, "step.name": labels["step"], "step.version": 1, "compiler.name": labels["compiler"]}
    network = {"schema": 1, "step.name": "network", "step.version": 1, "model.identity": key_of(number % 15)}
    tools = {f"toolchain.tool_{n}": f"{number % 3}.{n}" for n in range(8)}
    return {
        "buildDefinition": {
            "buildType": "urn:trtbuild:step:v1",
            "externalParameters": {**step, **options, **tools},
            "resolvedDependencies": [
                {
                    "name": "input.network",
                    "uri": f"urn:trtstore:key:{key_of(number // 2)}",
                    "annotations": {"fields": {**network, **tools}},
                },
                {"name": "model", "uri": f"hf:{labels['model']}", "digest": {"sha256": key_of(number % 15)}},
            ],
        },
        "runDetails": {
            "builder": {"id": "urn:trtbuild:0.1.0"},
            "metadata": {"startedOn": "2026-01-02T03:04:05Z", "finishedOn": "2026-01-02T03:14:05Z"},
        },
        "trtbuild_stats": {"seconds": number % 600 + 0.125, "peak_memory_bytes": 2**30 + number},
        "trtbuild_facts": {"nodes": number % 1000, "operators": ["MatMulNBits", "GroupQueryAttention"]},
        "trtbuild_check": {"cosine": 0.9995, "same_tokens": 128},
    }


def put(path: Path, data: bytes) -> None:
    """Store `data` as a file unless it is there already. Makes no folder above it, and syncs nothing."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, blobs.MODE)
    except FileExistsError:
        return
    try:
        os.write(fd, data)
        os.utime(fd, (STAMP, STAMP))
    finally:
        os.close(fd)


def put_blob(layout: Layout, data: bytes) -> str:
    digits = hash_bytes(data)
    put(layout.blob(digits), data)
    return digits


def write_record(layout: Layout, number: int) -> None:
    labels = labels_of(number)
    files = {
        "engine.bin": hashlib.shake_256(b"engine %d" % number).digest(200 + number % 400),
        "config.json": b'{"shared by ten": %d}' % (number // 10),
        "tokenizer.json": f'{{"model": "{labels["model"]}"}}'.encode() * 100,
    }
    entries = [Entry(name, PLAIN, len(data), put_blob(layout, data)) for name, data in files.items()]
    made = manifest.make_manifest(entries)
    listed = put_blob(layout, made.encode())
    log = f"built {number}\n".encode() * 20
    record = Record(
        key=key_of(number),
        manifest=digest_of(listed),
        bytes=made.size,
        files=len(made.entries),
        labels=labels,
        attachments={"log": Attachment(digest_of(put_blob(layout, log)), len(log))},
        predicate_type=PREDICATE_TYPE,
        predicate=predicate_of(number, labels),
    )
    put(layout.record(record.key), records.encode(record))
    stored = time.time() - 30 * (number + 1)  # two builds a minute
    os.utime(layout.record(record.key), (stored, stored))


def write_records(root: Path, numbers: Sequence[int]) -> None:
    os.umask(0o022)
    layout = Layout(root, durable=False)
    for number in numbers:
        write_record(layout, number)


def fill(root: Path, count: int) -> None:
    """Add the records 0 to `count` to the store at `root`, using all cores."""
    layout = Layout(root.absolute(), durable=False)
    for digits in (f"{n:02x}" * 32 for n in range(256)):
        layout.make(layout.blob(digits).parent)
        layout.make(layout.record(digits).parent)
    batches = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(partial(write_records, layout.root), batches):
            pass


def lookups(root: Path, count: int) -> tuple[float, float]:
    """Look up `count` random keys in this process; returns the median and the longest time in milliseconds."""
    keys = [path.name for path in (root / "v1" / "records").glob("*/*")]
    store, times = Store.open(root), []
    for key in random.Random(0).choices(keys, k=count):  # noqa: S311  # nothing secret
        started = time.perf_counter()
        found = store.lookup(key)
        times.append((time.perf_counter() - started) * 1000)
        assert found is not None, f"{key} is there and is not found"
    return statistics.median(times), max(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--lookups", type=int, default=200)
    asked = parser.parse_args()
    started = time.perf_counter()
    fill(asked.root, asked.records)
    print(f"{asked.records} records in {time.perf_counter() - started:.1f} s")
    median, longest = lookups(asked.root, asked.lookups)
    print(f"lookup: {median:.2f} ms, {longest:.2f} ms at the most")


if __name__ == "__main__":
    main()
