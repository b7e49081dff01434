"""Decides whether this machine can run a package, and loads it. A package is native code, which runs when loaded."""

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

#: numpy's names of the features of a CPU level (`__cpu_features__`, which it reads from the CPU).
_FEATURES = {
    "x86_64_v3": ("AVX2", "FMA3", "F16C"),
    "x86_64_v4": ("AVX2", "FMA3", "F16C", "AVX512F", "AVX512CD", "AVX512_SKX"),
}
_STATIC_RUNTIME = "2.11."  # release of torch whose packages for GPUs contain a C++ library


def refusal(about: Mapping[str, Any]) -> str | None:
    """Why this machine cannot run the engine that engine.json describes; None if it can.

    Opens no file of the engine.
    """
    if about["device"] == "cuda":
        gpu, missing = cuda.find()
        if gpu is None:
            return f"it is for compute capability {about['compute_capability']}, and {missing}"
        if gpu.capability != about["compute_capability"]:
            return (
                f"it is for compute capability {about['compute_capability']}, and the {gpu.name} here has "
                f"{gpu.capability}"
            )
        has = torch_cuda()
        if has != about["cuda"]:
            return f"it was compiled with CUDA {about['cuda']}, and the torch here is for {has or 'no CUDA'}"
    else:
        why = level_refusal(about["level"])
        if why is not None:
            return why
    here = metadata.version("torch")
    exact = about["torch"] if about["device"] == "cuda" else about["torch"].partition("+")[0]
    if not matches(here, exact):
        return f"it was compiled with torch {about['torch']}, and {here} is installed here"
    return None


def level_refusal(level: str) -> str | None:
    """Why this CPU cannot run code for `level`; None if it can."""
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
    """The CUDA release of the installed torch, without importing it; None if it is for CPUs."""
    spec = importlib.util.find_spec("torch")
    origin = None if spec is None else spec.origin
    text = "" if origin is None else Path(origin).with_name("version.py").read_text(encoding="utf-8")
    release = re.search(r"^cuda(?:: [^=]+)? = '([^']+)'", text, re.MULTILINE)
    return None if release is None else release[1]


def make_ready(device: str) -> None:
    """Load the system's C++ library, before torch is imported, if packages for `device` need it.

    GPU packages of torch 2.11 contain a copy, in which they crash (std::regex) unless the system's is loaded first.
    """
    if device == "cuda" and metadata.version("torch").startswith(_STATIC_RUNTIME):
        assert "torch" not in sys.modules  # noqa: S101  # it would be too late
        ctypes.CDLL("libstdc++.so.6", mode=ctypes.RTLD_GLOBAL)


def open_package(path: Path) -> Any:
    """Load the package's code; returns its loader. Raises BuildError if it does not load.

    Not by torch._inductor.aoti_load_package, which starts a C++ compiler to look at the CPU, and only warns.
    """
    aoti = importlib.import_module("torch._C._aoti")
    try:
        return aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    except RuntimeError as error:
        raise BuildError(f"{path.name} cannot be loaded: {str(error).splitlines()[0]}") from None


def read(path: Path, device: str) -> dict[str, Any]:
    """The tensors of a weights file on `device`, as the code there wants them. Raises BuildError."""
    torch = importlib.import_module("safetensors.torch")
    pack = importlib.import_module("trtbuild.compilers.aot_inductor.device_constants").pack
    try:
        stored = torch.load_file(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise BuildError(f"{path.name} cannot be read: {error}") from None
    return {name: pack(tensor, device) for name, tensor in stored.items()}


def scalars(values: Mapping[str, int], device: str) -> dict[str, Any]:
    """The `scalars` of engine.json as tensors on `device`."""
    torch = importlib.import_module("torch")
    return {name: torch.tensor(value, device=device) for name, value in values.items()}


def give(package: Any, tensors: Mapping[str, Any]) -> None:
    """Give a package without weights exactly the tensors that it wants; nothing if `tensors` is empty. BuildError."""
    if not tensors:
        return
    odd = sorted(set(package.get_constant_fqns()) ^ set(tensors))
    if odd:
        raise BuildError(f"the package and its weights do not fit: {odd[0]} is in one of them alone")
    package.load_constants(dict(tensors), False, True, True)
