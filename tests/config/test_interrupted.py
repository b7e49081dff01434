"""A signal is an interruption wherever it arrives, also within Hydra, which makes its own errors of what it catches."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.cli import Project

# A command line in a child for each of some moments: when so many functions were called, the child gets the signal.
PROBE = """
import contextlib, io, json, os, random, signal, sys
from trtbuild import entry
from trtbuild.cli import main

seed, moments = int(sys.argv[1]), int(sys.argv[2])
words = ["plan", "model.source=/nowhere", "quant=int8"]

def child(at):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        count = 0
        def profile(frame, event, argument):
            nonlocal count
            if event == "call":
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGTERM)
        told = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
            sys.setprofile(profile)
            code = main.main(words)
            sys.setprofile(None)
        os.write(write, json.dumps([at, count, code, told.getvalue()]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)

_, calls, code, told = child(0)
assert code == 2, told
for at in sorted(random.Random(seed).sample(range(20, calls - 20), moments)):
    print(json.dumps(child(at)))
"""


def test_a_signal_is_one_wherever_it_arrives(project: Project) -> None:
    command = [sys.executable, "-c", PROBE, "1", "24"]
    done = subprocess.run(command, env=project.environment(), cwd=project.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(ends) == 24
    odd = [end for end in ends if end[2] != 130 or not end[3].endswith("interrupted\n")]
    assert not odd
