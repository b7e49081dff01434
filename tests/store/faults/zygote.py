"""A process that has imported the store once, and forks itself for each case, with a fault armed in the child."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.store.faults.failpoint import Fault, Kind, Library
from tests.store.faults.operations import CARELESS, OPERATIONS, Operation, World
from trtstore import StoreFailure

REPOSITORY = Path(__file__).parents[3]
PATIENCE = 60  # seconds until a child that waits for ever is killed, by SIGALRM


@dataclass(frozen=True)
class Outcome:
    """How a child ended: `signal` that killed it (0: none), the calls that counted, what it raised, what it kept.

    `raised` is [class, message], `kept` the store's files that it still had open when it was done.
    """

    signal: int
    calls: list[str]
    raised: list[Any] | None
    kept: list[str]

    @property
    def boundary(self) -> str:
        return self.calls[-1] if self.calls else "no call"


class Zygote:
    """The parent's end: `run` forks a child there and waits for it."""

    def __init__(self, library: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=os.environ | {"LD_PRELOAD": str(library)},
        )

    def run(self, operation: Operation, home: Path, fault: Fault) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"operation": operation.name, "home": str(home), "fault": asdict(fault)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


def serve(operations: dict[str, Operation]) -> None:
    """Answer requests until there are no more; one core, so that threads meet their calls in one order."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    gc.freeze()  # else each child's first collection copies all pages
    for line in sys.stdin:
        request = json.loads(line)
        facts = request["fault"]
        fault = Fault(Kind(facts["kind"]), facts["at"], tuple(facts["names"]), facts["error"])
        outcome = _fork(operations[request["operation"]], Path(request["home"]), fault)
        print(json.dumps(asdict(outcome)), flush=True)


def _fork(operation: Operation, home: Path, fault: Fault) -> Outcome:
    log = os.memfd_create("calls")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        os.close(reading)
        os.write(writing, json.dumps(_act(operation, home, fault, log)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    calls = os.pread(log, os.fstat(log).st_size, 0).decode().replace(f"{home}/", "").splitlines()
    os.close(log)
    report = json.loads(said) if said else {"raised": None, "kept": []}
    return Outcome(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, calls, **report)


def _act(operation: Operation, home: Path, fault: Fault, log: int) -> dict[str, Any]:
    library = Library()

    @contextmanager
    def uncounted() -> Iterator[None]:
        library.pause()
        try:
            yield
        finally:
            library.resume()

    world = World(home, uncounted)
    raised = None
    library.arm(home, None if operation.index else world.base / "index", fault, log)
    try:
        operation.act(world)
    except Exception as error:  # noqa: BLE001  # the test says which are right
        raised = [type(error).__name__, error.message if isinstance(error, StoreFailure) else str(error)]
    library.pause()
    return {"raised": raised, "kept": list(_open_files(world.base))}


def _open_files(base: Path) -> Iterator[str]:
    """The files of the store that this process has open, but the index, which stays open."""
    for fd in Path("/proc/self/fd").iterdir():
        path = str(fd.readlink()) if fd.is_symlink() else ""
        if path.startswith(str(base)) and not path.startswith(str(base / "index" / "cache.db")):
            yield path.removeprefix(f"{base}/")


if __name__ == "__main__":
    serve({operation.name: operation for operation in (*OPERATIONS, *CARELESS)})
