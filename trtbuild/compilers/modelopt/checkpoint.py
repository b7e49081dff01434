"""The worker of `checkpoint`: `python -m trtbuild.compilers.modelopt.checkpoint request.json out/`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from trtbuild.compilers.modelopt.options import bind_instruction_set
from trtbuild.worker import Reporter, StepRequest, serve


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the checkpoint to `out`; see `modelopt_run.run`, which is imported once the instruction set is set."""
    bind_instruction_set(request.options.get("target.level"))
    facts: dict[str, Any] = importlib.import_module("trtbuild.compilers.modelopt.modelopt_run").run(
        request, out, reporter
    )
    return facts


if __name__ == "__main__":
    serve("trtbuild.compilers.modelopt.checkpoint:run")
