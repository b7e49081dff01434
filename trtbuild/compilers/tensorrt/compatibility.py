"""Verifies an engine's files, and decides before it is loaded whether this machine can run it. No GPU is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild.compilers.cuda import CudaFacts
from trtbuild.compilers.tensorrt import header
from trtbuild.errors import BuildError

_PORTABLE_FROM = (8, 0)


def verify(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Compare an engine's files with engine.json; returns a line for each file on what was compared.

    Raises BuildError if they differ: a plan is truncated, or is for other hardware or another release.
    """
    verified = []
    for engine in manifest["engines"]:
        path = folder / engine["file"]
        if not path.is_file():
            raise BuildError(f"the engine lacks {engine['file']}")
        with path.open("rb") as stream:
            plan = header.read(stream.read(header.SIZE))
        if manifest["compiler"] == "tensorrt_rtx" and plan is not None:
            _compare(path, plan, manifest)
            verified.append(f"{path.name}: header, size, release and compute capability")
        elif not path.stat().st_size:
            raise BuildError(f"{path.name} is empty")
        else:
            verified.append(f"{path.name}: not empty")
    return verified


def _compare(path: Path, plan: header.EngineHeader, manifest: Mapping[str, Any]) -> None:
    size, capability = path.stat().st_size, manifest["compute_capability"]
    if plan.size != size:
        raise BuildError(f"{path.name} has {size} bytes, and its header says {plan.size}: it is cut off or damaged")
    if plan.release != manifest["release"]:
        raise BuildError(f"{path.name} is of release {plan.release}, and engine.json says {manifest['release']}")
    wanted = (capability,) if capability is not None else header.CAPABILITIES[1:]
    if plan.capabilities != wanted:
        raise BuildError(
            f"{path.name} is for compute capability {', '.join(plan.capabilities)}, and engine.json says "
            f"{', '.join(wanted)}"
        )


def gpu_refusal(manifest: Mapping[str, Any], gpu: CudaFacts) -> str | None:
    """Why `gpu` cannot run the engine; None if it can."""
    capability, tuned = manifest["compute_capability"], manifest["options"]
    here = tuple(int(part) for part in gpu.capability.split("."))
    later = capability is None or tuned.get("hardware_compatibility") == "ampere_plus"
    if later and here < _PORTABLE_FROM:
        return f"the engine runs from compute capability 8.0 on, and the {gpu.name} here has {gpu.capability}"
    if not later and gpu.capability != capability:
        return f"the engine is for compute capability {capability}, and the {gpu.name} here has {gpu.capability}"
    return None


def release_refusal(manifest: Mapping[str, Any], release: str) -> str | None:
    """Why the library of `release` cannot load the engine; None if it can."""
    built = manifest["release"]
    if manifest["options"].get("version_compatible"):
        if _numbers(release) < _numbers(built):
            return f"the engine was built with release {built}, and {release} here is older"
    elif release != built:
        return f"the engine was built with release {built}, and {release} is installed here"
    return None


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".") if part.isdigit())
