"""The worker of the check: an engine's folder is complete. Nothing is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trtbuild.compilers.tensorrt_llm import engine_folder
from trtbuild.compilers.tensorrt_llm.contract import UNEXECUTED
from trtbuild.compilers.tensorrt_llm.engine_folder import TOKENIZER
from trtbuild.errors import BuildError
from trtbuild.worker import Reporter, StepRequest, serve


def run(request: StepRequest, _out: Path, _reporter: Reporter) -> dict[str, Any]:
    """Facts of an engine whose folder is as the contract says. Raises BuildError for another."""
    engine = request.inputs["engine"]
    built = engine_folder.read(engine)
    if not (engine / TOKENIZER).is_dir():
        raise BuildError("the engine's folder has no tokenizer")
    return {"executed": False, "ranks": built.ranks, "why": UNEXECUTED}


if __name__ == "__main__":
    serve("trtbuild.compilers.tensorrt_llm.check:run")
