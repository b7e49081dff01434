"""Run one step in a worker process of its own: few environment variables, a log, limits, and what it took."""

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
KEEPERS = 10.0  # seconds that a keeper may take to end its family


@dataclass(frozen=True)
class StepLimits:
    """Bounds of one step; `None` is no bound. Memory counts private writable bytes (RLIMIT_DATA).

    `devices` is the worker's CUDA_VISIBLE_DEVICES; None is that of this process. `option` sets the time.
    """

    timeout_seconds: float
    memory_bytes: int | None
    threads: int | None
    devices: str | None = None
    option: str = "executor.timeout_minutes"


@dataclass(frozen=True)
class Task:
    """A step ready to run. `model` maps logical checkpoint paths to files, `inputs` upstream steps to folders.

    `lasting` says whether those folders outlive a failure, so that the step can be run again by hand. `hints` are
    files that may make it quicker, and `learnt` is one that it may write for the next.
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
class Ran:
    """What a worker answered and took: wall seconds, and peak resident bytes of the largest process."""

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
    ending: Cancellation | None = None,
    passed: Sequence[str] = (),
    *,
    sealed: bool = False,
) -> Ran:
    """Run `task` into the empty folder `out`, with `scratch` as its home and temporary folder.

    `passed` names variables that the worker gets, too. What is `sealed` holds packages that nothing may be added to.
    Raises InputError or BuildError as the worker says; BuildError when it died, ran out of time, or `ending` came.
    """
    ending = ending or Cancellation()
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
    check_start(command, env, ending)
    with log.open("w", encoding="utf-8") as errors:
        worker = subprocess.Popen(
            programs.kept(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            **apart(scratch, env),
        )
        ended = supervise(worker, errors, limits, on_event, ending)
    seconds = time.monotonic() - started
    redact.scrub(log)  # it is kept with the result, or in the user's folder
    ending.check()
    if isinstance(ended.answer, dict) and ended.status == 0:
        return Ran(ended.answer, seconds, ended.peak_memory_bytes, log)

    def again(kept: Path) -> list[str]:
        found = programs.module(
            python, task.worker, kept / "request.json", "out", start=worker_environment.start_of(kept)
        )
        more = worker_environment.packages(python, sealed)
        return [*(["env"] if more else []), *(f"{name}={value}" for name, value in more.items()), *found]

    raise failure(task, ended, log, limits, again)


@dataclass
class WorkerExit:
    status: int  # exit code, or minus the signal
    peak_memory_bytes: int
    timed_out: bool
    answer: dict[str, Any] | TrtbuildError | None


def check_start(command: list[str], env: Mapping[str, str], ending: Cancellation) -> None:
    """Raises InputError if there is no such program, and BuildError if `ending` has come."""
    ending.check()
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
    ending: Cancellation,
    *,
    stop: Callable[[], None] = lambda: None,
    held: bool = False,
) -> WorkerExit:
    """Wait for `process`, with a time limit. `stop` ends what it started elsewhere, before it is killed itself.

    It runs under a keeper, or with `held`, for a container's engine, with a standard input that stays open for as long
    as this process lives.
    """
    timed_out = threading.Event()

    late: list[threading.Timer] = []

    def end() -> None:
        stop()
        if held:
            programs.sweep(process.pid)
            return
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(process.pid, signal.SIGTERM)  # its keeper ends all
        late.append(_soon(KEEPERS, programs.sweep, process.pid))

    def on_timeout() -> None:
        timed_out.set()
        end()

    timer = _soon(limits.timeout_seconds, on_timeout)
    assert process.stdout is not None  # noqa: S101  # it was opened as a pipe
    try:
        with ending.awaited(end):
            answer = worker_events.listen(process.stdout, errors, on_event)
            # What a killed keeper left, while its id is still its own.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            programs.sweep(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        end()
        process.wait()
        raise
    finally:
        for each in (timer, *late):
            each.cancel()
        process.stdout.close()
        if process.stdin is not None:
            process.stdin.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    return WorkerExit(process.returncode, usage.ru_maxrss * 1024, timed_out.is_set(), answer)


def _soon(seconds: float, call: Callable[..., None], *words: object) -> threading.Timer:
    """A timer that has begun."""
    timer = threading.Timer(seconds, call, words)
    timer.daemon = True
    timer.start()
    return timer


def failure(
    task: Task, ended: WorkerExit, log: Path, limits: StepLimits, again: Callable[[Path], list[str]]
) -> TrtbuildError:
    """The error of a step that failed; its log and request are kept, in the folder that `again` makes a command of."""
    if isinstance(ended.answer, InputError):
        return ended.answer  # the fault is in what it was given: its log adds nothing
    kept = _keep(task, log)
    details = [*_tail(log), f"log:    {kept / 'log.txt'}"]
    if task.lasting:
        details.append(f"again:  {shlex.join(again(kept))}")
    minutes = limits.timeout_seconds / 60
    if ended.timed_out:
        return BuildError(
            f"step {task.step}: not done after {minutes:.3g} minutes, and ended",
            option=limits.option,
            hint=f"raise {limits.option}",
            details=details,
        )
    if isinstance(ended.answer, TrtbuildError):
        error = ended.answer
        return BuildError(
            f"step {task.step}: {error.message}", option=error.option, hint=error.hint, details=details
        )
    peak = f"{ended.peak_memory_bytes / 1e9:.1f} GB at its peak"
    if ended.status == -signal.SIGKILL:
        hint = f"often the kernel, for want of memory: it held {peak}; see `dmesg`"
        return BuildError(f"step {task.step}: the worker was killed (SIGKILL)", hint=hint, details=details)
    how = f"signal {-ended.status}" if ended.status < 0 else f"exit code {ended.status}"
    bounded = limits.memory_bytes is not None  # a native library that is refused memory may just exit
    return BuildError(
        f"step {task.step}: the worker died with {how}, {peak}",
        option="executor.memory_gb" if bounded else None,
        hint="if it was refused memory, raise executor.memory_gb" if bounded else None,
        details=details,
    )


def _tail(log: Path) -> list[str]:
    """The last lines of a log, but for the worker's own word of the error, which is told anyway."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line.rstrip() for line in lines if line.strip() and not line.startswith("error: ")]
    return [f"  | {line[:200]}" for line in kept[-LOG_TAIL:]]


def _keep(task: Task, log: Path) -> Path:
    """Keep a failed step's log and request outside of the store, the last few of them."""
    failures = user_state_path("trtbuild") / "failures"
    kept = failures / f"{task.step}-{task.key[:12]}"
    try:
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("log.txt", "request.json"):
            shutil.copyfile(log.with_name(name), kept / name)
            redact.scrub(kept / name)
        worker_environment.put_code(kept)
        for old in sorted(failures.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT_FAILURES]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        print(f"note: the log of the failed step could not be kept: {error}", file=sys.stderr)
    return kept
