"""Compare speed and size of trtbuild's engines with those of onnxruntime-genai's own builder, from the same weights.

usage: python bench/engine_speed.py [CHECKPOINT] --builder-python PYTHON [--repeats 5] [--tokens 128]

CHECKPOINT is a Hugging Face folder with safetensors, by default the demo model's. PYTHON is an environment with torch,
transformers, onnx-ir and onnxruntime-genai; it only builds the builder's engines. The Python that runs this script
builds trtbuild's engines and runs all of them. Repetitions are interleaved, so that a busy moment affects both. Medians
are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import demo_checkpoint

PRECISIONS = {"none": "fp32", "int8": "int8", "int4": "int4"}  # trtbuild's -> the builder's
TARGET = 0.9  # of the builder's tokens per second
PROMPT = "Once upon a time, in a small town by the sea,"


@dataclass
class Contestant:
    """One engine and its results in each repetition (the facts of the `generate` worker)."""

    maker: str
    precision: str
    folder: Path
    runs: list[Mapping[str, Any]] = field(default_factory=list)

    def median(self, fact: str) -> float:
        return float(statistics.median(run[fact] for run in self.runs))

    @property
    def megabytes(self) -> float:
        return sum(path.stat().st_size for path in self.folder.glob("model.onnx*")) / 1e6


def worker(module: str, request: Mapping[str, Any], out: Path, threads: int) -> Mapping[str, Any]:
    """Run one of trtbuild's workers, and return the facts of its result."""
    out.mkdir(exist_ok=True)
    path = out.with_name(out.name + ".request.json")
    path.write_text(json.dumps({"toolchain": {}, "memory_bytes": None, "model": None, "inputs": {}, **request}))
    environment = {**os.environ, "TRTBUILD_THREADS": str(threads)}
    command = [sys.executable, "-m", module, str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode or not events or events[-1]["event"] != "result":
        raise SystemExit(f"{module} failed: {events[-1:]}\n{done.stderr[-2000:]}")
    facts: Mapping[str, Any] = events[-1]["facts"]
    return facts


def build_ours(checkpoint: Path, work: Path, threads: int) -> list[Contestant]:
    files = {path.name: str(path) for path in checkpoint.iterdir() if path.is_file()}
    network = work / "network"
    options: dict[str, Any] = {
        "network.frontend": "native",
        "network.operators": "fused",
        "model.dtype": "float32",
    }
    worker("trtbuild.networks", {"step": "network", "options": options, "model": files}, network, threads)
    made = []
    for precision in PRECISIONS:
        out = work / f"ours-{precision}"
        options = {
            "quant.weights": precision,
            "quant.group_size": 32,
            "quant.symmetric": precision != "int4",
            "quant.embedding": True,
            "compiler.accuracy_level": 4,
            "compiler.optimization": "all",
            "profile.max_seq_len": None,
        }
        request = {"step": "engine", "options": options, "inputs": {"network": str(network)}}
        worker("trtbuild.compilers.onnxruntime", request, out, threads)
        made.append(Contestant("trtbuild", precision, out))
    return made


def build_theirs(checkpoint: Path, work: Path, python: str) -> list[Contestant]:
    made = []
    for precision, name in PRECISIONS.items():
        out = work / f"builder-{precision}"
        command = [python, "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint), "-o", str(out)]
        command += ["-p", name, "-e", "cpu", "-c", str(work / "cache")]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run(command, check=True, capture_output=True, env=environment | {"HF_HUB_OFFLINE": "1"})
        made.append(Contestant("builder", precision, out))
    return made


def measure(contestants: list[Contestant], work: Path, repeats: int, tokens: int, threads: int) -> None:
    options = {"prompt": PROMPT, "max_tokens": tokens, "raw": True, "temperature": 0, "top_p": 1.0, "seed": 0}
    for repeat in range(-1, repeats):  # the first, uncounted round fills the page cache
        for one in contestants:
            request = {"step": "generate", "options": options, "inputs": {"engine": str(one.folder)}}
            facts = worker("trtbuild.compilers.onnxruntime.generate", request, work / "spoken", threads)
            if repeat >= 0:
                one.runs.append(facts)


def show(ours: list[Contestant], theirs: list[Contestant], threads: int) -> bool:
    """Print the table, and return whether every precision reached the target."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "onnxruntime-genai"))
    print(f"{cpu()}, {os.cpu_count()} CPUs, {threads} threads; {platform.system()} {platform.machine()}; {versions}")
    heads = ("quant", "engine", "tokens/s", "(min-max)", "first s", "load s", "MB", "ratio")
    print("{:6} {:9} {:>9} {:>16} {:>8} {:>7} {:>7} {:>6}".format(*heads))
    reached = True
    for our, their in zip(ours, theirs, strict=True):
        ratio = our.median("tokens_per_second") / their.median("tokens_per_second")
        reached &= ratio >= TARGET
        for one in (their, our):
            speeds = [run["tokens_per_second"] for run in one.runs]
            spread = f"({min(speeds):.1f}-{max(speeds):.1f})"
            print(
                f"{one.precision:6} {one.maker:9} {one.median('tokens_per_second'):9.1f} {spread:>16} "
                f"{one.median('first_token_seconds'):8.3f} {one.median('load_seconds'):7.3f} {one.megabytes:7.1f} "
                f"{f'{ratio:.2f}' if one is our else '':>6}"
            )
        same = our.runs[0]["text"] == their.runs[0]["text"]
        print(f"       text: {'the same' if same else 'differs'}: {our.runs[0]['text'][:80]!r}")
    return reached


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--builder-python", required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="engine-speed-") as scratch:
        work = Path(scratch)
        checkpoint = asked.checkpoint.resolve() if asked.checkpoint else demo_checkpoint.write(work / "model")
        ours = build_ours(checkpoint, work, asked.threads)
        theirs = build_theirs(checkpoint, work, asked.builder_python)
        both = [one for pair in zip(ours, theirs, strict=True) for one in pair]
        measure(both, work, asked.repeats, asked.tokens, asked.threads)
        return 0 if show(ours, theirs, asked.threads) else 1


if __name__ == "__main__":
    raise SystemExit(main())
