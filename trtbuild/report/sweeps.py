"""A sweep in words: its forecast, and at the end what became of each point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trtbuild.artifacts import provenance
from trtbuild.building.pipeline import Result
from trtbuild.report.document import SCHEMA
from trtbuild.report.plans import missing_tools, where
from trtbuild.sweeps.forecast import Forecast, Group
from trtbuild.sweeps.work import Job, Unit, Workplace
from trtstore import format_seconds, format_size, format_table

LONG = 32  # characters of a path
SHOWN = 3  # names in a list of those without a basis


def count(number: int, what: str) -> str:
    """`1 point`, `2 points`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def forecast_lines(forecast: Forecast) -> Iterator[str]:
    """What a sweep will do."""
    yield f"{count(forecast.points, 'point')}, {count(forecast.keys, 'distinct key')}: {_keys(forecast)}"
    if forecast.failed:
        yield f"{count(forecast.failed, 'point')} cannot be built: see the errors above"
    if not forecast.units:
        if forecast.keys:
            yield "Nothing will run."
        return
    yield f"{count(len(forecast.units), 'step')} will run{_amount(forecast)}"
    if len(forecast.groups) > 1 or forecast.unknown:
        heads = ["  on", ">steps", ">work", ">results", ">no basis"]
        yield from format_table(heads, [_row(group) for group in forecast.groups])
    if forecast.unknown:
        names = [unit.label for unit in forecast.unknown]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        shown = ", ".join(" ".join(name.split()) for name in names[:SHOWN])
        yield f"No basis for {shown}{more}: nothing like it is in these stores"
    obstacles = dict.fromkeys(unit.obstacle for unit in forecast.units if unit.obstacle is not None)
    yield from obstacles
    yield from missing_tools(forecast.tools)


def _keys(forecast: Forecast) -> str:
    words = []
    if forecast.here:
        words.append(f"{count(forecast.here, 'hit')} here")
    words += [f"{count(hits, 'hit')} in {store}" for store, hits in forecast.also.items()]
    missing = forecast.keys - forecast.here - sum(forecast.also.values())
    if missing:
        words.append(f"{missing} to build")
    if forecast.refresh and missing < forecast.keys:
        words.append("all are built again (refresh=true)")
    return ", ".join(words) or "none"


def _amount(forecast: Forecast) -> str:
    known = len(forecast.units) - len(forecast.unknown)
    if not known:
        return ""
    longest = f", the longest chain {format_seconds(forecast.chain)}" if forecast.chain else ""
    whose = "" if not forecast.unknown else f" for {known} of them"
    seconds, size = format_seconds(forecast.seconds), format_size(forecast.bytes)
    return f": about {seconds} of work and {size} of results{whose}{longest}"


def _row(group: Group) -> list[str]:
    known = len(group.units) - len(group.unknown)
    amounts = [format_seconds(group.seconds), format_size(group.bytes)] if known else ["", ""]
    return [f"  {group.name}", str(len(group.units)), *amounts, str(len(group.unknown) or "")]


def forecast_document(forecast: Forecast) -> dict[str, Any]:
    """The field `forecast` of a sweep's document; docs/json.md describes it."""
    return {
        "points": forecast.points,
        "failed": forecast.failed,
        "keys": forecast.keys,
        "hits": {"local": forecast.here, "also": dict(forecast.also)},
        "steps": [_unit(unit) for unit in forecast.units],
        "seconds": forecast.seconds,
        "bytes": forecast.bytes,
        "unknown": len(forecast.unknown),
        "toolchains": [asdict(each) for each in forecast.tools],
        "groups": [
            {
                "name": group.name,
                "steps": len(group.units),
                "seconds": group.seconds,
                "bytes": group.bytes,
                "unknown": len(group.unknown),
            }
            for group in forecast.groups
        ],
    }


def _unit(unit: Unit) -> dict[str, Any]:
    estimate = unit.estimate
    return {
        "name": unit.planned.name,
        "key": unit.key,
        "group": unit.group,
        "seconds": None if estimate is None else estimate.seconds,
        "bytes": None if estimate is None else estimate.bytes,
        "obstacle": unit.obstacle,
    }


def plan_lines(jobs: Sequence[Job], forecast: Forecast, place: Workplace) -> Iterator[str]:
    """What `trtbuild plan -m` prints: a line for each point, then the forecast."""
    units = {unit.key: unit for unit in forecast.units}
    rows = []
    for job in jobs:
        if job.error is not None:
            rows.append([own_words(job, jobs), "", "cannot be built", ""])
            continue
        plan, runner = job.planned
        store = where(place.find(plan.final, runner))
        steps = [step.name for step in plan.steps if step.key in units]
        rows.append([own_words(job, jobs), plan.final.key[:12], store, ", ".join(steps) or "nothing"])
    yield from format_table(["point", "key", "store", "runs"], rows)
    yield ""
    yield from forecast_lines(forecast)


def own_words(job: Job, jobs: Sequence[Job]) -> str:
    """The words of a point that not all points share."""
    shared = set(jobs[0].point.words).intersection(*(other.point.words for other in jobs))
    return " ".join(_short(word) for word in job.point.words if word not in shared) or "(the only one)"


def _short(word: str) -> str:
    """A long path by its end: `model.source=…/finetunes/a`."""
    name, equals, value = word.partition("=")
    if len(value) <= LONG or "/" not in value:
        return word
    return f"{name}{equals}…{value[-LONG:]}"


def final_lines(jobs: Sequence[Job], results: Mapping[int, Result]) -> Iterator[str]:
    """The table at the end: a line for each point."""
    rows = []
    for job in jobs:
        done = results.get(job.point.index)
        if done is None:
            rows.append([own_words(job, jobs), "", "failed", "", "", "", ""])
            continue
        took = provenance.stats(done.record).get("seconds")
        rows.append(
            [
                own_words(job, jobs),
                done.record.key[:12],
                done.outcome,
                format_seconds(took) if took else "",
                format_size(done.record.bytes),
                *_speed(done.check),
            ]
        )
    yield from format_table(["point", "key", "outcome", ">took", ">size", ">loads in", ">tokens/s"], rows)


def _speed(check: Mapping[str, Any] | None) -> tuple[str, str]:
    if check is None or check.get("executed") is False:
        return "", ""
    rate = check.get("tokens_per_second")
    return f"{check['load_seconds']:.2f} s", f"{rate:.0f}" if rate else ""


def summary(jobs: Sequence[Job], results: Mapping[int, Result], took: float) -> str:
    """The last line: `36 points in 12.1 s: 30 built, 6 hits`."""
    outcomes = [done.outcome for done in results.values()]
    built = sum(outcome.ran for outcome in outcomes)
    words = [f"{built} built"] if built else []
    if hits := len(outcomes) - built:
        words.append(count(hits, "hit"))
    if failed := len(jobs) - len(outcomes):
        words.append(f"{failed} failed")
    return f"{count(len(jobs), 'point')} in {format_seconds(took)}: {', '.join(words)}"


def document(results: Sequence[dict[str, Any]], forecast: Forecast) -> dict[str, Any]:
    """A whole sweep as data."""
    return {"schema": SCHEMA, "forecast": forecast_document(forecast), "results": list(results)}
