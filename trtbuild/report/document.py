"""Results as data: the documents of `output=json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from trtbuild.artifacts import history, provenance
from trtbuild.artifacts.chain import Located
from trtbuild.artifacts.history import Difference, Estimate, NearestBuild
from trtbuild.building.pipeline import Result
from trtbuild.building.preview import StepPreview, ToolchainState
from trtbuild.building.rebuild import Rebuilt
from trtbuild.errors import TrtbuildError
from trtbuild.planning.plan import Plan
from trtbuild.targets import Target
from trtstore import Entry

SCHEMA = 1


def result(done: Result) -> dict[str, Any]:
    """The document of build and fetch; `docs/json.md` describes each field."""
    recipe = done.plan.recipe
    return {
        "schema": SCHEMA,
        "key": done.record.key,
        "outcome": done.outcome,
        "path": str(done.path),
        "digest": done.record.manifest,
        "bytes": done.record.bytes,
        "materialised": done.method,
        "steps": [asdict(step) for step in done.steps],
        "model": {
            "label": recipe.model.label,
            "identity": recipe.model.identity,
            "origin": recipe.model.origin,
        },
        "quant": recipe.quant.scheme,
        "target": target(recipe.target),
        "toolchain": done.plan.toolchain,
        "check": None if done.check is None else dict(done.check),
        "loss": provenance.loss(done.record),
    }


def plan(
    planned: Plan, previews: Sequence[StepPreview], tools: Sequence[ToolchainState], notes: Sequence[str]
) -> dict[str, Any]:
    """The document of `trtbuild plan`."""
    return {
        "schema": SCHEMA,
        "key": planned.final.key,
        "steps": [_step(step) for step in previews],
        "estimate": _total(previews),
        "model": {
            "label": planned.recipe.model.label,
            "identity": planned.recipe.model.identity,
            "architecture": planned.recipe.model.architecture,
            "bytes": planned.recipe.model.bytes,
        },
        "target": target(planned.recipe.target),
        "toolchain": planned.toolchain,
        "toolchains": [asdict(each) for each in tools],
        "notes": list(notes),
    }


def _step(step: StepPreview) -> dict[str, Any]:
    record = step.located.record
    return {
        "name": step.planned.name,
        "key": step.planned.key,
        "local": "hit" if step.located.here else "miss",
        "also": step.located.also,
        "runs": step.runs,
        "fields": dict(step.planned.fields),
        "bytes": record.bytes if record else None,
        "seconds": provenance.stats(record).get("seconds") if record else None,
        "estimate": None if step.estimate is None else _estimate(step.estimate),
        "obstacle": step.obstacle,
        "shared_with": list(step.sharers),
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "seconds": estimate.seconds,
        "bytes": estimate.bytes,
        "peak_memory_bytes": estimate.peak_memory_bytes,
        "basis": estimate.basis.record.key,
        "scale": estimate.scale,
        "differs": [difference.field for difference in estimate.basis.differences],
    }


def _total(previews: Sequence[StepPreview]) -> dict[str, Any]:
    """Of all steps that run and have a basis; `unknown` names those that have none."""
    running = [step for step in previews if step.runs]
    known = [step.estimate for step in running if step.estimate is not None]
    return {
        "steps": len(running),
        "seconds": sum(one.seconds for one in known),
        "bytes": sum(one.bytes for one in known),
        "unknown": [step.planned.name for step in running if step.estimate is None],
    }


def explanation(planned: Plan, located: Located, near: NearestBuild | None) -> dict[str, Any]:
    """The document of `trtbuild explain`; `near` is the nearest earlier build of a step that missed."""
    return {
        "schema": SCHEMA,
        "key": planned.final.key,
        "step": planned.final.name,
        "outcome": "miss" if located.record is None else "hit",
        "store": None if located.record is None else located.store,
        "fields": {step: dict(fields) for step, fields in history.fields(planned.final).items()},
        "nearest": None if near is None else _near(near),
    }


def _near(near: NearestBuild) -> dict[str, Any]:
    return {
        "key": near.record.key,
        "store": near.store,
        "labels": dict(near.record.labels),
        "seconds": near.seconds,
        "bytes": near.record.bytes,
        "differences": [difference(each) for each in near.differences],
    }


def difference(one: Difference) -> dict[str, Any]:
    """`old` and `new` are left out on the side that lacks the field."""
    sides = {"old": one.old, "new": one.new}
    known = {name: value for name, value in sides.items() if value is not history.ABSENT}
    return {"field": one.field, "steps": list(one.steps), **known}


def rebuilt(done: Rebuilt) -> dict[str, Any]:
    """The document of `trtbuild rebuild`."""
    return {
        "schema": SCHEMA,
        "key": done.record.key,
        "outcome": "same" if done.same else "differs",
        "digest": done.record.manifest,
        "rebuilt_digest": done.digest,
        "files": [
            {
                "path": file.path,
                "stored": None if file.stored is None else _entry(file.stored),
                "rebuilt": None if file.rebuilt is None else _entry(file.rebuilt),
            }
            for file in done.files
        ],
        "steps": [asdict(step) for step in done.steps],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {"sha256": entry.sha256, "bytes": entry.size, "mode": entry.mode}


def target(target: Target) -> dict[str, Any]:
    """The hardware, with `gpu` as an object, and where each fact comes from."""
    shown = {each.name: getattr(target, each.name) for each in fields(target)}
    gpu = None if target.gpu is None else asdict(target.gpu)
    return {**shown, "gpu": gpu, "origins": dict(target.origins or {})}


def error(failure: TrtbuildError) -> dict[str, Any]:
    """The document of a failure under output=json."""
    return {"schema": SCHEMA, "error": failure.document()}


def sweep(results: Sequence[dict[str, Any]], forecast: Mapping[str, Any] | None) -> dict[str, Any]:
    """The document of `-m`: one result a point, in their order."""
    told = {} if forecast is None else {"forecast": dict(forecast)}
    return {"schema": SCHEMA, **told, "results": list(results)}
