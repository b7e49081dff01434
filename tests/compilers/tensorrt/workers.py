"""Real workers on tiny models: a network, the engine step, the check, each a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
ENGINE = {
    "compiler.name": "tensorrt_rtx",
    "compiler.shapes": "dynamic",
    "compiler.portable": False,
    "compiler.weight_streaming": False,
    "model.dtype": "float16",
    "quant.weights": "none",
    "profile.max_batch_size": 1,
    "profile.max_input_len": 32,
    "profile.max_seq_len": 128,
    "target.kind": "cuda",
    "target.arch": "x86_64",
    "target.compute_capability": "8.9",
}


@dataclass(frozen=True)
class Answer:
    code: int
    result: Mapping[str, Any]
    error: Mapping[str, Any]
    log: str


def run(
    module: str,
    out: Path,
    options: Mapping[str, Any],
    model: Path | None = None,
    environment: Mapping[str, str] | None = None,
    **inputs: Path,
) -> Answer:
    """`python -m module request.json out/`, with the request beside `out`."""
    out.mkdir(parents=True)
    request = out.with_name(out.name + ".json")
    files = {path.name: str(path) for path in model.iterdir()} if model else None
    named = {name: str(folder) for name, folder in inputs.items()}
    body = {"step": "step", "options": dict(options), "model": files, "inputs": named, "toolchain": {}}
    request.write_text(json.dumps(body | {"memory_bytes": None}))
    paths = os.pathsep.join([str(ROOT), str(ROOT / "store")])
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, str(request), str(out)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": paths, **(environment or {})},
        capture_output=True,
        text=True,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    ends = {event["event"]: event for event in events}
    return Answer(done.returncode, ends.get("result", {}).get("facts", {}), ends.get("error", {}), done.stderr)


def make_network(checkpoint: Path, out: Path, dtype: str = "float16") -> Path:
    options = {"network.frontend": "native", "network.operators": "standard", "model.dtype": dtype}
    made = run("trtbuild.networks", out, options, checkpoint)
    assert made.code == 0, made.log
    return out


def make_engine(network: Path, out: Path, environment: Mapping[str, str] | None = None, **changes: Any) -> Answer:
    """`changes` are options of the step, with "__" for the dot."""
    options = ENGINE | {name.replace("__", "."): value for name, value in changes.items()}
    return run("trtbuild.compilers.tensorrt", out, options, environment=environment, network=network)


def check(engine: Path, out: Path) -> Answer:
    options = {"prompt": "hello", "max_tokens": 4, "raw": False}
    return run("trtbuild.compilers.tensorrt.check", out, options, engine=engine)
