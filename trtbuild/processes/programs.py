"""How trtbuild starts other programs: isolated from the working directory and from variables that load code.

A program is found on the absolute folders of PATH. An interpreter ignores the working directory, PYTHON* variables and
the user's site. What may start processes of its own runs under `keeper`, which ends all of them with trtbuild.
tests/processes/test_processes.py lists every place that starts a process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import site
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
KEEPER, START = _HERE / "keeper.py", _HERE / "start.py"
#: `start`, in a folder that holds the package trtbuild.
START_IN_CODE = "trtbuild/processes/start.py"
MORE = "TRTBUILD_PATH"  # folders of packages that `start` adds behind all others

#: Lists of folders, in which an empty or a relative one means the working directory.
_LISTS = ("PATH", "LD_LIBRARY_PATH")
#: Variables that have a program load or run code that it would not load otherwise.
_LOADERS = (
    *("LD_PRELOAD", "LD_AUDIT", "GCONV_PATH", "GLIBC_TUNABLES"),
    *("GCC_EXEC_PREFIX", "COMPILER_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH"),
    *("BASH_ENV", "ENV", "PERL5LIB", "PERL5OPT", "VIRTUAL_ENV", "CONDA_PREFIX"),
)
_PATIENCE = 10.0  # seconds for a keeper that was asked to end its family


def python(interpreter: str | Path, *words: str | Path) -> list[str]:
    """The command of a Python whose imports are its own installation's alone."""
    return [str(interpreter), "-I", *map(str, words)]


def own(*words: str | Path) -> list[str]:
    """The command of this very Python for more of trtbuild: with the user's site just where trtbuild lies in it."""
    in_user_site = bool(site.ENABLE_USER_SITE) and _HERE.is_relative_to(site.getusersitepackages())
    return [sys.executable, *(("-P", "-E") if in_user_site else ("-I",)), *map(str, words)]


def module(interpreter: str | Path, name: str, *words: str | Path, start: Path = START) -> list[str]:
    """The command of a module of ours, in an environment that `allowed` made; any Python 3.10 or later.

    Not `-I`, which ignores PYTHONHASHSEED. The `start` that is named says whose trtbuild is imported.
    """
    return [str(interpreter), "-s", str(start), name, *map(str, words)]


def find(name: str, environ: Mapping[str, str] | None = None, beside: Path | None = None) -> str | None:
    """The absolute path of a program: in the folder `beside`, else on PATH, whose relative entries do not count."""
    given = os.environ if environ is None else environ
    path = absolute(given.get("PATH", os.defpath))
    program = shutil.which(name, path=path if beside is None else os.pathsep.join([str(beside), path]))
    return program if program is not None and Path(program).is_absolute() else None


def absolute(listed: str) -> str:
    """Of a list of folders those that are named by an absolute path."""
    return os.pathsep.join(entry for entry in listed.split(os.pathsep) if entry.startswith("/"))


def cleaned(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The user's environment without what makes programs load other code.

    For programs that the user has set up by variables: an installer, a container engine, Slurm.
    """
    given = os.environ if environ is None else environ
    return {
        name: absolute(value) if name in _LISTS else value
        for name, value in given.items()
        if name not in _LOADERS and not name.startswith("PYTHON")
    }


def allowed(names: Iterable[str]) -> dict[str, str]:
    """Only these variables of the user, plus those that isolate a Python which is started below."""
    passed = {name: os.environ[name] for name in names if name in os.environ}
    return cleaned(passed) | {"PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}


def inherited() -> dict[str, str]:
    """This process's own environment, and its packages: for what a worker starts by `module`."""
    return allowed(os.environ) | {MORE: absolute(os.pathsep.join(sys.path))}


def settle() -> None:
    """Let no library of this process find a program in the working directory either."""
    for name in _LISTS:
        if name in os.environ:
            os.environ[name] = absolute(os.environ[name])


def kept(command: Sequence[str]) -> list[str]:
    """The command under a keeper: it, and all that it starts, end with this process, however that ends."""
    return [*python(sys.executable, "-S", KEEPER), str(os.getpid()), *command]


def begin(command: Sequence[str], env: Mapping[str, str], cwd: str | Path, **more: Any) -> subprocess.Popen[Any]:
    """Start a command under a keeper, which `end` ends. Raises OSError."""
    return subprocess.Popen(kept(command), env=dict(env), cwd=cwd, start_new_session=True, **more)


def end(process: subprocess.Popen[Any]) -> None:
    """End what `begin` started, with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
    sweep(process.pid)


def sweep(group: int) -> None:
    """Kill what is left of a process group: nothing, where its keeper could do its work."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


@dataclass(frozen=True)
class Done:
    """How a program ended, and its output."""

    code: int
    out: str
    err: str


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    cwd: str | Path,
    timeout: float | None = None,
    attend: Callable[[subprocess.Popen[str]], Done] | None = None,
) -> Done:
    """Run a command under a keeper to its end, for which `attend` waits where it is given.

    Raises OSError, subprocess.TimeoutExpired, and what `attend` raises.
    """
    process = begin(
        command,
        env,
        cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    try:
        if attend is not None:
            return attend(process)
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        end(process)
        raise
    return Done(process.returncode, out, err)
