"""The worker of `trtbuild run`, which refuses: checkpoints are for servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trtbuild.errors import InputError
from trtbuild.worker import Reporter, StepRequest, serve


def run(_request: StepRequest, _out: Path, _reporter: Reporter) -> dict[str, Any]:
    """Always raises InputError."""
    raise InputError(
        "trtbuild does not run checkpoints: TensorRT-LLM, vLLM and SGLang do",
        option="compiler=modelopt",
        hint="`trtbuild … serve=vllm out=checkpoint` writes the command that serves it",
    )


if __name__ == "__main__":
    serve("trtbuild.compilers.modelopt.generate:run")
