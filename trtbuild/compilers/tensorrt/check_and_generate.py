"""The check of a new engine, and `trtbuild run`: where a GPU fits the engine speaks, else what can be said is said."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild.compilers import cuda as device
from trtbuild.compilers.sampling import check_repetition
from trtbuild.compilers.tensorrt import compatibility, manifest
from trtbuild.compilers.tensorrt.builder import MODULES
from trtbuild.errors import BuildError, InputError
from trtbuild.worker import Reporter, StepRequest

INFERENCE = (
    "trtbuild.compilers.tensorrt.inference"  # imported where a GPU fits: it needs tokenizers and jinja2
)


def check(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Verify the engine `request.inputs["engine"]`, and let it speak greedily if the GPU here fits it.

    Options: `prompt`, `max_tokens`, `raw`. Returns how it did, or `executed: False` with the reason. Raises BuildError
    when its files are not what they should be, or when what it says cannot be right.
    """
    folder = request.inputs["engine"]
    made = manifest.read(folder)
    held = compatibility.verify(folder, made)
    why = _refusal(made)
    if why is not None:
        if made["compiler"] == "tensorrt":  # it was built on this machine: it has to run here
            raise BuildError(f"the engine cannot be loaded where it was built: {why}")
        return {"executed": False, "why": why, "verified": held}
    spoken: dict[str, Any] = importlib.import_module(INFERENCE).generate_text(
        folder, made, request.options, lambda _: None
    )
    check_repetition(spoken)
    return {**spoken, "verified": held}


def generate(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Text from the engine `request.inputs["engine"]`, streamed; returns the same facts as `check`.

    Options: as `check`, and `temperature` (0: greedy), `top_p`, `seed`. Raises InputError where this machine cannot run
    the engine, before it is loaded.
    """
    folder = request.inputs["engine"]
    made = manifest.read(folder)
    why = _refusal(made)
    if why is not None:
        raise InputError(
            f"this machine cannot run the engine: {why}",
            option="target",
            hint="copy the engine's folder to a machine that fits; engine.json in it says how it is fed",
        )
    compatibility.verify(folder, made)
    spoken: dict[str, Any] = importlib.import_module(INFERENCE).generate_text(
        folder, made, request.options, reporter.text
    )
    return spoken


def _refusal(made: Mapping[str, Any]) -> str | None:
    """Why the engine is not loaded here; None where a GPU and a library fit."""
    gpu, missing = device.find()
    if gpu is None:
        return f"{_wanted(made)}, and {missing}"
    why = compatibility.gpu_refusal(made, gpu)
    if why is not None:
        return why  # whether its library is installed or not
    return compatibility.release_refusal(
        made, str(importlib.import_module(MODULES[made["compiler"]]).__version__)
    )


def _wanted(made: Mapping[str, Any]) -> str:
    capability = made["compute_capability"]
    return "it is for compute capability " + ("8.0 and later" if capability is None else capability)
