"""Runs one of TensorRT-LLM's tools: its output goes to the step's log, and a failure is reported with its cause."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from trtbuild.compilers.tensorrt_llm import diagnosis
from trtbuild.errors import InputError
from trtbuild.processes import programs
from trtbuild.worker import HELD, die_with_parent

EXAMPLES = "TENSORRT_LLM_EXAMPLES"  # the folder of the scripts, outside of NVIDIA's image
_IN_IMAGE = "/app/tensorrt_llm/examples"
_KEPT = 4000  # last lines of the log, in which the cause of a failure is looked for


def program(name: str) -> str:
    """The path of a tool such as `trtllm-build`, beside this Python or on PATH. Raises InputError."""
    beside = Path(sys.executable).parent
    path = programs.find(name, beside=beside)
    if path is None:
        raise InputError(
            f"{name} is neither beside {sys.executable} nor on PATH",
            option="executor.python",
            hint="name a Python that has TensorRT-LLM, or take NVIDIA's image: executor=container",
        )
    return path


def script(name: str) -> list[str]:
    """The command of one of the scripts in TensorRT-LLM's `examples`. Raises InputError."""
    root = Path(os.environ.get(EXAMPLES, _IN_IMAGE))
    path = root / name
    if not path.is_file():
        raise InputError(
            f"{path} is not there: the wheel of TensorRT-LLM does not hold its scripts",
            option="executor.env",
            hint=f"get the folder `examples` of the same release of its repository, set {EXAMPLES} to it and pass that "
            f"on: executor.env=[{EXAMPLES}]; or take NVIDIA's image, which has them: executor=container",
        )
    return [sys.executable, str(path)]


def run(command: Sequence[str], home: Path, on_line: Callable[[str], None] = lambda _line: None) -> int:
    """Run a tool in the folder `home`; returns the peak resident bytes of the largest process so far.

    `on_line` gets each line of its output. Raises BuildError, with the cause and a hint as far as the log tells them.
    """
    print("$", *command, file=sys.stderr, flush=True)  # noqa: T201  # to the log
    tail: deque[str] = deque(maxlen=_KEPT)
    kills = diagnosis.oom_kills()
    with subprocess.Popen(
        list(command),
        cwd=home,
        env=programs.cleaned() | programs.allowed(()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # In a container all processes die with the worker, which has a second thread: nothing may run after a fork.
        preexec_fn=None if HELD in os.environ else die_with_parent,
    ) as process:
        assert process.stdout is not None  # noqa: S101  # it was opened as a pipe
        for line in process.stdout:
            sys.stderr.write(line)
            sys.stderr.flush()
            on_line(line)
            tail.append(line.rstrip("\n"))
    if process.returncode:
        name = command[1] if command[0] == sys.executable else command[0]
        limited = diagnosis.oom_kills() > kills
        raise diagnosis.failure(Path(name).name, process.returncode, list(tail), limited=limited)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
