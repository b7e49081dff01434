"""The check of a new engine, and `trtbuild run`. Without a fitting GPU a check only verifies the engine's files."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild.compilers import cuda
from trtbuild.compilers.sampling import check_repetition
from trtbuild.compilers.tensorrt import compatibility, manifest
from trtbuild.compilers.tensorrt.builder import MODULES
from trtbuild.errors import BuildError, InputError
from trtbuild.worker import Reporter, StepRequest

#: Imported only if a GPU fits: it needs tokenizers and jinja2.
INFERENCE = "trtbuild.compilers.tensorrt.inference"


def check(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Verify the engine `request.inputs["engine"]`, and generate greedily with it if this machine's GPU fits.

    Options: `prompt`, `max_tokens`, `raw`. Returns facts for the record, or `executed: False` with the reason. Raises
    BuildError if its files do not match engine.json, or its answer is broken.
    """
    folder = request.inputs["engine"]
    about = manifest.read(folder)
    verified = compatibility.verify(folder, about)
    why = _refusal(about)
    if why is not None:
        if about["compiler"] == "tensorrt":  # built on this machine: it must run here
            raise BuildError(f"the engine cannot be loaded where it was built: {why}")
        return {"executed": False, "why": why, "verified": verified}
    answer: dict[str, Any] = importlib.import_module(INFERENCE).generate_text(
        folder, about, request.options, lambda _: None
    )
    check_repetition(answer["token_ids"], answer["text"])
    return {**answer, "verified": verified}


def generate(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Generate with the engine `request.inputs["engine"]`, streamed; returns the same facts as `check`.

    Options: those of `check`, and `temperature` (0: greedy), `top_p`, `seed`. Raises InputError, before the engine is
    loaded, if this machine cannot run it.
    """
    folder = request.inputs["engine"]
    about = manifest.read(folder)
    why = _refusal(about)
    if why is not None:
        raise InputError(
            f"this machine cannot run the engine: {why}",
            option="target",
            hint="copy the engine's folder to a machine that fits; engine.json in it says how it is fed",
        )
    compatibility.verify(folder, about)
    answer: dict[str, Any] = importlib.import_module(INFERENCE).generate_text(
        folder, about, request.options, reporter.text
    )
    return answer


def _refusal(about: Mapping[str, Any]) -> str | None:
    """Why this machine cannot run the engine; None if its GPU and library fit."""
    gpu, missing = cuda.find()
    if gpu is None:
        return f"{_wanted(about)}, and {missing}"
    why = compatibility.gpu_refusal(about, gpu)
    if why is not None:
        return why  # before the library is imported, which may not be installed
    return compatibility.release_refusal(about, str(importlib.import_module(MODULES[about["compiler"]]).__version__))


def _wanted(about: Mapping[str, Any]) -> str:
    capability = about["compute_capability"]
    return "it is for compute capability " + ("8.0 and later" if capability is None else capability)
