"""Compare an engine of compiler=aot_inductor with eager PyTorch and torch.compile: time to start, and tokens a second.

usage: python bench/aot_speed.py ENGINE [--tokens 128]

ENGINE is the folder of an engine (out=ENGINE, or the path that trtbuild prints). Each variant runs in a process of its
own. It prints the seconds from the start of the process to the 16th token, and the tokens a second of --tokens more.
torch.compile runs once without a cache, and once with the artifacts that it saved
(torch.compiler.save_cache_artifacts).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "store"))

FIRST = 16
PROMPT = "Why is the sky blue?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ways = [
            ("engine", args.rounds),
            ("eager", args.rounds),
            ("compile", 1),
            ("compile, saved", args.rounds),
        ]
        for way, rounds in ways:
            runs = [_apart(way, args.engine, args.tokens, Path(scratch)) for _ in range(rounds)]
            show(way, runs)


def show(way: str, runs: list[dict[str, Any]]) -> None:
    def middle(name: str) -> float:
        return statistics.median(run[name] for run in runs)

    parts = ", ".join(f"{name} {middle(name):.3f}" for name in runs[0] if name.endswith("_s"))
    print(
        f"{way:<15} {middle('total'):7.2f} s to token {FIRST}, {middle('speed'):7.1f} tokens/s, "
        f"{len(runs)} runs ({parts}) {runs[0]['ids'][:6]}",
        flush=True,
    )


def _apart(way: str, engine: Path, tokens: int, scratch: Path) -> dict[str, Any]:
    """Run one variant in a process of its own, with an empty cache except for what `compile` saved."""
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": f"{cache}/triton"}
        words = [sys.executable, __file__, "--one", way, str(engine), str(tokens), str(scratch)]
        began = time.time()
        done = subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"{way}: exit code {done.returncode}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**found, "total": found.pop("at") - began}


def one(way: str, engine: Path, tokens: int, scratch: Path) -> None:
    """Run one variant in this process, and print its times as JSON."""
    from trtbuild.compilers.aot_inductor import manifest, package_loader  # noqa: PLC0415

    made = manifest.read(engine)
    package_loader.make_ready(made["device"])
    began = time.perf_counter()
    import torch  # noqa: PLC0415

    from trtbuild.compilers.text import Text  # noqa: PLC0415

    prompt = Text(engine).encode(PROMPT, raw=False)
    if made["device"] == "cuda":
        torch.zeros(1, device="cuda")
    imported = time.perf_counter()
    call, parts = _engine(engine, made) if way == "engine" else _module(way, engine, made, scratch)
    with torch.no_grad():
        ids, at = _generate(call, made, prompt, FIRST)
        spoke = time.time()
        if way == "compile":
            artifacts = torch.compiler.save_cache_artifacts()
            assert artifacts is not None
            (scratch / "artifacts").write_bytes(artifacts[0])
            parts["saved_bytes"] = len(artifacts[0])
        _generate(call, made, prompt, FIRST)
        started = time.perf_counter()
        _generate(call, made, prompt, tokens)
        took = time.perf_counter() - started
    answer = {"at": spoke, "import_s": imported - began, **parts, "speed": tokens / took, "ids": ids}
    del at
    print(json.dumps(answer))


def _engine(engine: Path, made: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, float]]:
    from trtbuild.compilers.aot_inductor import package_loader  # noqa: PLC0415

    started = time.perf_counter()
    package = package_loader.open_package(engine / made["package"])
    opened = time.perf_counter()
    weights = package_loader.read(engine / made["weights"], made["device"])
    package_loader.give(package, {**weights, **package_loader.scalars(made["scalars"], made["device"])})
    given = time.perf_counter()
    return lambda ids, at, keys, values: package.boxed_run([ids, at, *keys, *values])[0], {
        "open_s": opened - started,
        "weights_s": given - opened,
    }


def _module(way: str, engine: Path, made: dict[str, Any], scratch: Path) -> tuple[Any, dict[str, float]]:
    import torch  # noqa: PLC0415

    from trtbuild.compilers.aot_inductor import package_loader  # noqa: PLC0415
    from trtbuild.compilers.aot_inductor.module import DecoderModule  # noqa: PLC0415
    from trtbuild.compilers.aot_inductor.structure import Structure, WeightScheme  # noqa: PLC0415

    started = time.perf_counter()
    module = DecoderModule(
        Structure(**made["structure"]), WeightScheme(**made["scheme"], dtype=made["dtype"]), made["device"]
    )
    module.load_state_dict(package_loader.read(engine / made["weights"], made["device"]))
    parts = {"weights_s": time.perf_counter() - started}
    if way == "eager":
        return module, parts
    if way == "compile, saved":
        torch.compiler.load_cache_artifacts((scratch / "artifacts").read_bytes())
    return torch.compile(module, dynamic=True), parts


def _generate(call: Callable[..., Any], made: dict[str, Any], prompt: list[int], count: int) -> tuple[list[int], int]:
    import torch  # noqa: PLC0415

    s, device = made["structure"], made["device"]
    shape, dtype = (s["kv_heads"], 256, s["head_dim"]), getattr(torch, made["cache_dtype"])
    keys, values = ([torch.zeros(shape, dtype=dtype, device=device) for _ in range(s["layers"])] for _ in range(2))
    ids, at = torch.tensor(prompt, device=device), torch.arange(len(prompt), device=device)
    given = []
    for _ in range(count):
        given.append(int(call(ids, at, keys, values).argmax()))
        ids, at = torch.tensor([given[-1]], device=device), at[-1:] + 1
    return given, int(at)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        way, engine, tokens, scratch = sys.argv[2:]
        one(way, Path(engine), int(tokens), Path(scratch))
    else:
        main()
