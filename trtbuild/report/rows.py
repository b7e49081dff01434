"""What a report is made of: a row for each engine, and a bar for each thing that a worker did."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from trtbuild.artifacts import provenance
from trtbuild.building.pipeline import Result
from trtbuild.sweeps.schedule import UnitResult
from trtbuild.sweeps.work import Job
from trtstore import Record

_OF_SWEEPS = ("report=", "output=", "sweep.")  # a point alone needs none of them
BUILDING, WAITING, FETCHING, CHECKING, INSTALLING = (
    "building",
    "waiting",
    "fetching",
    "checking",
    "installing",
)


@dataclass(frozen=True)
class ReportRow:
    """A point of a sweep, or an engine of a store; None where a number is not known.

    `seconds` and `peak_memory_bytes` are of its worker; the last three are what the check measured.
    """

    point: str
    model: str
    quant: str
    target: str
    compiler: str
    key: str
    outcome: str
    bytes: int | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    load_seconds: float | None = None
    tokens_per_second: float | None = None
    quality: float | None = None
    pareto: bool = False  # no other of its model is smaller, faster and better
    error: str = ""
    command: str = ""


@dataclass(frozen=True)
class Bar:
    """A span of a sweep's time at a worker; seconds since its begin."""

    worker: str
    step: str
    phase: str
    begin: float
    end: float


def of_sweep(
    jobs: Sequence[Job], results: Mapping[int, Result], own: Mapping[int, str], shared: Sequence[str]
) -> list[ReportRow]:
    """A row for each point. `own` are the words that tell points apart, `shared` flags of the command line."""
    return with_pareto([_of_job(job, results.get(job.point.index), own[job.point.index], shared) for job in jobs])


def _of_job(job: Job, done: Result | None, point: str, shared: Sequence[str]) -> ReportRow:
    words = [word for word in job.point.words if not word.startswith(_OF_SWEEPS)]
    command = shlex.join(["trtbuild", *shared, *words])
    error = "" if job.error is None else job.error.message
    if job.plan is None:
        return ReportRow(point, "", "", "", "", "", "failed", error=error, command=command)
    recipe = job.plan.recipe
    row = ReportRow(
        point,
        recipe.model.label,
        recipe.quant.scheme,
        recipe.target.name,
        recipe.tools.name,
        job.plan.final.key,
        "failed" if done is None else done.outcome,
        error=error,
        command=command,
    )
    return row if done is None else measured(row, done.record)


def of_record(record: Record) -> ReportRow:
    """A row for an artifact of a store."""
    labels = record.labels
    model, quant, target, compiler = (labels.get(name, "") for name in ("model", "quant", "target", "compiler"))
    command = f"trtbuild rebuild {record.key}"
    row = ReportRow(f"{model} {quant} {target}", model, quant, target, compiler, record.key, "kept", command=command)
    return measured(row, record)


def measured(row: ReportRow, record: Record) -> ReportRow:
    """With what a record says of its build and its check."""
    stats, check = provenance.stats(record), provenance.check(record) or {}
    peak = _number(stats.get("peak_memory_bytes"))
    return replace(
        row,
        bytes=record.bytes,
        seconds=_number(stats.get("seconds")),
        peak_memory_bytes=None if peak is None else int(peak),
        load_seconds=_number(check.get("load_seconds")),
        tokens_per_second=_number(check.get("tokens_per_second")),
        quality=_quality(record, check),
    )


def _quality(record: Record, check: Mapping[str, Any]) -> float | None:
    """What the check measured; else the original's perplexity over this one's: 1 is as good, less is worse."""
    losses = provenance.loss(record)
    if losses is None:
        return _number(check.get("quality"))
    return round(math.exp(losses["original"] - losses["quantized"]), 4)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def with_pareto(rows: Sequence[ReportRow]) -> list[ReportRow]:
    """Marks those of each model and target that no other one beats in size, speed and quality together."""
    return [replace(row, pareto=_stands(row, rows)) for row in rows]


def _stands(row: ReportRow, rows: Iterable[ReportRow]) -> bool:
    mine = _virtues(row)
    if mine is None:
        return False
    peers = [other for other in rows if (other.model, other.target) == (row.model, row.target)]
    others = [theirs for other in peers if (theirs := _virtues(other)) is not None]
    return not any(theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True)) for theirs in others)


def _virtues(row: ReportRow) -> tuple[float, ...] | None:
    """The larger, the better; None where size or speed were not measured."""
    if row.bytes is None or row.tokens_per_second is None:
        return None
    return (-row.bytes, row.tokens_per_second, row.quality or 0.0)


def bars(done: Iterable[UnitResult], began: float) -> list[Bar]:
    """What each worker did from when to when, since `began` (seconds since the epoch)."""
    bars: list[Bar] = []
    for ended in done:
        if not ended.worker:
            continue  # it was never started
        step = " ".join(ended.unit.label.split())
        spans = [(_phase(name), at) for name, at in ended.phases] or [(BUILDING, ended.started)]
        if ended.started - ended.handed > 0.1:
            spans.insert(0, (WAITING, ended.handed))
        ends = [at for _, at in spans[1:]] + [ended.ended]
        bars += [
            Bar(ended.worker, step, phase, round(at - began, 3), round(end - began, 3))
            for (phase, at), end in zip(spans, ends, strict=True)
        ]
    return bars


def _phase(name: str) -> str:
    if name.startswith(WAITING):
        return WAITING
    if name.startswith(INSTALLING):
        return INSTALLING
    return {"source": FETCHING, "check": CHECKING}.get(name, BUILDING)


def as_csv(rows: Sequence[ReportRow]) -> str:
    """One line a row, with the fields' names above. What a spreadsheet would take for a formula is put in quotes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(ReportRow)])
    for row in rows:
        writer.writerow([_cell(value) for value in asdict(row).values()])
    return text.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
