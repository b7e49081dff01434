"""Runs one step in a container of the compiler's image, by docker, podman or nerdctl.

A container sees, read-only, the checkpoint's files, the results of the upstream steps and trtbuild's own code. It can
write to an empty folder for the result and to a temporary folder. It has no network, no privileges, and only the
environment variables that the config names.
"""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import trtbuild
from trtbuild import redact
from trtbuild.errors import BuildError, InputError, TrtbuildError
from trtbuild.executors import worker_environment
from trtbuild.executors.cancellation import Cancellation
from trtbuild.executors.process import (
    StepLimits,
    Task,
    WorkerExit,
    WorkerResult,
    apart,
    check_start,
    failure,
    supervise,
)
from trtbuild.executors.worker_events import Event
from trtbuild.processes import programs
from trtbuild.worker import HELD

PROCESSES = 8192  # processes and threads of one container: a compiler starts some for each core
ENGINES = ("docker", "podman", "nerdctl")
ROOT = Path("/trtbuild")  # of everything that trtbuild mounts into a container
CODE, HOME, OUT, MODEL, INPUTS = (ROOT / name for name in ("code", "home", "out", "model", "inputs"))
#: Variables of this process that a container gets unchanged.
_PASSED = ("CUDA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES")
_GPU_FLAGS: Mapping[str, tuple[str, ...]] = {
    "runtime": ("--gpus", "all"),
    "cdi": ("--device", "nvidia.com/gpu=all"),
    "none": (),
}
#: What docker, podman and nerdctl print if they cannot start a container -> what that means.
_START_ERRORS = (
    (
        "could not select device driver",
        "it knows no NVIDIA GPUs: the NVIDIA container toolkit is not set up for it",
    ),
    ("unresolvable CDI devices", "it finds no CDI description of the GPUs"),
    ("nvidia-container-cli", "NVIDIA's container toolkit could not bring the GPU in"),
    ("unknown or invalid runtime name: nvidia", "NVIDIA's runtime is not registered with it"),
    ("Cannot connect to the Docker daemon", "its daemon is not running, or this user may not talk to it"),
    ("permission denied while trying to connect", "this user may not talk to its daemon"),
)


@dataclass(frozen=True)
class Container:
    """How containers are run here. `engine` is the program's path; `env` holds names of variables, never values."""

    engine: str
    image: str
    gpus: str = "auto"
    network: bool = False
    env: tuple[str, ...] = ()
    engine_flags: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """docker, podman or nerdctl."""
        return Path(self.engine).name

    @property
    def base(self) -> list[str]:
        return [self.engine, *self.engine_flags]


def engine(name: str) -> str:
    """The path of docker, podman or nerdctl; "auto" takes the first that is installed. Raises InputError."""
    for candidate in ENGINES if name == "auto" else (name,):
        path = programs.find(candidate)
        if path is not None:
            return path
    raise InputError(
        f"none of {', '.join(ENGINES)} is installed" if name == "auto" else f"{name} is not on PATH",
        option="executor.engine",
        hint="`trtbuild doctor` says how to get one",
    )


def run(
    task: Task,
    out: Path,
    scratch: Path,
    container: Container,
    limits: StepLimits,
    on_event: Callable[[Event], None],
    cancellation: Cancellation | None = None,
) -> WorkerResult:
    """Run `task`, which writes to the empty folder `out`; `scratch` holds its log and temporary files.

    Raises the InputError or BuildError that the worker reports, and BuildError if the container does not start, is
    killed, runs out of time, or `cancellation` is set. The container is removed in every case.
    """
    cancellation = cancellation or Cancellation()
    log, request = scratch / "log.txt", scratch / "request.json"
    (scratch / "tmp").mkdir()
    unlimited = replace(limits, memory_bytes=None)  # the container has a limit: the worker sets none
    request.write_text(json.dumps(_inside(task, scratch).request(unlimited), indent=1), encoding="utf-8")
    name = f"trtbuild-{task.step}-{secrets.token_hex(6)}"
    command = words(container, task, out, scratch, limits, name)
    started = time.monotonic()
    try:
        with log.open("w", encoding="utf-8") as errors:
            env = {
                **programs.cleaned(),
                **worker_environment.named(container.env),
            }  # the engine's own: it needs HOME and more
            check_start(command, env, cancellation)
            engine_process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, **apart(scratch, env)
            )
            exited = supervise(
                engine_process,
                errors,
                limits,
                on_event,
                cancellation,
                stop=lambda: _stop(container, name),
                held=True,
            )
        redact.redact_file(log)
        cancellation.check()
        seconds = time.monotonic() - started
        if isinstance(exited.answer, dict) and exited.status == 0:
            peak = exited.answer.get("peak_memory_bytes")
            return WorkerResult(exited.answer, seconds, peak if isinstance(peak, int) else 0, log, "container")
        raise _failure(task, exited, log, limits, container, (command, scratch, out), name)
    finally:
        _end(container, name)


def words(container: Container, task: Task, out: Path, scratch: Path, limits: StepLimits, name: str) -> list[str]:
    """The whole command, the worker's own arguments included."""
    run = [*container.base, "run", "--interactive", "--name", name, "--entrypoint", "python3"]
    run += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--workdir", str(HOME)]
    if container.kind != "nerdctl":  # else SELinux denies access to the mounted folders
        run += ["--security-opt", "label=disable"]
    if container.kind != "podman":  # which has its own limit, and refuses one where it has no control groups
        run += ["--pids-limit", str(PROCESSES)]
    if not container.network:
        run += ["--network", "none"]
    if limits.memory_bytes is not None:
        run += ["--memory", str(limits.memory_bytes)]
    run += [*_user(container), *gpu_flags(container)]
    for variable, value in _environment(limits).items():
        run += ["--env", f"{variable}={value}"]
    passed = [known for known in _PASSED if known in os.environ and known not in _environment(limits)]
    for variable in (*container.env, *passed):
        run += ["--env", variable]  # the engine reads the value itself, so that no command line shows it
    for source, target, writable in _mounts(task, out, scratch):
        run += ["--mount", _mount(source, target, writable)]
    request = HOME / "request.json"
    start = str(CODE / programs.START_IN_CODE)  # not `-m`, which looks into the working directory first
    return [*run, *container.flags, reference(container.image), start, task.worker, str(request), str(OUT)]


def reference(image: str) -> str:
    """`image` without its tag if it has a digest: podman refuses both together."""
    name, at, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}{at}{digest}" if at else image.removeprefix("sha256:")


def _inside(task: Task, scratch: Path) -> Task:
    """The task as the container sees its paths."""
    return replace(
        task,
        model={name: MODEL / name for name in task.model},
        inputs={name: INPUTS / name for name in task.inputs},
        hints=tuple(HOME / path.relative_to(scratch) for path in task.hints),
        learnt=None if task.learnt is None else HOME / task.learnt.relative_to(scratch),
    )


def _mounts(task: Task, out: Path, scratch: Path) -> Iterator[tuple[Path, Path, bool]]:
    """(path here, path in the container, writable) of each mount."""
    yield Path(trtbuild.__file__).parent, CODE / "trtbuild", False
    for name, path in task.model.items():
        yield path.resolve(), MODEL / name, False  # a Hub cache holds links
    for name, path in task.inputs.items():
        yield path.resolve(), INPUTS / name, False
    yield scratch, HOME, True
    yield out, OUT, True


def _mount(source: Path, target: Path, writable: bool) -> str:
    """A value of --mount, which is one line of CSV."""
    fields = ["type=bind", f"source={source}", f"target={target}", *([] if writable else ["readonly"])]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _user(container: Container) -> list[str]:
    """Options by which files that the container writes belong to this user."""
    if os.getuid() == 0:
        return []
    if container.kind == "podman":
        return ["--userns", "keep-id"]
    return ["--user", f"{os.getuid()}:{os.getgid()}"]


def gpu_flags(container: Container) -> tuple[str, ...]:
    """Options that give the container its GPUs."""
    usual = "cdi" if container.kind == "podman" else "runtime"
    return _GPU_FLAGS[usual if container.gpus == "auto" else container.gpus]


def _environment(limits: StepLimits) -> dict[str, str]:
    env = {
        "HOME": str(HOME),
        "TMPDIR": str(HOME / "tmp"),
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(CODE),
        "PYTHONSAFEPATH": "1",  # never import from the working directory
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",  # a step reads what it was given
        HELD: "1",
    }
    if limits.threads is not None:
        env |= {"OMP_NUM_THREADS": str(limits.threads), "TRTBUILD_THREADS": str(limits.threads)}
    if limits.devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = limits.devices
    return env


def _stop(container: Container, name: str) -> None:
    """Kill the container at once, and remove it."""
    # podman's `rm` sends SIGTERM, which a container's first process ignores, and then waits ten seconds.
    if container.kind == "podman":
        _output([*container.base, "kill", "--signal", "KILL", name])
    _end(container, name)


def _end(container: Container, name: str) -> None:
    """Kill the container, if it still runs, and remove it."""
    _output([*container.base, "rm", "--force", "--volumes", name])


def _out_of_memory(container: Container, name: str) -> bool:
    """Whether the kernel killed a process of the container for its memory limit."""
    return _output([*container.base, "inspect", "--format", "{{.State.OOMKilled}}", name]).strip() == "true"


def _output(command: list[str]) -> str:
    """What the container engine prints; nothing if it cannot be run, or takes more than a minute."""
    try:
        finished = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            text=True,
            errors="replace",
            env=programs.cleaned(),
            cwd="/",
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return finished.stdout


def _failure(
    task: Task,
    exited: WorkerExit,
    log: Path,
    limits: StepLimits,
    container: Container,
    ran: tuple[list[str], Path, Path],
    name: str,
) -> TrtbuildError:
    command, scratch, out = ran

    def again(kept: Path) -> list[str]:
        places = {str(out): str(Path.cwd() / "out"), str(scratch): str(kept)}
        return [_replaced(word, places) for word in command]

    if exited.answer is None and not exited.timed_out and exited.status in (125, 126, 127):
        return _not_started(task, exited, log, limits, container, again)
    if limits.memory_bytes is not None and _out_of_memory(container, name):
        whole = failure(task, replace(exited, answer=None), log, limits, again)
        return BuildError(
            f"step {task.step}: it took more than the {limits.memory_bytes / 1e9:g} GB that its container was allowed",
            option="executor.memory_gb",
            hint="raise executor.memory_gb, or leave it out",
            details=whole.details,
        )
    if exited.status > 128:  # how a shell reports a signal
        exited = replace(exited, status=128 - exited.status)
    return failure(task, exited, log, limits, again)


def _not_started(
    task: Task,
    exited: WorkerExit,
    log: Path,
    limits: StepLimits,
    container: Container,
    again: Callable[[Path], list[str]],
) -> TrtbuildError:
    printed = log.read_text(encoding="utf-8", errors="replace")
    known = [meaning for words, meaning in _START_ERRORS if words in printed]
    what = {
        125: f"{container.kind} could not start the container",
        126: f"python3 of {container.image} cannot be started",
        127: f"{container.image} has no python3",
    }[exited.status]
    whole = failure(task, exited, log, limits, again)
    return BuildError(
        f"step {task.step}: {what}" + (f": {known[0]}" if known else ""),
        option="compiler.image" if exited.status != 125 else "executor.engine",
        hint="`trtbuild doctor` with the same options looks for the reason",
        details=whole.details,
    )


def _replaced(word: str, places: Mapping[str, str]) -> str:
    for old, new in places.items():
        word = word.replace(old, new)
    return word
