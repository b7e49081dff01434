"""What a record says of a build: SLSA provenance (https://slsa.dev/spec/v1.0/provenance), and how to read it back."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import trtbuild
from trtbuild.executors.process import Ran
from trtbuild.plan import Plan, Planned
from trtstore import Record

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:trtbuild:step:v1"


def labels(planned: Planned, plan: Plan) -> dict[str, str]:
    """For people and filters; never in a key."""
    recipe = plan.recipe
    return {
        "step": planned.name,
        "model": recipe.model.label,
        "quant": recipe.quant.scheme,
        "target": recipe.target.name,
        "compiler": recipe.tools.name,
    }


def predicate(
    planned: Planned, plan: Plan, ran: Ran, check: Mapping[str, Any] | None, started: float, ended: float
) -> dict[str, Any]:
    """Provenance of a step that ran; `started` and `ended` are seconds since the epoch."""
    materials: list[dict[str, Any]] = [
        {"name": f"input.{up.name}", "uri": f"urn:trtstore:key:{up.key}"} for up in planned.inputs
    ]
    if planned.step.reads_model:
        model = plan.recipe.model
        materials.append({"name": "model", "uri": model.origin, "digest": {"sha256": model.identity}})
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": _plain(planned.fields),
            "resolvedDependencies": materials,
        },
        "runDetails": {
            "builder": {"id": f"urn:trtbuild:{trtbuild.__version__}"},
            "metadata": {"startedOn": _time(started), "finishedOn": _time(ended)},
        },
        "trtbuild_stats": {"seconds": round(ran.seconds, 3), "peak_memory_bytes": ran.peak_memory_bytes},
        "trtbuild_facts": dict(ran.facts),
        "trtbuild_check": None if check is None else dict(check),
    }


def download(fields: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Provenance of a checkpoint that was downloaded into the store."""
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": _plain(fields),
            "resolvedDependencies": [{"name": "model", "uri": origin}],
        },
        "runDetails": {"builder": {"id": f"urn:trtbuild:{trtbuild.__version__}"}},
    }


def stats(record: Record) -> Mapping[str, Any]:
    """{"seconds", "peak_memory_bytes"} of the build that made the record; empty where it does not say."""
    found = record.predicate.get("trtbuild_stats")
    return found if isinstance(found, Mapping) else {}


def check(record: Record) -> Mapping[str, Any] | None:
    """What the check saw before the record was published; None where none was asked for."""
    found = record.predicate.get("trtbuild_check")
    return found if isinstance(found, Mapping) else None


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
