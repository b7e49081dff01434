"""Programs that other processes run beside a collection: each says that it is ready, and goes on when it is told to."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.store.support import python

OTHER_PROCESS = """
import sys, time
from pathlib import Path
from trtstore import Corrupt, Store
from trtstore.upkeep.maintenance import Maintenance
store = Store.open(Path(sys.argv[1]))
key = sys.argv[2]
record = store.lookup(key)
def wait():
    print("ready", flush=True)
    sys.stdin.readline()
"""
BUILDER = OTHER_PROCESS + "with store.building(key, who='a test'): wait()"
SCRATCH = OTHER_PROCESS + "with store.scratch(): wait()"
LOOKER = """
import sys
from pathlib import Path
from trtstore import Store
told = False
def wait(event, arguments):
    global told
    if event == "open" and "/blobs/" in str(arguments[0]) and not told:  # the record was read by now
        told = True
        print("ready", flush=True)
        sys.stdin.readline()
sys.addaudithook(wait)
print(Store.open(Path(sys.argv[1])).lookup(sys.argv[2], on_problem=print))
"""
READER = OTHER_PROCESS + "with store.reading(record): wait()"
LATE_BUILDER = (
    OTHER_PROCESS
    + """
wait()
with store.building(key, who="a test"):
    record = store.lookup(key)
    time.sleep(1)
    print("a miss" if record is None else len(list(store.materialise(record).path.iterdir())))
"""
)
ROOTER = OTHER_PROCESS + "wait(); store.add_root(Path(sys.argv[3]), record)"
PINNER = OTHER_PROCESS + "wait(); Maintenance(store).pin(key); print(store.lookup(key) is not None)"
LATE_READER = (
    OTHER_PROCESS
    + """
wait()
try:
    with store.reading(record) as made:
        time.sleep(1)
        print(sum(1 for path in made.path.rglob("*") if path.is_file()))
except Corrupt:
    print("gone")
"""
)
COLLECTOR = """
import sys
from pathlib import Path
from trtstore import Store
from trtstore.upkeep.maintenance import Maintenance
told = False
def wait(event, arguments):
    global told
    if event == "os.rename" and not told:  # the first thing to be removed
        told = True
        print("ready", flush=True)
        sys.stdin.readline()
sys.addaudithook(wait)
Maintenance(Store.open(Path(sys.argv[1]))).collect(0, grace=0)
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from trtstore import Store
from trtstore.upkeep.maintenance import Maintenance
renames = 0
def count(event, arguments):
    global renames
    if event == "os.rename":
        renames += 1
        if renames == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
Maintenance(Store.open(Path(sys.argv[1]))).collect(0, grace=0)
"""


@contextmanager
def beside(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another process that is ready when the body begins, and goes on when it is told to, or at the end."""
    other = python(code, *arguments)
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    try:
        yield other
    finally:
        other.communicate("go\n" if other.poll() is None else None, timeout=60)


def tell(other: subprocess.Popen[str]) -> None:
    assert other.stdin is not None
    other.stdin.write("go\n")
    other.stdin.flush()
