"""The worker's side of a step: read the request, check the tools, run, and answer in JSON lines.

A worker is a process such as `python -m trtbuild.networks request.json out/`. Its standard output is the protocol,
with one JSON object a line. Everything else, also what native libraries print, goes to its standard error, which the
executor keeps as the step's log:

    {"event": "progress", "what": "weights", "done": 1048576, "total": 98362432, "unit": "B"}
    {"event": "result", "facts": {...}}
    {"event": "error", "kind": "input" | "build", "message": "...", "option": null, "hint": null}

`trtbuild.executors` writes the request:

    {"step": "engine", "options": {...}, "model": {"config.json": "/abs/path", ...} | null,
     "inputs": {"network": "/abs/folder"}, "toolchain": {"onnx": "1.23.1", ...}, "memory_bytes": n | null,
     "hints": ["/abs/file", ...], "learnt": "/abs/file" | null}
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any, TypeVar

from trtbuild import untrusted
from trtbuild.errors import BuildError, InputError, TrtbuildError

HELD = "TRTBUILD_HELD"  # set where standard input is open for as long as trtbuild lives
Json = Any  # a value that json.loads can return
T = TypeVar("T")


@dataclass(frozen=True)
class StepRequest:
    """One step to run, as the worker reads it: the part of the executor's `Task` that a result may depend on.

    `model` maps logical checkpoint paths to files; `inputs` maps upstream steps to folders. `hints` are files of
    earlier builds that make this one quicker; the step may write its own to `learnt`.
    """

    step: str
    options: Mapping[str, Json]
    model: Mapping[str, Path]
    inputs: Mapping[str, Path]
    toolchain: Mapping[str, str]
    memory_bytes: int | None
    hints: tuple[Path, ...] = ()
    learnt: Path | None = None

    @classmethod
    def read(cls, path: Path) -> StepRequest:
        raw = untrusted.read_object(path, option=None)
        return cls(
            step=raw["step"],
            options=raw["options"],
            model={name: Path(file) for name, file in (raw["model"] or {}).items()},
            inputs={name: Path(folder) for name, folder in raw["inputs"].items()},
            toolchain=raw["toolchain"],
            memory_bytes=raw["memory_bytes"],
            hints=tuple(map(Path, raw.get("hints", ()))),
            learnt=Path(raw["learnt"]) if raw.get("learnt") else None,
        )

    def folder(self, home: Path) -> Path:
        """The checkpoint as one folder: that of the step `unpack`, or else `home`/model with links to its files.

        Raises InputError if it has no config.json.
        """
        unpacked = self.inputs.get("unpack")
        if unpacked is not None:
            return unpacked
        folder = home / "model"
        for name, path in self.model.items():
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        if not (folder / "config.json").is_file():
            raise InputError("the checkpoint has no config.json", option="model.source")
        return folder

    def choice(self, option: str, allowed: Sequence[T]) -> T:
        """The value of the dotted `option`. Raises InputError if it is not one of `allowed`."""
        value = self.options.get(option)
        if value not in allowed:
            raise InputError(f"{option}={value} is not one of {', '.join(map(str, allowed))}", option=option)
        return allowed[allowed.index(value)]


class Reporter:
    """Sends events to the executor that started this worker."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def _send(self, event: str, **fields: Json) -> None:
        self._stream.write(json.dumps({"event": event, **fields}) + "\n")
        self._stream.flush()

    def progress(self, what: str, done: int, total: int, unit: str = "B") -> None:
        """Report that `done` of `total` units of `what` are finished; the unit "B" is bytes."""
        self._send("progress", what=what, done=done, total=total, unit=unit)

    def percents(self, what: str) -> Callable[[int, int], None]:
        """A function of (bytes done, bytes in all) that reports each percent of `what` once."""
        shown = -1

        def done(size: int, total: int) -> None:
            nonlocal shown
            percent = size * 100 // total
            if percent > shown:
                shown = percent
                self.progress(what, size, total)

        return done

    def text(self, piece: str) -> None:
        """Stream a piece of generated text (`trtbuild run`)."""
        self._send("text", text=piece)

    def result(self, facts: Mapping[str, Json]) -> None:
        self._send("result", facts=dict(facts))

    def error(self, error: TrtbuildError) -> None:
        kind = "input" if isinstance(error, InputError) else "build"
        self._send("error", kind=kind, message=error.message, option=error.option, hint=error.hint)


def matches(found: str, wanted: str) -> bool:
    """Whether the version `found` is the pinned one: "2.13.0" matches "2.13.0+cpu", as with `==` in PEP 440."""
    return found == wanted or ("+" not in wanted and found.partition("+")[0] == wanted)


def check_toolchain(pinned: Mapping[str, str]) -> None:
    """Raises BuildError if the installed tools are not those in the key."""
    for name, wanted in sorted(pinned.items()):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise BuildError(
                f"{name} {wanted} is needed by this step and is not installed in {sys.executable}",
                option="compiler.version",
                hint=f"install it: pip install '{name}=={wanted}'",
            ) from None
        if not matches(found, wanted):
            raise BuildError(
                f"{name} {found} is installed, and the config pins {wanted}",
                option="compiler.version",
                hint=f"pip install '{name}=={wanted}', or take what is installed: compiler.version=installed",
            )


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies; for a worker and the programs that it starts."""
    # PR_SET_PDEATHSIG (prctl(2)): a killed trtbuild leaves no orphaned worker.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _end_with_stdin() -> None:
    """End this process when its standard input is closed: a container would outlive the trtbuild that started it."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        if os.getpid() == 1:
            os._exit(1)  # the first process takes all others along
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _limit_memory(limit: int | None) -> None:
    # RLIMIT_DATA counts private writable memory, not the read-only mappings of the weight files.
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _as_error(failure: BaseException, limit: int | None) -> TrtbuildError:
    if isinstance(failure, TrtbuildError):
        return failure
    text = str(failure)
    if isinstance(failure, MemoryError) or "bad_alloc" in text or "bad allocation" in text:
        bound = f" (executor.memory_gb={limit / 1e9:g})" if limit else ""
        return BuildError(
            f"the worker ran out of memory{bound}",
            option="executor.memory_gb",
            hint="raise executor.memory_gb, or take a smaller model or profile",
        )
    if isinstance(failure, ModuleNotFoundError) and failure.name:
        return BuildError(
            f"{failure.name} is not installed in {sys.executable}, and this step needs it",
            option="executor.python",
            hint="executor=auto installs what a locked toolchain has; else install it there",
        )
    if isinstance(failure, OSError) and failure.strerror:
        return BuildError(f"{failure.strerror}: {failure.filename or 'in the worker'}")
    return BuildError(f"{type(failure).__name__}: {text.splitlines()[0] if text else 'no message'}")


def serve(target: str) -> None:
    """Run the step function `target` ("package.module:function") for the request named in argv; exit on an error.

    The function takes (StepRequest, out folder, Reporter) and returns facts for the record (JSON). It is imported
    after the versions of its tools were checked, so its module may import them at the top.
    """
    die_with_parent()
    if HELD in os.environ:
        _end_with_stdin()
    # Native libraries print to descriptor 1: the protocol moves to a copy of it, and their output goes to the log.
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    reporter = Reporter(protocol)
    limit: int | None = None
    try:
        request, out = StepRequest.read(Path(sys.argv[1])), Path(sys.argv[2])
        out.mkdir(parents=True, exist_ok=True)  # it is missing only if a user runs a worker by hand
        limit = request.memory_bytes
        check_toolchain(request.toolchain)
        _limit_memory(limit)
        module, _, function = target.partition(":")
        reporter.result(getattr(importlib.import_module(module), function)(request, out, reporter))
    except (Exception, KeyboardInterrupt) as failure:  # noqa: BLE001  # a worker's edge: all becomes one event
        if isinstance(failure, TrtbuildError):
            print(f"error: {failure.message}", file=sys.stderr)  # noqa: T201  # to the log
        else:
            traceback.print_exc()
        reporter.error(_as_error(failure, limit))
        sys.exit(1)
