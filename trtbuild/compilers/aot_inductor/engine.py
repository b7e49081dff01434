"""The `engine` step: compiles a decoder's structure, or with embedded weights a model, to a package of machine code.

model.pt2      see `manifest`
engine.json    what it is, and how it is called

The code is compiled from a module with random weights, compared with it on a few tokens, and stored without weights: it
serves every model of that structure. PyTorch writes its caches and everything else to the worker's own folder.
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

#: Imported late: torch reads the environment variables that are set here.
EXPORT = "trtbuild.compilers.aot_inductor.export"


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Build the package in the folder `out`; returns facts for the record. Options are the facts of the step's key.

    Raises BuildError if there is no C++ compiler, the hardware is not that of the key, the compiler fails, or the
    package gives other logits than the module.
    """
    options = request.options
    device = "cuda" if options["target.kind"] == "cuda" else "cpu"
    compiler = _cxx()
    _check_machine(options, device)
    weights = request.inputs.get("weights")
    with tempfile.TemporaryDirectory(prefix="engine-", dir=out.parent) as scratch:
        _set_environment(Path(scratch), compiler, _level(options))
        package_loader.make_ready(device)
        export = importlib.import_module(EXPORT)
        compiled = export.compile_to(out / manifest.PACKAGE, Path(scratch), options, device, weights, reporter)
    structure, scheme = Structure.read(options), WeightScheme.read(options)
    about = {
        "package": manifest.PACKAGE,
        "weights": None if weights else manifest.WEIGHTS,
        "torch": metadata.version("torch"),
        "cuda": compiled.cuda,
        "device": device,
        "level": options.get("target.level"),
        "compute_capability": options.get("target.compute_capability"),
        "compiler": _version(compiler),
        "dtype": scheme.dtype,
        "cache_dtype": compiled.cache_dtype,
        "scheme": {
            "weights": scheme.weights,
            "group_size": scheme.group_size,
            "embedding": scheme.embedding,
        },
        "structure": asdict(structure),
        "scalars": dict(compiled.scalars),
        "limits": {name: options[f"profile.{name}"] for name in ("max_input_len", "max_seq_len")},
        "constants": {
            name: {"dtype": spec.dtype, "shape": list(spec.shape), "packed": spec.dtype == "uint8"}
            for name, spec in tensors(structure, scheme).items()
        },
    }
    manifest.write(about, out)
    if weights is not None:
        for path in sorted(weights.iterdir()):
            if path.name != manifest.WEIGHTS:
                shutil.copyfile(path, out / path.name)
    return {
        "executed": compiled.compared is not None,
        "bytes": (out / manifest.PACKAGE).stat().st_size,
        "compared": compiled.compared,
        "seconds": compiled.seconds,
        "engine": {**about, "constants": len(about["constants"])},
    }


def _cxx() -> str:
    """The C++ compiler: $CXX, else g++. Raises BuildError."""
    name = os.environ.get("CXX", "g++")
    path = programs.find(name)
    if path is None:
        raise BuildError(
            f"compiling needs a C++ compiler, and there is no {name} here",
            hint="install it: apt-get install g++, or dnf install gcc-c++; another one is taken from CXX, which "
            "executor.env=[CXX] passes on",
        )
    return path


def _version(compiler: str) -> str:
    finished = subprocess.run(
        [compiler, "--version"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=programs.cleaned(),
    )
    return finished.stdout.partition("\n")[0][:200]


def _check_machine(options: Mapping[str, Any], device: str) -> None:
    if device == "cuda":
        gpu, missing = cuda.find()
        wanted = options["target.compute_capability"]
        if gpu is None or gpu.capability != wanted:
            here = missing if gpu is None else f"the {gpu.name} here has {gpu.capability}"
            raise BuildError(f"the engine is for compute capability {wanted}, and {here}")
    elif platform.machine() != options["target.arch"]:
        raise BuildError(f"the engine is for {options['target.arch']}, and this machine is {platform.machine()}")


def _set_environment(stage: Path, compiler: str, level: str | None) -> None:
    """Make PyTorch and Triton write everything to `stage`, and read no settings from the caller's environment."""
    for name in [name for name in os.environ if name.startswith(("TORCH", "AOT_INDUCTOR", "TRITON_"))]:
        del os.environ[name]
    os.environ |= {
        "TORCHINDUCTOR_CACHE_DIR": str(stage / "inductor"),
        "TRITON_CACHE_DIR": str(stage / "triton"),
        "CXX": str(package.wrapped(compiler, stage, _torch(), level)),
    }


def _level(options: Mapping[str, Any]) -> str | None:
    """The level of CPU that host code is compiled for: the target's, or beside a GPU one that any CPU has."""
    if options["target.kind"] == "cpu":
        return str(options["target.level"])
    return "x86_64_v2" if options["target.arch"] == "x86_64" else None


def _torch() -> Path:
    """The folder of torch, without importing it. Raises BuildError if it is not installed."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError("torch is not installed here")
    return Path(spec.origin).parent
