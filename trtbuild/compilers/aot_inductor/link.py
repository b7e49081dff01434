"""The `link` step: an engine and a model's weights in one folder, once they are known to fit. No torch is needed.

Files are links to those of the two, or copies where the file system has no links.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild.compilers.aot_inductor import manifest
from trtbuild.compilers.aot_inductor.stored import read_tensors
from trtbuild.errors import BuildError
from trtbuild.worker import Reporter, StepRequest, serve


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Join `request.inputs`, "engine" and "weights", in the folder `out`. Raises BuildError where they do not fit."""
    engine, weights = request.inputs["engine"], request.inputs["weights"]
    made = manifest.read(engine)
    check(made["constants"], weights / manifest.WEIGHTS)
    for folder in (engine, weights):
        for path in sorted(folder.iterdir()):
            _link(path, out / path.name)
    return {"engine": {**made, "constants": len(made["constants"])}}


def check(constants: Mapping[str, Any], path: Path) -> None:
    """Compare what an engine wants (engine.json) with the tensors of a weights' file. Raises BuildError."""
    found = read_tensors(path)
    missing, extra = constants.keys() - found.keys(), found.keys() - constants.keys()
    if missing or extra:
        name = sorted(missing or extra)[0]
        raise BuildError(
            f"{path.name} lacks {name}, which the engine wants"
            if missing
            else f"{path.name} has {name}, which the engine does not want"
        )
    for name, wanted in constants.items():
        mine, theirs = (wanted["dtype"], wanted["shape"]), found[name]
        if mine != theirs:
            raise BuildError(
                f"{path.name} has {name} as {theirs[0]} {theirs[1]}, and the engine wants {mine[0]} {mine[1]}"
            )


def _link(source: Path, target: Path) -> None:
    if target.exists():
        raise BuildError(f"both the engine and the weights have {target.name}")
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


if __name__ == "__main__":
    serve("trtbuild.compilers.aot_inductor.link:run")
