"""A unit as a command line for another machine, and what its answer says.

Words travel, and no objects: the machine composes the config itself, computes the key anew, and refuses to build
another. Results come through the store, every byte of them by its digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trtbuild.building.results import StepOutcome, StepResult
from trtbuild.errors import BuildError, InputError, NotInStoreError, StoreError, TrtbuildError
from trtbuild.sweeps.schedule import UnitResult
from trtbuild.sweeps.work import Unit, refused
from trtstore import StoreFailure

#: Flags of Hydra's that say where configs are, with a value.
_PLACES = ("--config-dir", "-cd", "--config-path", "-cp")
_NAMES = ("--config-name", "-cn")
_KINDS = {kind.exit_code: kind for kind in (BuildError, InputError, NotInStoreError, StoreError)}
ROOM = 1.5  # of memory: what an earlier build took, and a half more


def flags(words: Sequence[str]) -> list[str]:
    """Of a command line, what all its points need: where configs are, with absolute paths."""
    flags: list[str] = []
    todo = list(words)
    while todo:
        word = todo.pop(0)
        name, equals, value = word.partition("=")
        if name in (*_PLACES, *_NAMES):
            value = value if equals else todo.pop(0)
            flags += [name, str(Path(value).absolute()) if name in _PLACES else value]
        elif word.startswith("hydra.searchpath="):
            flags.append(word)
    return flags


def words_of(unit: Unit, shared: Sequence[str], cpus: int) -> list[str]:
    """The command line that makes just this unit, in the store that this machine uses, where it is given `cpus`."""
    setup = unit.job.planned[1].setup
    threads = [] if setup.config.executor.threads is not None else [f"executor.threads={cpus}"]
    return [
        *shared,
        *unit.job.point.words,
        *threads,
        f"until={unit.planned.name}",
        f"sweep.key={unit.key}",
        f"store.root={setup.store.root}",
        "out=null",
        "report=null",
        "output=json",
    ]


def memory_gb(units: Sequence[Unit], asked: float | None) -> float | None:
    """What jobs for these units need; None where nothing is known."""
    peaks = [unit.estimate.peak_memory_bytes for unit in units if unit.estimate is not None]
    known = [peak for peak in peaks if peak is not None]
    if asked is not None or len(known) < len(units):
        return asked
    return max(1.0, round(max(known) * ROOM / 1e9, 1))


def ended(unit: Unit, told: Mapping[str, Any], worker: str, handed: float) -> UnitResult:
    """What became of a unit that was handed over then, by the answer of its job, and by the store.

    Raises BuildError for an answer that is not as trtbuild makes it.
    """
    try:
        result, error = _result(unit, told.get("document"), int(told["code"]))
        started, until, host = float(told["started"]), float(told["ended"]), str(told["host"])
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
        raise BuildError("the document in the job's answer is not one of trtbuild's") from None
    if error is None and (error := _not_here(unit)) is None:
        _, runner = unit.job.planned
        runner.events.results[unit.planned.name] = result
        runner.built.add(unit.key)
    where = f"{host} {worker}".strip()
    return UnitResult(unit, result if error is None else None, error, started, until, where, handed)


def _result(unit: Unit, document: Any, code: int) -> tuple[StepResult, TrtbuildError | None]:
    nothing = StepResult(unit.planned.name, unit.key, StepOutcome.unneeded)
    if not isinstance(document, dict):
        return nothing, BuildError(f"the job ended with exit code {code} and no document")
    if "error" in document:
        failure = document["error"]
        kind = _KINDS.get(failure["exit_code"], BuildError)
        return nothing, kind(
            str(failure["message"]),
            option=_text(failure["option"]),
            hint=_text(failure["hint"]),
            details=[str(line) for line in failure["details"]],
        )
    for step in document["steps"]:
        if step["key"] == unit.key:
            return _step(step), None
    return nothing, BuildError(f"the job answered for another key: {document['key']}")


def _step(document: Mapping[str, Any]) -> StepResult:
    """Raises TypeError, ValueError for what trtbuild does not write."""
    result = StepResult(**{**document, "outcome": StepOutcome(document["outcome"])})
    if any(
        not isinstance(each, int | float | None) for each in (result.seconds, result.bytes, result.peak_memory_bytes)
    ):
        raise TypeError
    return result


def _text(told: Any) -> str | None:
    return None if told is None else str(told)


def _not_here(unit: Unit) -> TrtbuildError | None:
    """Why what a job built cannot be used here."""
    _, runner = unit.job.planned
    try:
        if runner.find(unit.planned).record is not None:
            return None
    except StoreFailure as failure:
        return refused(failure)
    return StoreError(
        f"the job built {unit.key[:12]}, and {runner.setup.store.root} on this machine does not have it",
        option="store.root",
        hint="jobs and this machine need one store: a folder that all of them share",
    )
