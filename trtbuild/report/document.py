"""Results as data: the JSON document of `output=json`, and the plan as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from itertools import groupby
from operator import itemgetter
from typing import Any

from trtbuild import provenance
from trtbuild.errors import TrtbuildError
from trtbuild.pipeline import Result
from trtbuild.plan import Plan
from trtbuild.session import Found
from trtbuild.targets import Target
from trtstore import Record
from trtstore.words import seconds, size

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
    }


def plan(planned: Plan, found: Mapping[str, Found]) -> dict[str, Any]:
    """The document of `trtbuild plan`. `found` maps each step's key to what the stores have of it."""
    recipe, records = planned.recipe, _records(found)
    return {
        "schema": SCHEMA,
        "key": planned.final.key,
        "steps": [
            {
                "name": step.name,
                "key": step.key,
                "local": "hit" if found[step.key].here else "miss",
                "also": found[step.key].also,
                "runs": runs,
                "fields": dict(step.fields),
                "bytes": record.bytes if (record := records[step.key]) else None,
                "seconds": provenance.stats(record).get("seconds") if record else None,
            }
            for step, runs in zip(planned.steps, will_run(planned, records), strict=True)
        ],
        "model": {
            "label": recipe.model.label,
            "identity": recipe.model.identity,
            "architecture": recipe.model.architecture,
            "bytes": recipe.model.bytes,
        },
        "target": target(recipe.target),
        "toolchain": planned.toolchain,
    }


def target(found: Target) -> dict[str, Any]:
    """The hardware, with `gpu` as an object, and where each fact comes from."""
    shown = {each.name: getattr(found, each.name) for each in fields(found)}
    gpu = None if found.gpu is None else asdict(found.gpu)
    return {**shown, "gpu": gpu, "origins": dict(found.origins or {})}


def _target_words(found: Target) -> str:
    """What the target is and where each fact comes from: a line for the hardware, and for a GPU one for its driver."""
    origins = found.origins or {}
    if found.gpu is None:
        exact = "" if found.microarchitecture == found.level else f" ({found.microarchitecture})"
        return f"{found.name}: {found.level}{exact}, {found.arch} ({origins.get('level')}); {found.here}"
    gpu = found.gpu
    hardware = {
        "gpu": gpu.name,
        "mig": gpu.mig and f"MIG {gpu.mig}",
        "memory_gb": f"{gpu.memory_gb} GB",
        "compute_capability": f"compute capability {gpu.compute_capability}",
        "sm_count": f"{gpu.sm_count} SMs",
        "arch": found.arch,
    }
    software = {"driver": f"driver {found.driver}", "cuda": f"CUDA {found.cuda}"}
    more = "" if found.gpus == 1 else f", {found.gpus} GPUs"
    return (
        f"{found.name}: {_with_origins(hardware, origins)}{more}\n"
        f"{'':<10}{_with_origins(software, origins)}; {found.here}"
    )


def _with_origins(words: Mapping[str, str | None], origins: Mapping[str, str]) -> str:
    """The words of facts, and after those that have one origin this: "A, B (detected), C (target.cuda=)"."""
    told = [(word, origins.get(name, "")) for name, word in words.items() if word]
    groups = [(origin, [word for word, _ in each]) for origin, each in groupby(told, key=itemgetter(1))]
    return ", ".join(f"{', '.join(each)} ({origin})" for origin, each in groups)


def will_run(planned: Plan, records: Mapping[str, Record | None]) -> list[bool]:
    """Which steps a build would run: those that miss, with nothing that hits downstream of them."""
    needed = {planned.final.name}
    for step in reversed(planned.steps):
        if step.name in needed and records[step.key] is None:
            needed |= {up.name for up in step.inputs}
    return [step.name in needed and records[step.key] is None for step in planned.steps]


def _records(found: Mapping[str, Found]) -> dict[str, Record | None]:
    return {key: one.record for key, one in found.items()}


def plan_lines(planned: Plan, found: Mapping[str, Found]) -> list[str]:
    recipe, records = planned.recipe, _records(found)
    lines = [
        f"model     {recipe.model.label}, {recipe.model.architecture or 'architecture in the file'}, "
        f"{size(recipe.model.bytes)}, identity {recipe.model.identity[:12]}",
        f"quant     {recipe.quant.scheme}",
        f"target    {_target_words(recipe.target)}",
        f"compiler  {recipe.tools.name}: "
        + ", ".join(f"{tool} {v}" for tool, v in planned.toolchain.items()),
        "",
        f"{'step':<10}{'key':<14}{'store':<13}will",
    ]
    for step, runs in zip(planned.steps, will_run(planned, records), strict=True):
        record = records[step.key]
        words = "run" if runs else "use" if step is planned.final else "-"
        one = found[step.key]
        state = "hit" if one.here else "hit, also" if one.record else "miss"
        where = f"  in {one.also}" if one.also else ""
        lines.append(
            f"{step.name:<10}{step.key[:12]:<14}{state:<13}{words:<8}{_history(record)}{where}".rstrip()
        )
    return lines


def _history(record: Record | None) -> str:
    if record is None:
        return ""
    took = provenance.stats(record).get("seconds")
    return f"{size(record.bytes)}" + (f", took {seconds(took)}" if took else "")


def error(failure: TrtbuildError) -> dict[str, Any]:
    """The document of a failure under output=json."""
    return {
        "schema": SCHEMA,
        "error": {
            "message": failure.message,
            "option": failure.option,
            "hint": failure.hint,
            "details": list(failure.details),
            "exit_code": failure.exit_code,
        },
    }


def sweep(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"schema": SCHEMA, "results": list(results)}
