"""The `link` step: checks that an engine and a model's weights fit, and puts both into one folder, without torch.

Files are hard links, or copies if the file system has no links.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild.compilers.aot_inductor import manifest
from trtbuild.errors import BuildError, InputError
from trtbuild.formats import safetensors
from trtbuild.formats.weight_file import read_file
from trtbuild.worker import Reporter, StepRequest, serve

#: Types of safetensors -> torch's names of them.
_TYPES = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I8": "int8",
    "U8": "uint8",
    "F8_E4M3": "float8_e4m3fn",
}


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Link the files of `request.inputs`, "engine" and "weights", into `out`. Raises BuildError if they do not fit."""
    engine, weights = request.inputs["engine"], request.inputs["weights"]
    about = manifest.read(engine)
    check(about["constants"], weights / manifest.WEIGHTS)
    for folder in (engine, weights):
        for path in sorted(folder.iterdir()):
            _link(path, out / path.name)
    return {"engine": {**about, "constants": len(about["constants"])}}


def check(constants: Mapping[str, Any], path: Path) -> None:
    """Compare what an engine wants (engine.json) with the tensors of its weights file. Raises BuildError."""
    tensors = read_tensors(path)
    missing, extra = constants.keys() - tensors.keys(), tensors.keys() - constants.keys()
    if missing or extra:
        name = sorted(missing or extra)[0]
        raise BuildError(
            f"{path.name} lacks {name}, which the engine wants"
            if missing
            else f"{path.name} has {name}, which the engine does not want"
        )
    for name, wanted in constants.items():
        (dtype, shape), stored = (wanted["dtype"], wanted["shape"]), tensors[name]
        if (dtype, shape) != stored:
            raise BuildError(f"{path.name} has {name} as {stored[0]} {stored[1]}, and the engine wants {dtype} {shape}")


def read_tensors(path: Path) -> dict[str, tuple[str, list[int]]]:
    """name -> (type by torch's name, shape) of each tensor of a weights file. Raises BuildError if it is cut off."""
    try:
        tensors = read_file(safetensors.read_header, path, path.name, "")
    except (OSError, InputError) as error:
        raise BuildError(f"the weights cannot be read: {error}") from None
    return {name: (_TYPES.get(tensor.kind, tensor.kind), list(tensor.shape)) for name, tensor in tensors.items()}


def _link(source: Path, target: Path) -> None:
    if target.exists():
        raise BuildError(f"both the engine and the weights have {target.name}")
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


if __name__ == "__main__":
    serve("trtbuild.compilers.aot_inductor.link:run")
