"""The check of a new engine with its weights, and `trtbuild run`. A check runs the engine if this machine fits it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild.compilers.aot_inductor import link, manifest, package_loader
from trtbuild.compilers.sampling import check_repetition
from trtbuild.errors import InputError
from trtbuild.worker import Reporter, StepRequest

INFERENCE = "trtbuild.compilers.aot_inductor.inference"  # imported only if the engine fits: it imports torch


def check(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Compare the engine `request.inputs["engine"]` with its weights, and generate greedily if this machine fits it.

    Options: `prompt`, `max_tokens`, `raw`. Returns facts for the record, or `executed: False` with the reason. Raises
    BuildError if its files do not fit each other, or its answer is broken.
    """
    folder = request.inputs["engine"]
    about = _read(folder)
    why = package_loader.refusal(about)
    if why is not None:
        return {"executed": False, "why": why, "verified": ["names, types and shapes of the weights"]}
    answer = _generate_text(folder, about, request.options, lambda _: None)
    check_repetition(answer["token_ids"], answer["text"])
    return answer


def generate(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Generate with the engine `request.inputs["engine"]`, streamed; returns the same facts as `check`.

    Options: those of `check`, and `temperature` (0: greedy), `top_p`, `seed`. Raises InputError, before the engine is
    opened, if this machine cannot run it.
    """
    folder = request.inputs["engine"]
    about = _read(folder)
    why = package_loader.refusal(about)
    if why is not None:
        raise InputError(
            f"this machine cannot run the engine: {why}",
            option="target",
            hint="`trtbuild plan` with target=auto shows the key of the engine that fits this machine",
        )
    return _generate_text(folder, about, request.options, reporter.text)


def _read(folder: Path) -> dict[str, Any]:
    about = manifest.read(folder)
    if about["weights"] is not None:
        link.check(about["constants"], folder / about["weights"])
    return about


def _generate_text(folder: Path, about: Mapping[str, Any], options: Mapping[str, Any], on_text: Any) -> dict[str, Any]:
    package_loader.make_ready(about["device"])
    answer: dict[str, Any] = importlib.import_module(INFERENCE).generate_text(folder, about, options, on_text)
    return answer
