"""The worker of `stripped` and `engine`: runs trtllm-build, or trtllm-refit for a plan without weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.compilers.tensorrt_llm import arguments, engine_folder, rules, tools
from trtbuild.compilers.tensorrt_llm.arguments import Places
from trtbuild.compilers.tensorrt_llm.contract import UNEXECUTED
from trtbuild.compilers.tensorrt_llm.engine_folder import TOKENIZER
from trtbuild.errors import BuildError
from trtbuild.worker import Reporter, StepRequest, serve

CACHE = "model.cache"  # the timing cache that a build leaves, if the task has no place for it


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the engine to the folder `out`; returns facts for the record. Raises InputError, BuildError."""
    checkpoint = request.inputs["checkpoint"]
    stripped = request.inputs.get("stripped")
    home = Path(os.environ["TMPDIR"])
    if stripped is not None:
        words = arguments.refit(stripped, checkpoint, out)
        peak = tools.run([tools.program("trtllm-refit"), *words], home)
        facts: dict[str, Any] = {"refitted": True}
    else:
        words = arguments.build(request.options, _places(request, checkpoint, out, home), _positions(checkpoint))
        progress = _RankProgress(checkpoint, reporter)
        peak = tools.run([tools.program("trtllm-build"), *words], home, progress.line)
        facts = {"refitted": False}
    engine_folder.settle(out)
    built = engine_folder.read(out)
    _check_release(request, built)
    shutil.copytree(checkpoint / TOKENIZER, out / TOKENIZER, dirs_exist_ok=True)
    return {
        **facts,
        "tensorrt_llm": built.version,
        "ranks": built.ranks,
        "build_config": dict(built.build_config),
        "adjusted": built.adjusted(request.options) if stripped is None else {},
        "peak_memory_bytes": peak,
        "validated": UNEXECUTED,
    }


class _RankProgress:
    """Reports each rank that is written: trtllm-build logs no other progress."""

    def __init__(self, checkpoint: Path, reporter: Reporter) -> None:
        config = untrusted.read_object(checkpoint / "config.json")
        self.total = int(config.get("mapping", {}).get("world_size", 1))
        self.done, self.reporter = 0, reporter
        reporter.progress("ranks", 0, self.total, "ranks")

    def line(self, line: str) -> None:
        if "Serializing engine to" in line:
            self.done = min(self.done + 1, self.total)
            self.reporter.progress("ranks", self.done, self.total, "ranks")


def _places(request: StepRequest, checkpoint: Path, out: Path, home: Path) -> Places:
    lora = [request.inputs[name] for name in sorted(request.inputs, key=_number) if name.startswith("lora_dir.")]
    return Places(
        checkpoint,
        out,
        # trtllm-build takes one cache (`Handling.max_hints`): that of the latest build. The one that it leaves is
        # always named, as its default is a file in the working directory.
        input_cache=request.hints[0] if request.hints else None,
        output_cache=request.learnt or home / CACHE,
        lora=lora,
    )


def _number(name: str) -> int:
    last = name.rpartition(".")[2]
    return int(last) if last.isdigit() else -1


def _positions(checkpoint: Path) -> int | None:
    """The model's own limit of tokens, for a profile that leaves it open."""
    config = untrusted.read_object(checkpoint / "config.json")
    if "rope_scaling" not in config and "rotary_scaling" in config:  # TensorRT-LLM's name of it
        config["rope_scaling"] = config["rotary_scaling"]
    return rules.positions(config)


def _check_release(request: StepRequest, built: engine_folder.EngineConfig) -> None:
    wanted = request.toolchain.get("tensorrt_llm")
    if wanted is not None and built.version != wanted:
        raise BuildError(
            f"TensorRT-LLM {built.version} made the engine, and its key says {wanted}",
            option="compiler.version",
            hint="trtllm-build on PATH belongs to another Python: name that one by executor.python",
        )


if __name__ == "__main__":
    serve("trtbuild.compilers.tensorrt_llm.engine:run")
