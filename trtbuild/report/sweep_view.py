"""The progress of a sweep: plain lines in a log; on a terminal, running steps and a bar for each kind of hardware."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO, TypeAlias

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from trtbuild.building.results import StepResult
from trtbuild.report import terminal
from trtbuild.sweeps.schedule import UnitResult
from trtbuild.sweeps.work import Unit, seconds_of
from trtstore import format_seconds

#: Takes a line to show; takes what a unit is doing.
Tell: TypeAlias = Callable[[str], None]
Does: TypeAlias = Callable[[Unit, str], None]

DRAWINGS = 4  # a second
LINES = 16  # of running steps


class PlainSweepView:
    """A line for each step that has ended. Safe for threads."""

    def __init__(self, stream: TextIO, units: Sequence[Unit]) -> None:
        self._stream, self._total, self.done = stream, len(units), 0

    def reporter(self, unit: Unit) -> UnitNotes:
        """Shows the unit's notes, with its label, and nothing else."""
        return UnitNotes(unit, self.note)

    def started(self, unit: Unit, worker: str) -> None:
        """Nothing: a log gets a line when the unit ends."""

    def ended(self, ended: UnitResult) -> None:
        self.done += 1
        for line in ended_lines(ended, self.done, self._total):
            self.note(line)

    def note(self, words: str) -> None:
        self._stream.write(words + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing is held."""


class Drawn:
    """The same lines, with the running steps below them. Safe for threads."""

    def __init__(self, units: Sequence[Unit], points: Sequence[str]) -> None:
        self._units, self._total, self._points = tuple(units), len(units), tuple(points)
        self._done: dict[str, bool] = {}  # key -> whether there is a result
        self._running: dict[str, tuple[Unit, str, float, str]] = {}  # unit, worker, start, activity
        self._lock = threading.Lock()
        self._groups = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bars: dict[str, TaskID] = {}
        for name in dict.fromkeys(unit.group for unit in units):
            total = sum(unit.group == name for unit in units)
            self._bars[name] = self._groups.add_task(name, total=total, left="")
        self._live = Live(
            get_renderable=self._drawing,
            console=Console(stderr=True),
            refresh_per_second=DRAWINGS,
            transient=True,
        )
        if units:
            self._live.start()

    def reporter(self, unit: Unit) -> UnitNotes:
        """Shows what the unit does beside it, and its notes."""
        return UnitNotes(unit, self.note, self._does)

    def started(self, unit: Unit, worker: str) -> None:
        with self._lock:
            self._running[unit.key] = (unit, worker, time.monotonic(), "")

    def ended(self, ended: UnitResult) -> None:
        with self._lock:
            self._running.pop(ended.unit.key, None)
            self._done[ended.unit.key] = ended.error is None
        self._groups.advance(self._bars[ended.unit.group])
        for line in ended_lines(ended, len(self._done), self._total):
            self.note(line)

    @property
    def done(self) -> int:
        """How many steps have ended."""
        return len(self._done)

    def note(self, words: str) -> None:
        self._live.console.print(words, highlight=False, markup=False)

    def close(self) -> None:
        self._live.stop()

    def _does(self, unit: Unit, what: str) -> None:
        with self._lock:
            if unit.key in self._running:
                self._running[unit.key] = (*self._running[unit.key][:3], what)

    def _drawing(self) -> Table:
        with self._lock:
            running = list(self._running.values())
        lines = Table.grid(padding=(0, 2))
        now = time.monotonic()
        for unit, worker, since, what in running[:LINES]:
            lines.add_row("  " + unit.label, what, format_seconds(now - since), worker)
        if len(running) > LINES:
            lines.add_row(f"  and {len(running) - LINES} more")
        for name, bar in self._bars.items():
            self._groups.update(bar, left=self._left(name, [each for each in running if each[0].group == name]))
        whole = Table.grid()
        whole.add_row(lines)
        whole.add_row(self._groups)
        whole.add_row(self._states({unit.key for unit, _, _, _ in running}))
        return whole

    def _states(self, running: set[str]) -> str:
        """`points: 3 there, 2 at work, 1 waiting`: a point is at work where its last step is, or one that it needs."""
        needs = {unit.key: {unit.key, *unit.needs} for unit in self._units}
        counts = dict.fromkeys(("there", "failed", "at work", "waiting"), 0)
        for key in self._points:
            if self._done.get(key, key not in needs):
                counts["there"] += 1
            elif key in self._done:
                counts["failed"] += 1
            else:
                counts["at work" if needs[key] & running else "waiting"] += 1
        return "points: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count)

    def _left(self, group: str, running: Sequence[tuple[Unit, str, float, str]]) -> str:
        """`about 2 min left`; nothing where a step has no basis."""
        units = [unit for unit in self._units if unit.group == group and unit.key not in self._done]
        if not running or any(unit.estimate is None for unit in units):
            return ""
        now = time.monotonic()
        spent = sum(min(now - since, seconds_of(unit)) for unit, _, since, _ in running)
        return f"about {format_seconds((sum(map(seconds_of, units)) - spent) / len(running))} left"


class UnitNotes:
    """Reports one unit among others: its notes, and what it does if `does` is given."""

    def __init__(self, unit: Unit | None, tell: Tell, does: Does | None = None) -> None:
        self._unit, self._tell, self._does = unit, tell, does
        self.phases: list[tuple[str, float]] = []

    def step_started(self, name: str) -> None:
        self.phases.append((name, time.time()))
        if self._does is not None and self._unit is not None:
            self._does(self._unit, terminal.DOING.get(name, name))

    def step_ended(self, result: StepResult) -> None:
        """Nothing: the view of the whole sweep reports it."""

    def progress(self, what: str, done: int, total: int, unit: str) -> None:
        """Nothing: there are too many units to draw a bar for each."""

    def hashing(self, done: int, total: int) -> None:
        """Nothing, for the same reason."""

    def text(self, piece: str) -> None:
        """Nothing: a check's text is in its record."""

    def note(self, words: str) -> None:
        self._tell(words if self._unit is None else f"{' '.join(self._unit.label.split())}: {words}")

    def waiting(self, words: str) -> None:
        self.step_started(words)


def ended_lines(ended: UnitResult, done: int, total: int) -> Iterator[str]:
    """`[ 3/12] engine   built     3.1 s  152 MB  peak 1.1 GB  llama int8 h100_sxm`; or its error."""
    place = f"[{done:>{len(str(total))}}/{total}]"
    if ended.error is None and ended.result is not None:
        label = ended.unit.label.partition(" ")[2].strip()
        yield f"{place} {terminal.step_line(ended.result)}  {label}"
    elif ended.worker:
        yield f"{place} {ended.unit.label}  failed"
        yield from ended.error.lines() if ended.error is not None else ()
    else:
        yield f"{place} {ended.unit.label}  not run: what it needs failed"


def view(units: Sequence[Unit], points: Sequence[str]) -> PlainSweepView | Drawn:
    """The view that fits stderr. `points` are the keys of the points' last steps."""
    return Drawn(units, points) if sys.stderr.isatty() else PlainSweepView(sys.stderr, units)
