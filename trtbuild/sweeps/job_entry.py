"""What a job on another machine does: run one command line of trtbuild's, and leave its answer as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.processes import programs
from trtbuild.sweeps import job_folder

# trtbuild ends with the job, however that ends, and takes its own workers along. Its packages are those of the job's
# own process, where they are not the interpreter's.
_LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
sys.path += [each for each in sys.argv[2].split(os.pathsep) if each and each not in sys.path]
sys.argv[1:] = sys.argv[3:]
import runpy
runpy.run_module("trtbuild.cli.main", run_name="__main__", alter_sys=True)
"""


def run(words: list[str], answer: str | None) -> str:
    """Run `trtbuild WORDS`; its exit code, where and when it ran, and its document, as JSON.

    The same goes to the file `answer`, whole or not at all. What the command says to people goes to the job's log.
    """
    started = time.time()
    here = str(Path.cwd())  # `python -m` looks into it first
    paths = programs.absolute(os.pathsep.join(each for each in sys.path if each != here))
    command = programs.own("-c", _LAUNCH, str(os.getpid()), paths, *words)
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env=programs.cleaned(),
    )
    told = json.dumps(
        {
            "code": done.returncode,
            "host": os.uname().nodename,
            "started": started,
            "ended": time.time(),
            "document": _parsed(done.stdout),
        }
    )
    if answer is not None:
        job_folder.write(Path(answer), told)
    return told


def _parsed(text: str) -> Any:
    try:
        return untrusted.parse(text)
    except untrusted.MalformedJson:
        return None
