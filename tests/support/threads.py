"""How many threads workers are given: what their environment says while they run, wherever on this machine that is."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress

import psutil

from tests.support.cli import Project


def of_workers(command: subprocess.Popen[str], project: Project) -> list[str | None]:
    """OMP_NUM_THREADS of each worker that the project had until the command ended, in the order of their ids."""
    found: dict[int, str | None] = {}
    while command.poll() is None:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = process.cmdline()
                started = [word.endswith("/start.py") for word in words[1:3]]
                if any(started) and any(word.startswith(str(project.store)) for word in words):
                    found[process.pid] = process.environ().get("OMP_NUM_THREADS")
        time.sleep(0.005)
    return [threads for _, threads in sorted(found.items())]
