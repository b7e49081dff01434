"""Runs one step in a worker process: with few environment variables, a log, limits and measurements."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from platformdirs import user_state_path

from trtbuild import redact
from trtbuild.errors import BuildError, InputError, TrtbuildError
from trtbuild.executors import worker_environment, worker_events
from trtbuild.executors.cancellation import Cancellation
from trtbuild.executors.worker_events import Event
from trtbuild.processes import programs

LOG_TAIL = 8  # lines of the log in an error
KEPT_FAILURES = 20
KEEPER_SECONDS = 10.0  # that a keeper may take to end the processes of its worker


@dataclass(frozen=True)
class StepLimits:
    """Limits of one step; `None` is no limit. Memory counts private writable bytes (RLIMIT_DATA).

    `devices` is the worker's CUDA_VISIBLE_DEVICES; None keeps that of this process. `option` is the one that sets the
    time limit.
    """

    timeout_seconds: float
    memory_bytes: int | None
    threads: int | None
    devices: str | None = None
    option: str = "executor.timeout_minutes"


@dataclass(frozen=True)
class Task:
    """A step ready to run. `model` maps logical checkpoint paths to files, `inputs` upstream steps to folders.

    `lasting` says whether these folders outlive a failure, so that a user can run the step again. `hints` are files
    that may make the step quicker; it may write its own hint to `learnt` for the next build.
    """

    step: str
    key: str
    worker: str  # module for `python -m`
    options: Mapping[str, Any]
    toolchain: Mapping[str, str]
    model: Mapping[str, Path]
    inputs: Mapping[str, Path]
    lasting: bool = True
    hints: tuple[Path, ...] = ()
    learnt: Path | None = None

    def request(self, limits: StepLimits) -> dict[str, Any]:
        return {
            "step": self.step,
            "options": dict(self.options),
            "model": {name: str(path) for name, path in self.model.items()},
            "inputs": {name: str(path) for name, path in self.inputs.items()},
            "toolchain": dict(self.toolchain),
            "memory_bytes": limits.memory_bytes,
            "hints": [str(path) for path in self.hints],
            "learnt": None if self.learnt is None else str(self.learnt),
        }


@dataclass(frozen=True)
class WorkerResult:
    """A worker's answer, with its wall time in seconds and the peak resident bytes of its largest process."""

    facts: Mapping[str, Any]
    seconds: float
    peak_memory_bytes: int
    log: Path
    executor: str = "process"


def run(
    task: Task,
    out: Path,
    scratch: Path,
    python: str,
    limits: StepLimits,
    on_event: Callable[[Event], None],
    cancellation: Cancellation | None = None,
    passed: Sequence[str] = (),
    *,
    sealed: bool = False,
) -> WorkerResult:
    """Run `task`, which writes to the empty folder `out`; `scratch` is its home and temporary folder.

    `passed` names further variables that the worker gets. A `sealed` Python is an installed toolchain, whose packages
    must not change. Raises the InputError or BuildError that the worker reports, and BuildError if it dies, runs out of
    time, or `cancellation` is set.
    """
    cancellation = cancellation or Cancellation()
    env = {
        **worker_environment.environment(scratch, limits.threads, limits.devices),
        **worker_environment.packages(python, sealed),
        **worker_environment.named(passed),
    }
    log, request = scratch / "log.txt", scratch / "request.json"
    (scratch / "tmp").mkdir()
    worker_environment.put_code(scratch)
    request.write_text(json.dumps(task.request(limits), indent=1), encoding="utf-8")
    command = programs.module(python, task.worker, request, out, start=worker_environment.start_of(scratch))
    started = time.monotonic()
    check_start(command, env, cancellation)
    with log.open("w", encoding="utf-8") as errors:
        worker = subprocess.Popen(
            programs.kept(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            **apart(scratch, env),
        )
        exited = supervise(worker, errors, limits, on_event, cancellation)
    seconds = time.monotonic() - started
    redact.redact_file(log)  # the log is kept with the result, or in the user's folder
    cancellation.check()
    if isinstance(exited.answer, dict) and exited.status == 0:
        return WorkerResult(exited.answer, seconds, exited.peak_memory_bytes, log)

    def again(kept: Path) -> list[str]:
        start = worker_environment.start_of(kept)
        words = programs.module(python, task.worker, kept / "request.json", "out", start=start)
        variables = [f"{name}={value}" for name, value in worker_environment.packages(python, sealed).items()]
        return ["env", *variables, *words] if variables else words

    raise failure(task, exited, log, limits, again)


@dataclass
class WorkerExit:
    """How a worker ended. `answer` is None if it reported neither a result nor an error."""

    status: int  # exit code, or minus the signal
    peak_memory_bytes: int
    timed_out: bool
    answer: dict[str, Any] | TrtbuildError | None


def check_start(command: list[str], env: Mapping[str, str], cancellation: Cancellation) -> None:
    """Raises InputError if there is no such program, and BuildError if `cancellation` is set."""
    cancellation.check()
    if shutil.which(command[0], path=env.get("PATH")) is None:
        raise InputError(
            f"{command[0]} cannot be started: there is no such program",
            option="executor.python",
            hint="name a Python",
        )


def apart(folder: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """Options of Popen for a process that works in `folder`, in a session of its own, and answers in lines of text."""
    return {
        "cwd": folder,
        "env": env,
        "start_new_session": True,  # so that a whole family of processes can be ended at once
        "encoding": "utf-8",
        "errors": "replace",
    }


def supervise(
    process: subprocess.Popen[str],
    errors: IO[str],
    limits: StepLimits,
    on_event: Callable[[Event], None],
    cancellation: Cancellation,
    *,
    stop: Callable[[], None] = lambda: None,
    held: bool = False,
) -> WorkerExit:
    """Wait until `process` exits, with a time limit. `stop` runs before a kill: it removes a container, for one.

    The process runs under a keeper. With `held`, for a container engine, it has instead a standard input that stays
    open as long as this process lives.
    """
    timed_out = threading.Event()
    kills: list[threading.Timer] = []

    def end() -> None:
        stop()
        if held:
            programs.sweep(process.pid)
            return
        with contextlib.suppress(ProcessLookupError):  # it has just exited
            os.kill(process.pid, signal.SIGTERM)  # the keeper ends the worker's whole process group
        kills.append(_start_timer(KEEPER_SECONDS, programs.sweep, process.pid))

    def on_timeout() -> None:
        timed_out.set()
        end()

    timer = _start_timer(limits.timeout_seconds, on_timeout)
    assert process.stdout is not None  # noqa: S101  # it was opened as a pipe
    try:
        with cancellation.on_cancel(end):
            answer = worker_events.listen(process.stdout, errors, on_event)
            # Before `wait4` frees the id of a keeper that was killed: end the processes that it left.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            programs.sweep(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        end()
        process.wait()
        raise
    finally:
        for pending in (timer, *kills):
            pending.cancel()
        process.stdout.close()
        if process.stdin is not None:
            process.stdin.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    return WorkerExit(process.returncode, usage.ru_maxrss * 1024, timed_out.is_set(), answer)


def _start_timer(seconds: float, call: Callable[..., None], *words: object) -> threading.Timer:
    """A daemon timer, already started."""
    timer = threading.Timer(seconds, call, words)
    timer.daemon = True
    timer.start()
    return timer


def failure(
    task: Task, exited: WorkerExit, log: Path, limits: StepLimits, again: Callable[[Path], list[str]]
) -> TrtbuildError:
    """The error of a failed step. Log and request are kept in a folder, from which the command `again` reruns it."""
    if isinstance(exited.answer, InputError):
        return exited.answer  # the fault is in the step's input: the log adds nothing
    kept = _keep(task, log)
    details = [*_tail(log), f"log:    {kept / 'log.txt'}"]
    if task.lasting:
        details.append(f"again:  {shlex.join(again(kept))}")
    minutes = limits.timeout_seconds / 60
    if exited.timed_out:
        return BuildError(
            f"step {task.step}: not done after {minutes:.3g} minutes, and ended",
            option=limits.option,
            hint=f"raise {limits.option}",
            details=details,
        )
    if isinstance(exited.answer, TrtbuildError):
        error = exited.answer
        return BuildError(f"step {task.step}: {error.message}", option=error.option, hint=error.hint, details=details)
    peak = f"{exited.peak_memory_bytes / 1e9:.1f} GB at its peak"
    if exited.status == -signal.SIGKILL:
        hint = f"often the kernel, for want of memory: it held {peak}; see `dmesg`"
        return BuildError(f"step {task.step}: the worker was killed (SIGKILL)", hint=hint, details=details)
    how = f"signal {-exited.status}" if exited.status < 0 else f"exit code {exited.status}"
    bounded = limits.memory_bytes is not None  # a native library that cannot allocate may just exit
    return BuildError(
        f"step {task.step}: the worker died with {how}, {peak}",
        option="executor.memory_gb" if bounded else None,
        hint="if it was refused memory, raise executor.memory_gb" if bounded else None,
        details=details,
    )


def _tail(log: Path) -> list[str]:
    """The last lines of a log, without the worker's error line, which the user sees anyway."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line.rstrip() for line in lines if line.strip() and not line.startswith("error: ")]
    return [f"  | {line[:200]}" for line in kept[-LOG_TAIL:]]


def _keep(task: Task, log: Path) -> Path:
    """Copy the step's log and request to a folder outside the store, and return it. Older failures are removed."""
    failures = user_state_path("trtbuild") / "failures"
    kept = failures / f"{task.step}-{task.key[:12]}"
    try:
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("log.txt", "request.json"):
            shutil.copyfile(log.with_name(name), kept / name)
            redact.redact_file(kept / name)
        worker_environment.put_code(kept)
        for old in sorted(failures.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT_FAILURES]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        print(f"note: the log of the failed step could not be kept: {error}", file=sys.stderr)
    return kept
