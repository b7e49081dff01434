"""What a record says of a build: SLSA provenance (https://slsa.dev/spec/v1.0/provenance), and how to read it back."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trtbuild
from trtbuild.executors.process import WorkerResult
from trtbuild.facts.recipe import Model
from trtbuild.planning.plan import Plan, Planned
from trtbuild.redact import clean, redact
from trtstore import NEEDS, Record

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:trtbuild:step:v1"
INPUT = "input."  # the prefix of fields and dependencies that are upstream steps
KEY_URI = "urn:trtstore:key:"
LOCK = "toolchain-"  # the prefix of attachments that are the locks of steps


def labels(planned: Planned, plan: Plan) -> dict[str, str]:
    """For people and filters; never in a key."""
    recipe = plan.recipe
    return {
        "step": planned.name,
        "model": planned.step.handling.label or recipe.model.label,
        "quant": recipe.quant.scheme,
        "target": recipe.target.name,
        "compiler": recipe.tools.name,
        **needs(planned),
    }


def needs(planned: Planned) -> dict[str, str]:
    """The label by which the store keeps what this step shares with others, for as long as its own result."""
    shared = [up.key for up in planned.inputs if up.step.handling.label is not None]
    return {NEEDS: ",".join(shared)} if shared else {}


def predicate(
    planned: Planned,
    plan: Plan,
    ran: WorkerResult,
    check: Mapping[str, Any] | None,
    started: float,
    ended: float,
) -> dict[str, Any]:
    """Provenance of a step that ran; `started` and `ended` are seconds since the epoch."""
    materials = [_upstream(up) for up in chain(planned)[:-1]]
    if any(step.step.reads_model for step in chain(planned)):
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
        "trtbuild_facts": clean(ran.facts),
        "trtbuild_toolchain": {"executor": ran.executor, "packages": planned.packages},
        "trtbuild_check": None if check is None else clean(check),
    }


def chain(planned: Planned) -> list[Planned]:
    """`planned` and all that is upstream of it, upstream first, each once."""
    found: dict[str, Planned] = {}
    for up in planned.inputs:
        found |= {each.name: each for each in chain(up)}
    return [*found.values(), planned]


def _upstream(up: Planned) -> dict[str, Any]:
    """A step's result as a dependency: with its fields, so that one record tells how to make all of it."""
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
class Told:
    """What a record says of how it was made; treat the mappings as read-only.

    `fields` are those of each step's key by the step's name, upstream first and its own last; `keys` their keys.
    `files` are the checkpoint's: path -> sha256. `packages` are those of each step's toolchain, with versions. Empty
    where the record does not say.
    """

    fields: Mapping[str, Mapping[str, Any]]
    keys: Mapping[str, str]
    origin: str | None
    files: Mapping[str, str]
    pins: Mapping[str, Any] | None
    built: str | None  # when, as ISO 8601
    builder: str | None
    packages: Mapping[str, Mapping[str, Any]]


def told(record: Record) -> Told:
    """Reads what `predicate` wrote. Raises nothing: what another program wrote may lack any of it."""
    definition = _object(record.predicate.get("buildDefinition"))
    details = _object(record.predicate.get("runDetails"))
    fields: dict[str, Mapping[str, Any]] = {}
    keys: dict[str, str] = {}
    packages: dict[str, Mapping[str, Any]] = {}
    model: Mapping[str, Any] = {}
    listed = definition.get("resolvedDependencies")
    for item in listed if isinstance(listed, list) else []:
        found = _object(item)
        name, uri = str(found.get("name")), str(found.get("uri"))
        if name == "model":
            model = found
        elif name.startswith(INPUT) and uri.startswith(KEY_URI):
            step = name.removeprefix(INPUT)
            fields[step] = _object(_object(found.get("annotations")).get("fields"))
            packages[step] = _object(_object(found.get("annotations")).get("packages"))
            keys[step] = uri.removeprefix(KEY_URI)
    own = _object(definition.get("externalParameters"))
    step = str(own.get("step.name"))
    notes = _object(model.get("annotations"))
    return Told(
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
    """{"seconds", "peak_memory_bytes", "model_bytes"} of the build that made the record, as far as it says."""
    return _object(record.predicate.get("trtbuild_stats"))


def loss(record: Record) -> Mapping[str, float] | None:
    """{"original", "quantized", "tokens"}: mean losses on a text, in nats a token; None where none were taken."""
    found = _object(_object(record.predicate.get("trtbuild_facts")).get("loss"))
    names = ("original", "quantized", "tokens")
    if not all(isinstance(found.get(name), int | float) for name in names):
        return None
    return {name: found[name] for name in names}


def _object(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _text(found: Any) -> str | None:
    return found if isinstance(found, str) else None


def _files(found: Any) -> dict[str, str]:
    rows = found if isinstance(found, list) else []
    return {str(row[0]): str(row[2]) for row in rows if isinstance(row, list) and len(row) == 3}


def check(record: Record) -> Mapping[str, Any] | None:
    """What the check saw before the record was published; None where none was asked for."""
    found = record.predicate.get("trtbuild_check")
    return found if isinstance(found, Mapping) else None


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
