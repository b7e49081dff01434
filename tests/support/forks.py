"""Real commands, each forked from a process that has imported it: half of a command's time is Python reading modules.

Everything else is as in a process of its own: arguments, environment, folder, standard streams, exit. What Python
and the loader read of their environment before `main` is set where the process that forks is started, one for each.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trtbuild import entry

#: program -> the module with its `main` (or MAINS), and more that is read before there is a command
PROGRAMS = {
    "trtbuild": ("trtbuild.entry", entry.module("toolchain"), entry.module("plan")),
    "trtstore": ("trtbuild.cli.store_command", "trtstore.cli.team"),
    "trtstore alone": ("trtstore.cli.main", "trtstore.cli.team"),  # as `python -m trtstore`
    # What the Hub's client imports. It itself reads its environment when it is imported: that is the child's.
    "probe": ("tests.sources.probe", "trtstore", "httpx2", "httpcore2", "yaml", "tqdm.auto", "fsspec"),
}
MAINS = {"trtstore alone": "run_trtstore"}
REPOSITORY = Path(__file__).parents[2]
#: what Python, or the loader of shared libraries, reads at its start
ITS_OWN = re.compile(r"(LD_|PYTHON|LC_|LANG$|MALLOC_|GLIBC_)")

_idle: dict[tuple[str, tuple[tuple[str, str], ...]], list[_Server]] = {}
_turn = threading.Lock()


def run(command: Path, args: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float) -> tuple[int, str, str]:
    """Exit code (negative: the signal that ended it), stdout and stderr. Raises subprocess.TimeoutExpired."""
    return start(command, args, cwd, env).communicate(timeout)


def start(command: Path, args: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Running:
    """The command at work; somebody must `communicate` with it."""
    own = tuple(sorted((name, value) for name, value in env.items() if ITS_OWN.match(name)))
    with _turn:
        idle = _idle.setdefault((command.name, own), [])
        server = idle.pop() if idle else _Server(command.name, dict(own))
    return Running(server, [str(command), *args], cwd, env, lambda: idle.append(server))


class Running:
    """A command in the process `pid`, a zombie once it has ended, until `communicate` asks how."""

    def __init__(
        self,
        server: _Server,
        argv: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        on_end: Callable[[], object],
    ) -> None:
        self._server, self._argv, self._on_end = server, argv, on_end
        self._folder = tempfile.TemporaryDirectory(prefix="forks-")
        self._streams = [Path(self._folder.name, name) for name in ("out", "err")]
        self.pid = server.start(argv, cwd, env, self._streams)

    def communicate(self, timeout: float) -> tuple[int, str, str]:
        """As `run`, once it has ended."""
        late = threading.Event()

        def end() -> None:
            late.set()
            os.kill(self.pid, signal.SIGKILL)

        timer = threading.Timer(timeout, end)
        timer.start()
        code = self._server.end()
        timer.cancel()
        with self._folder:
            out, err = (stream.read_text() for stream in self._streams)
        with _turn:
            self._on_end()
        if late.is_set():
            raise subprocess.TimeoutExpired(list(self._argv), timeout, out, err)
        return code, out, err


class _Server:
    """The parent's end of a process that forks, one command at a time. It ends when the parent does."""

    def __init__(self, program: str, own: Mapping[str, str]) -> None:
        env = {name: value for name, value in os.environ.items() if not ITS_OWN.match(name)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, program],
            cwd=REPOSITORY,
            env={**env, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], streams: Sequence[Path]) -> int:
        """The pid of a child that becomes the command."""
        self._say({"argv": [*argv], "cwd": str(cwd), "env": {**env}, "streams": [*map(str, streams)]})
        return self._hear()

    def end(self) -> int:
        """How it ended, once it has; until this is asked, its pid is no other process's."""
        self._say({})
        return self._hear()

    def _say(self, request: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def serve(program: str) -> None:
    """For each request a child that is the command; says its pid and, when it is asked, how it ended."""
    module, *_ = [importlib.import_module(name) for name in PROGRAMS[program]]
    main = getattr(module, MAINS.get(program, "main"))
    gc.freeze()
    with os.fdopen(os.dup(1), "w") as answers:
        for line in sys.stdin:
            if (child := os.fork()) == 0:
                _become(json.loads(line))
                sys.exit(main())
            print(child, file=answers, flush=True)
            sys.stdin.readline()
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _become(request: Mapping[str, Any]) -> None:
    for number, path in enumerate((os.devnull, *request["streams"])):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv[:] = request["argv"]
    sys.path[0] = str(Path(sys.argv[0]).parent)


if __name__ == "__main__":
    serve(sys.argv[1])
