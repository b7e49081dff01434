"""Compare a sweep with a loop of single builds, and measure a sweep that only hits.

usage: python bench/sweep_speed.py [hits|sweep] …   (default: both)

`hits`:  1000 points whose engines are in the store. The store and the keys are real, the engines are not.
`sweep`: 3 models (SmolLM2 and two tiny ones) x 3 quantizations x 4 targets (onnxruntime, TensorRT for RTX), then the
         same again, and a loop of single builds with an empty store for each. It needs the extras onnxruntime and
         tensorrt-rtx, and half an hour. The minimum is the longest chain, or the work divided by the cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support import tiny
from trtbuild.building.digests import Hasher
from trtbuild.config import compose
from trtbuild.config.points import Point
from trtbuild.planning.plan import make_plan
from trtbuild.planning.resolve import resolve
from trtbuild.report import terminal
from trtstore import Store

TRTBUILD = Path(sys.executable).with_name("trtbuild")
QUANTS = "quant=none,int8,int4"
MACHINES = {
    "v3": ("cpu_x86_64_v3", "onnxruntime"),
    "v4": ("cpu_x86_64_v4", "onnxruntime"),
    "rtx4070": ("rtx4070", "tensorrt_rtx"),
    "rtx3090": ("rtx3090", "tensorrt_rtx"),
}


def trtbuild(store: Path, *words: str) -> tuple[float, dict[str, object]]:
    """Run one command; returns its seconds and its JSON document."""
    began = time.monotonic()
    done = subprocess.run(
        [TRTBUILD, *words, "output=json"],
        env={**os.environ, "TRTBUILD_STORE": str(store)},
        stdout=subprocess.PIPE,
        text=True,
    )
    took = time.monotonic() - began
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}")
    return took, json.loads(done.stdout)


def hits(folder: Path) -> None:
    """Time a sweep of 1000 hits, and one of 36 hits."""
    models = ",".join(str(tiny.write_model(folder / f"m{seed}", seed=seed)) for seed in range(2))
    words = [f"model.source={models}", "quant=none,int8", "profile.max_seq_len=range(2,252)"]
    store = Store.open(folder / "store", durability="fast")
    compose.run(["-m", *words], lambda _: None, lambda points: _publish(points, store, folder))
    for name, each in (
        ("36 points", [*words[:2], "profile.max_seq_len=range(2,11)"]),
        ("1000 points", words),
    ):
        for _ in range(3):
            took, document = trtbuild(folder / "store", "-m", *each)
            results = document["results"]
            assert isinstance(results, list)
            assert {result["outcome"] for result in results} == {"hit-local"}
            print(f"{name}: {len(results)} hits in {took:.2f} s")


def _publish(points: Sequence[Point], store: Store, folder: Path) -> list[float | None]:
    reporter = terminal.PlainTerminal(sys.stderr, None)
    for point in points:
        planned = make_plan(resolve(point.config, Hasher(store.index, reporter)).recipe)
        made = folder / "made"
        made.mkdir(exist_ok=True)
        (made / "model.onnx").write_text(planned.final.key)
        for step in planned.steps:
            store.publish(step.key, made, predicate_type="https://example.com/bench", predicate={}, labels={})
    return [None] * len(points)


def sweep(folder: Path) -> None:
    """Time a real sweep, the same again, and a loop of single builds with a store each."""
    conf = folder / "conf" / "machine"
    conf.mkdir(parents=True)
    for name, (target, compiler) in MACHINES.items():
        text = f"# @package _global_\ndefaults:\n  - override /target: {target}\n  - override /compiler: {compiler}\n"
        (conf / f"{name}.yaml").write_text(text)
    models = ["smollm2", "tiny0", "tiny1"]
    (conf.parent / "model").mkdir()
    for seed, name in enumerate(models[1:]):
        source = tiny.write_model(folder / name, seed=seed)
        (conf.parent / "model" / f"{name}.yaml").write_text(f"defaults: [schema]\nsource: {source}\n")
    flags = ["--config-dir", str(conf.parent)]
    words = [f"model={','.join(models)}", QUANTS, f"+machine={','.join(MACHINES)}"]
    took, document = trtbuild(folder / "store", "-m", *flags, *words, f"report={folder / 'report'}")
    results = document["results"]
    forecast = document["forecast"]
    assert isinstance(results, list)
    assert isinstance(forecast, dict)
    steps = [step for result in results for step in result["steps"] if step["outcome"] == "built"]
    assert sorted(step["key"] for step in steps) == sorted(step["key"] for step in forecast["steps"])
    seconds = {step["key"]: step["seconds"] for step in steps}
    cores = len(os.sched_getaffinity(0))
    chain = max(sum(seconds[step["key"]] for step in result["steps"]) for result in results)
    bars = json.loads((folder / "report" / "report.json").read_text())["timeline"]
    spans = {
        "steps alone": sum(seconds.values()),
        "with downloads, checks and publishing": sum(bar["end"] - bar["begin"] for bar in bars),
    }
    print(f"{len(results)} points, {len(steps)} steps, {cores} cores, the longest chain {chain:.0f} s: {took:.1f} s")
    for what, work in spans.items():
        least = max(chain, work / cores)
        print(f"  work, {what}: {work:.0f} s, so {took / least:.2f} times what is least", flush=True)
    print(f"again: {trtbuild(folder / 'store', '-m', *flags, *words)[0]:.2f} s", flush=True)
    loop = 0.0
    for model in models:
        for quant in QUANTS.partition("=")[2].split(","):
            for machine in MACHINES:
                single = [*flags, f"model={model}", f"quant={quant}", f"+machine={machine}"]
                loop += trtbuild(folder / f"alone-{loop}", *single)[0]
    print(f"a loop of {len(results)} single builds: {loop:.1f} s, {loop / took:.1f} times as long")


if __name__ == "__main__":
    for name in sys.argv[1:] or ["hits", "sweep"]:
        with tempfile.TemporaryDirectory() as temporary:
            {"hits": hits, "sweep": sweep}[name](Path(temporary))
