"""Progress and errors on stderr: live bars on a terminal, quiet lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from trtbuild.building.results import StepResult
from trtbuild.errors import TrtbuildError
from trtbuild.report.records import speed
from trtstore import format_seconds, format_size

HASHING_PATIENCE = 2.0  # seconds of hashing before a log gets a line
BAR_PATIENCE = 0.5  # and before a bar is drawn: what is done by then needs none
BAR_EVERY = 0.1  # seconds between two drawings: hashing tells of each MiB

DOING = {
    "hash": "hashing the checkpoint",
    "source": "fetching the checkpoint",
    "network": "building the network",
    "unpack": "unpacking the GGUF",
    "checkpoint": "converting the checkpoint",
    "stripped": "building the plan",
    "engine": "building the engine",
    "check": "checking the engine",
}


def step_line(result: StepResult) -> str:
    """`engine   built     3.1 s  152 MB  peak 1.1 GB`."""
    words = [f"{result.name:<8} {result.outcome:<9}"]
    outcome = result.outcome
    if outcome.ran and result.seconds is not None:
        words.append(format_seconds(result.seconds))
    if result.bytes is not None:
        words.append(format_size(result.bytes))
    if outcome.ran and result.peak_memory_bytes:
        words.append(f"peak {format_size(result.peak_memory_bytes)}")
    if outcome.hit and result.seconds:
        words.append(f"saves {format_seconds(result.seconds)}")
    return "  ".join(words)


class PlainTerminal:
    """One line when a step starts and one when it ends. `text` goes to `answers`, as it comes."""

    def __init__(self, stream: TextIO, answers: TextIO | None) -> None:
        self._stream, self._answers = stream, answers
        self._wait_until = 0.0
        self._tell_hashing: float | None = None  # at that time, unless all is hashed before

    def step_started(self, name: str) -> None:
        self._line(f"{DOING.get(name, name)} …")

    def step_ended(self, result: StepResult) -> None:
        self._line(step_line(result))

    def progress(self, what: str, done: int, total: int, unit: str) -> None:
        """Nothing: a log wants no bars."""

    def hashing(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total:
            self._tell_hashing = None
        elif self._tell_hashing is None:
            self._tell_hashing = now + HASHING_PATIENCE
        elif now >= self._tell_hashing:
            self._tell_hashing = math.inf  # once
            self._line(f"{DOING['hash']}, {format_size(total)} …")

    def text(self, piece: str) -> None:
        if self._answers is not None:
            self._answers.write(piece)
            self._answers.flush()

    def note(self, words: str) -> None:
        self._line(words)

    def waiting(self, words: str) -> None:
        if time.monotonic() >= self._wait_until:  # this is called each second: a log needs fewer lines
            self._wait_until = time.monotonic() + 10
            self._line(words)

    def close(self) -> None:
        """Nothing is held."""

    def _line(self, words: str) -> None:
        print(words, file=self._stream, flush=True)


class Live:
    """Bars with rates while a step runs; the same closing lines as Plain."""

    def __init__(self, answers: TextIO | None) -> None:
        self._answers = answers
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID | None = None
        self._label, self._started, self._what = "", 0.0, ""
        self._hashing_since = 0.0
        self._draw_hashing: float | None = None  # from that time on, unless all is hashed before

    def step_started(self, name: str) -> None:
        self._end()
        self._label, self._started, self._what = DOING.get(name, name), time.monotonic(), ""
        self._progress.start()
        self._task = self._progress.add_task(self._label, total=None, amount="")

    def step_ended(self, result: StepResult) -> None:
        self._end()
        self._progress.console.print(step_line(result), highlight=False)

    def progress(self, what: str, done: int, total: int, unit: str) -> None:
        if self._task is None:
            return
        if what != self._what:
            self._what, self._started = what, time.monotonic()
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(f"{self._label}: {what}", total=None, amount="")
        elapsed = time.monotonic() - self._started
        amount = f"{format_size(done)} of {format_size(total)}" if unit == "B" else f"{done} of {total} {unit}"
        if done == 0:  # nothing is known of its pace: the bar pulses
            self._progress.update(self._task, amount=format_size(total) if unit == "B" else "")
            return
        if unit == "B" and elapsed > 0.5:
            amount += f", {format_size(done / elapsed)}/s"
        self._progress.update(self._task, completed=done, total=total or None, amount=amount)

    def hashing(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total:
            self._draw_hashing = None
            if self._label == DOING["hash"]:
                self._end()
        elif self._draw_hashing is None:
            self._hashing_since, self._draw_hashing = now, now + BAR_PATIENCE
        elif now >= self._draw_hashing:
            self._draw_hashing = now + BAR_EVERY
            if self._label != DOING["hash"]:
                self.step_started("hash")
                self._started = self._hashing_since  # the rate is of all that was hashed
            self.progress("", done, total, "B")

    def text(self, piece: str) -> None:
        self._end()
        if self._answers is not None:
            self._answers.write(piece)
            self._answers.flush()

    def note(self, words: str) -> None:
        self._progress.console.print(words, highlight=False)

    def waiting(self, words: str) -> None:
        if self._task is None:
            self.step_started(words)
        else:
            self._progress.update(self._task, description=words)

    def close(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task, self._label = None, ""
            self._progress.stop()


def reporter(answers: TextIO | None) -> PlainTerminal | Live:
    """The one that fits stderr. `answers` is where generated text streams to, if anywhere."""
    return Live(answers) if sys.stderr.isatty() else PlainTerminal(sys.stderr, answers)


def print_error(error: TrtbuildError) -> None:
    for line in error.lines():
        print(line, file=sys.stderr, flush=True)


def check_line(check: Mapping[str, Any]) -> str:
    if check.get("executed") is False:
        return f"check    verified   not executed: {check['why']}"
    return f"check    passed     {speed(check)}"
