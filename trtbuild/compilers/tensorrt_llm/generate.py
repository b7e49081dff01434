"""The worker of `trtbuild run`, which refuses: these engines are for NVIDIA's servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trtbuild.errors import InputError
from trtbuild.worker import Reporter, StepRequest, serve


def run(_request: StepRequest, _out: Path, _reporter: Reporter) -> dict[str, Any]:
    """Always raises InputError."""
    raise InputError(
        "trtbuild does not run TensorRT-LLM's engines: NVIDIA's servers do",
        option="compiler=tensorrt_llm",
        hint="`trtbuild … serve=trtllm out=engine` writes the command that serves it",
    )


if __name__ == "__main__":
    serve("trtbuild.compilers.tensorrt_llm.generate:run")
