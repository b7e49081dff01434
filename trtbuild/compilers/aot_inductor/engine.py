"""The `engine` step: a decoder's structure, or with embedded weights a model, becomes a package of machine code.

model.pt2      see `manifest`
engine.json    what it is, and how it is fed

The code is made from a module whose weights are made up, compared with it on a few tokens, and published without them:
it serves every model of that structure. PyTorch's own caches, and all that it writes, lie in the worker's folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from trtbuild.compilers import cuda
from trtbuild.compilers.aot_inductor import manifest, package, package_loader
from trtbuild.compilers.aot_inductor.structure import Structure, WeightScheme, tensors
from trtbuild.errors import BuildError
from trtbuild.processes import programs
from trtbuild.worker import Reporter, StepRequest

COMPILING = (
    "trtbuild.compilers.aot_inductor.export"  # imported late: torch reads the variables that are set here
)


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Build the package in the folder `out`; returns what it is. Options are the facts of the step's key.

    Raises BuildError where there is no C++ compiler, the hardware is another, the compiler fails, or what it made does
    not say what the module says.
    """
    options = request.options
    device = "cuda" if options["target.kind"] == "cuda" else "cpu"
    compiler = _cxx()
    _check_machine(options, device)
    weights = request.inputs.get("weights")
    with tempfile.TemporaryDirectory(prefix="engine-", dir=out.parent) as scratch:
        _settle_in(Path(scratch), compiler, _level(options))
        package_loader.make_ready(device)
        compiling = importlib.import_module(COMPILING)
        made = compiling.compile_to(out / manifest.PACKAGE, Path(scratch), options, device, weights, reporter)
    structure, scheme = Structure.read(options), WeightScheme.read(options)
    about = {
        "package": manifest.PACKAGE,
        "weights": None if weights else manifest.WEIGHTS,
        "torch": metadata.version("torch"),
        "cuda": made.cuda,
        "device": device,
        "level": options.get("target.level"),
        "compute_capability": options.get("target.compute_capability"),
        "compiler": _version(compiler),
        "dtype": scheme.dtype,
        "cache_dtype": made.cache_dtype,
        "scheme": {
            "weights": scheme.weights,
            "group_size": scheme.group_size,
            "embedding": scheme.embedding,
        },
        "structure": asdict(structure),
        "scalars": dict(made.scalars),
        "limits": {name: options[f"profile.{name}"] for name in ("max_input_len", "max_seq_len")},
        "constants": {
            name: {"dtype": each.dtype, "shape": list(each.shape), "packed": each.dtype == "uint8"}
            for name, each in tensors(structure, scheme).items()
        },
    }
    manifest.write(about, out)
    if weights is not None:
        for path in sorted(weights.iterdir()):
            if path.name != manifest.WEIGHTS:
                shutil.copyfile(path, out / path.name)
    return {
        "executed": made.compared is not None,
        "bytes": (out / manifest.PACKAGE).stat().st_size,
        "compared": made.compared,
        "seconds": made.seconds,
        "engine": {**about, "constants": len(about["constants"])},
    }


def _cxx() -> str:
    """The C++ compiler: $CXX, else g++. Raises BuildError."""
    asked = os.environ.get("CXX", "g++")
    found = programs.find(asked)
    if found is None:
        raise BuildError(
            f"compiling needs a C++ compiler, and there is no {asked} here",
            hint="install it: apt-get install g++, or dnf install gcc-c++; another one is taken from CXX, which "
            "executor.env=[CXX] passes on",
        )
    return found


def _version(compiler: str) -> str:
    done = subprocess.run(
        [compiler, "--version"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=programs.cleaned(),
    )
    return done.stdout.partition("\n")[0][:200]


def _check_machine(options: Mapping[str, Any], device: str) -> None:
    if device == "cuda":
        gpu, missing = cuda.find()
        wanted = options["target.compute_capability"]
        if gpu is None or gpu.capability != wanted:
            here = missing if gpu is None else f"the {gpu.name} here has {gpu.capability}"
            raise BuildError(f"the engine is for compute capability {wanted}, and {here}")
    elif platform.machine() != options["target.arch"]:
        raise BuildError(
            f"the engine is for {options['target.arch']}, and this machine is {platform.machine()}"
        )


def _settle_in(stage: Path, compiler: str, level: str | None) -> None:
    """Everything that PyTorch and Triton write goes to `stage`, and no setting of the caller's reaches them."""
    for name in [name for name in os.environ if name.startswith(("TORCH", "AOT_INDUCTOR", "TRITON_"))]:
        del os.environ[name]
    os.environ |= {
        "TORCHINDUCTOR_CACHE_DIR": str(stage / "inductor"),
        "TRITON_CACHE_DIR": str(stage / "triton"),
        "CXX": str(package.wrapped(compiler, stage, _torch(), level)),
    }


def _level(options: Mapping[str, Any]) -> str | None:
    """Of the CPU that the code runs on: beside a GPU, any of its kind."""
    if options["target.kind"] == "cpu":
        return str(options["target.level"])
    return "x86_64_v2" if options["target.arch"] == "x86_64" else None


def _torch() -> Path:
    """Where torch lies, which is not imported yet."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise BuildError("torch is not installed here")
    return Path(found.origin).parent
