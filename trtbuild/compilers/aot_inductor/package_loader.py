"""An engine before it is opened, and as it is: a package is native code, which runs when it is loaded."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from trtbuild.compilers import cuda
from trtbuild.errors import BuildError
from trtbuild.worker import matches

#: numpy's names of what a level of CPUs has (`__cpu_features__`, for which it asks the CPU itself).
_FEATURES = {
    "x86_64_v3": ("AVX2", "FMA3", "F16C"),
    "x86_64_v4": ("AVX2", "FMA3", "F16C", "AVX512F", "AVX512CD", "AVX512_SKX"),
}
_STATIC_RUNTIME = "2.11."  # of torch: its packages for GPUs hold a C++ library of their own


def refusal(made: Mapping[str, Any]) -> str | None:
    """Why this machine cannot run the engine that engine.json describes; None where nothing speaks against it.

    Nothing of the engine is opened.
    """
    if made["device"] == "cuda":
        gpu, missing = cuda.find()
        if gpu is None:
            return f"it is for compute capability {made['compute_capability']}, and {missing}"
        if gpu.capability != made["compute_capability"]:
            return (
                f"it is for compute capability {made['compute_capability']}, and the {gpu.name} here has "
                f"{gpu.capability}"
            )
        has = torch_cuda()
        if has != made["cuda"]:
            return f"it was compiled with CUDA {made['cuda']}, and the torch here is for {has or 'no CUDA'}"
    else:
        why = level_refusal(made["level"])
        if why is not None:
            return why
    here = metadata.version("torch")
    exact = made["torch"] if made["device"] == "cuda" else made["torch"].partition("+")[0]
    if not matches(here, exact):
        return f"it was compiled with torch {made['torch']}, and {here} is installed here"
    return None


def level_refusal(level: str) -> str | None:
    """Why this CPU cannot run code for `level`."""
    features: Mapping[str, bool] = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    group = "X86_" + level.rpartition("_")[2].upper()  # how numpy 2.4 and later group them
    if group in features:
        lacking = [] if features[group] else [level]
    else:
        lacking = [name for name in _FEATURES[level] if not features.get(name, False)]
    if lacking:
        return f"it is for {level}, and the CPU here lacks {', '.join(lacking)}"
    return None


def torch_cuda() -> str | None:
    """The release of CUDA that torch is for, as it says itself, without importing it; None for a CPU's."""
    found = importlib.util.find_spec("torch")
    place = None if found is None else found.origin
    text = "" if place is None else Path(place).with_name("version.py").read_text(encoding="utf-8")
    said = re.search(r"^cuda(?:: [^=]+)? = '([^']+)'", text, re.MULTILINE)
    return None if said is None else said[1]


def make_ready(device: str) -> None:
    """See to it that a package finds the C++ library that torch uses, before torch is imported.

    Those of torch 2.11 hold a copy of their own for GPUs, and crash in it (std::regex) unless the system's comes first.
    """
    if device == "cuda" and metadata.version("torch").startswith(_STATIC_RUNTIME):
        assert "torch" not in sys.modules  # noqa: S101  # it would be too late
        ctypes.CDLL("libstdc++.so.6", mode=ctypes.RTLD_GLOBAL)


def open_package(path: Path) -> Any:
    """The package's loader; its code is loaded. Raises BuildError.

    Not torch._inductor.aoti_load_package, which starts a C++ compiler to look at the CPU, and warns where this checks.
    """
    found = importlib.import_module("torch._C._aoti")
    try:
        return found.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    except RuntimeError as error:
        raise BuildError(f"{path.name} cannot be loaded: {str(error).splitlines()[0]}") from None


def read(path: Path, device: str) -> dict[str, Any]:
    """The tensors of a weights' file, as code on `device` wants them, and there. Raises BuildError."""
    torch = importlib.import_module("safetensors.torch")
    pack = importlib.import_module("trtbuild.compilers.aot_inductor.device_constants").pack
    try:
        stored = torch.load_file(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise BuildError(f"{path.name} cannot be read: {error}") from None
    return {name: pack(tensor, device) for name, tensor in stored.items()}


def scalars(named: Mapping[str, int], device: str) -> dict[str, Any]:
    """What engine.json calls so, as tensors."""
    torch = importlib.import_module("torch")
    return {name: torch.tensor(value, device=device) for name, value in named.items()}


def give(package: Any, tensors: Mapping[str, Any]) -> None:
    """Hand a package that holds none its weights, which must be just those that it wants. Raises BuildError."""
    if not tensors:
        return
    odd = sorted(set(package.get_constant_fqns()) ^ set(tensors))
    if odd:
        raise BuildError(f"the package and its weights do not fit: {odd[0]} is in one of them alone")
    package.load_constants(dict(tensors), False, True, True)
