"""Provenance of a build in its record (https://slsa.dev/spec/v1.0/provenance): written here, and parsed again."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trtbuild
from trtbuild.executors.process import WorkerResult
from trtbuild.facts.recipe import Model
from trtbuild.planning.plan import Plan, PlannedStep
from trtbuild.redact import redact, redact_json
from trtstore import Record

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:trtbuild:step:v1"
INPUT = "input."  # the prefix of fields and dependencies that are upstream steps
KEY_URI = "urn:trtstore:key:"
LOCK = "toolchain-"  # the prefix of attachments that hold the locks of steps


def predicate(
    planned: PlannedStep,
    plan: Plan,
    ran: WorkerResult,
    check: Mapping[str, Any] | None,
    started: float,
    ended: float,
) -> dict[str, Any]:
    """Provenance of a step that ran; `started` and `ended` are seconds since the epoch."""
    materials = [_upstream(up) for up in planned.chain[:-1]]
    if any(step.step.reads_model for step in planned.chain):
        materials.append(_model(plan.recipe.model))
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
        "trtbuild_stats": {
            "seconds": round(ran.seconds, 3),
            "peak_memory_bytes": ran.peak_memory_bytes,
            "model_bytes": plan.recipe.model.bytes,
        },
        "trtbuild_facts": redact_json(ran.facts),
        "trtbuild_toolchain": {"executor": ran.executor, "packages": planned.packages},
        "trtbuild_check": None if check is None else redact_json(check),
    }


def _upstream(up: PlannedStep) -> dict[str, Any]:
    """An upstream step as a dependency, with its fields: so one record says how to build the whole chain."""
    return {
        "name": INPUT + up.name,
        "uri": KEY_URI + up.key,
        "annotations": {"fields": _plain(up.fields), "packages": up.packages},
    }


def _model(model: Model) -> dict[str, Any]:
    files = [list(file) for file in model.files]
    pins = {} if model.pins is None else {"wheel": dict(model.pins)}
    return {
        "name": "model",
        "uri": redact(model.origin),
        "digest": {"sha256": model.identity},
        "annotations": {"files": files, **pins},
    }


def download(fields: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Provenance of a checkpoint that was downloaded into the store."""
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": _plain(fields),
            "resolvedDependencies": [{"name": "model", "uri": redact(origin)}],
        },
        "runDetails": {"builder": {"id": f"urn:trtbuild:{trtbuild.__version__}"}},
    }


@dataclass(frozen=True)
class ParsedProvenance:
    """How a record says that it was made; treat the mappings as read-only.

    `fields` maps the name of each step to the fields of its key, upstream first and the record's own step last; `keys`
    maps it to the key. `files` maps the checkpoint's paths to SHA-256. `packages` maps each step to the packages of its
    toolchain, with versions. A mapping is empty if the record does not say.
    """

    fields: Mapping[str, Mapping[str, Any]]
    keys: Mapping[str, str]
    origin: str | None
    files: Mapping[str, str]
    pins: Mapping[str, Any] | None
    built: str | None  # when, as ISO 8601
    builder: str | None
    packages: Mapping[str, Mapping[str, Any]]


def parse(record: Record) -> ParsedProvenance:
    """Parses what `predicate` wrote. Raises nothing: a record of another program may lack any part of it."""
    definition = _object(record.predicate.get("buildDefinition"))
    details = _object(record.predicate.get("runDetails"))
    fields: dict[str, Mapping[str, Any]] = {}
    keys: dict[str, str] = {}
    packages: dict[str, Mapping[str, Any]] = {}
    model: Mapping[str, Any] = {}
    listed = definition.get("resolvedDependencies")
    for item in listed if isinstance(listed, list) else []:
        dependency = _object(item)
        name, uri = str(dependency.get("name")), str(dependency.get("uri"))
        if name == "model":
            model = dependency
        elif name.startswith(INPUT) and uri.startswith(KEY_URI):
            step = name.removeprefix(INPUT)
            fields[step] = _object(_object(dependency.get("annotations")).get("fields"))
            packages[step] = _object(_object(dependency.get("annotations")).get("packages"))
            keys[step] = uri.removeprefix(KEY_URI)
    own = _object(definition.get("externalParameters"))
    step = str(own.get("step.name"))
    notes = _object(model.get("annotations"))
    return ParsedProvenance(
        fields={**fields, step: own} if own else fields,
        keys={**keys, step: record.key},
        origin=str(model["uri"]) if "uri" in model else None,
        files=_files(notes.get("files")),
        pins=_object(notes.get("wheel")) or None,
        built=_text(_object(details.get("metadata")).get("finishedOn")),
        builder=_text(_object(details.get("builder")).get("id")),
        packages={
            **packages,
            step: _object(_object(record.predicate.get("trtbuild_toolchain")).get("packages")),
        },
    )


def stats(record: Record) -> Mapping[str, Any]:
    """{"seconds", "peak_memory_bytes", "model_bytes"} of the build, as far as the record says."""
    return _object(record.predicate.get("trtbuild_stats"))


def loss(record: Record) -> Mapping[str, float] | None:
    """{"original", "quantized", "tokens"}: mean losses on a text, in nats per token; None if none were measured."""
    losses = _object(_object(record.predicate.get("trtbuild_facts")).get("loss"))
    names = ("original", "quantized", "tokens")
    if not all(isinstance(losses.get(name), int | float) for name in names):
        return None
    return {name: losses[name] for name in names}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _files(value: Any) -> dict[str, str]:
    rows = value if isinstance(value, list) else []
    return {str(row[0]): str(row[2]) for row in rows if isinstance(row, list) and len(row) == 3}


def check(record: Record) -> Mapping[str, Any] | None:
    """What the check measured before the record was published; None if it was switched off."""
    facts = record.predicate.get("trtbuild_check")
    return facts if isinstance(facts, Mapping) else None


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
