"""The check of a new engine with its weights, and `trtbuild run`: where this machine fits, it speaks."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild.compilers.aot_inductor import link, manifest, package_loader
from trtbuild.compilers.sampling import check_repetition
from trtbuild.errors import InputError
from trtbuild.worker import Reporter, StepRequest

INFERENCE = "trtbuild.compilers.aot_inductor.inference"  # imported where the engine fits: it imports torch


def check(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Compare the weights of the engine `request.inputs["engine"]` with what it wants, and let it speak greedily.

    Options: `prompt`, `max_tokens`, `raw`. Returns how it did, or `executed: False` with the reason. Raises BuildError
    when its files are not what they should be, or when what it says cannot be right.
    """
    folder = request.inputs["engine"]
    made = _read(folder)
    why = package_loader.refusal(made)
    if why is not None:
        return {"executed": False, "why": why, "verified": ["names, types and shapes of the weights"]}
    spoken = _speak(folder, made, request.options, lambda _: None)
    check_repetition(spoken)
    return spoken


def generate(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Text from the engine `request.inputs["engine"]`, streamed; returns the same facts as `check`.

    Options: as `check`, and `temperature` (0: greedy), `top_p`, `seed`. Raises InputError where this machine cannot run
    the engine, before it is opened.
    """
    folder = request.inputs["engine"]
    made = _read(folder)
    why = package_loader.refusal(made)
    if why is not None:
        raise InputError(
            f"this machine cannot run the engine: {why}",
            option="target",
            hint="`trtbuild plan` with target=auto shows the key of the engine that fits this machine",
        )
    return _speak(folder, made, request.options, reporter.text)


def _read(folder: Path) -> dict[str, Any]:
    made = manifest.read(folder)
    if made["weights"] is not None:
        link.check(made["constants"], folder / made["weights"])
    return made


def _speak(folder: Path, made: Mapping[str, Any], options: Mapping[str, Any], on_text: Any) -> dict[str, Any]:
    package_loader.make_ready(made["device"])
    spoken: dict[str, Any] = importlib.import_module(INFERENCE).generate_text(folder, made, options, on_text)
    return spoken
