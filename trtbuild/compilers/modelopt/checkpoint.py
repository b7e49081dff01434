"""The worker of `checkpoint`: `python -m trtbuild.compilers.modelopt.checkpoint request.json out/`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from trtbuild.compilers.modelopt.options import settle
from trtbuild.worker import Reporter, StepRequest, serve


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the checkpoint to `out`; see `modelopt_run.run`, which is imported once the CPU's part is settled."""
    settle(request.options.get("target.level"))
    made: dict[str, Any] = importlib.import_module("trtbuild.compilers.modelopt.modelopt_run").run(
        request, out, reporter
    )
    return made


if __name__ == "__main__":
    serve("trtbuild.compilers.modelopt.checkpoint:run")
