"""Many processes, one store: one winner, nobody waits for the dead, and nothing half-made is seen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.store.support import FILES, KEY, OTHER, leftovers, publish, python, read_tree, write_files
from trtstore import Holder, Store

RACER = """
import sys
from pathlib import Path
from trtstore import Store
store = Store.open(Path(sys.argv[1]))
with store.scratch() as work:
    (work / "out").mkdir()
    (work / "out" / "engine.bin").write_bytes(sys.argv[2].encode() * 200_000)
    print("ready", flush=True)
    sys.stdin.readline()
    record = store.publish(
        "5e" * 32, work / "out", predicate_type="p", predicate={"builder": sys.argv[2]}, labels={}
    )
    made = store.materialise(record)
print(record.manifest, record.predicate["builder"], (made.path / "engine.bin").read_text()[0])
"""

HOLDER = """
import sys, time
from pathlib import Path
from trtstore import Store
store = Store.open(Path(sys.argv[1]))
with store.building("5e" * 32, who="the first"), store.scratch() as work:
    (work / "half").write_bytes(b"half an engine")
    print(work, flush=True)
    time.sleep(600)
"""

MATERIALISER = """
import sys
from pathlib import Path
from trtstore import Store
store = Store.open(Path(sys.argv[1]))
record = store.lookup("5e" * 32)
print("ready", flush=True)
sys.stdin.readline()
made = store.materialise(record)
print(made.method, sum(1 for path in made.path.rglob("*") if path.is_file()))
"""


def start_together(processes: list[subprocess.Popen[str]]) -> list[list[str]]:
    """Let all go at once; the words that each said afterwards."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return said


def test_of_eight_that_publish_one_key_one_wins_and_all_agree(tmp_path: Path) -> None:
    said = start_together([python(RACER, tmp_path / "store", letter) for letter in "abcdefgh"])
    assert len({tuple(words) for words in said}) == 1
    digest, builder, first_letter = said[0]
    assert builder == first_letter
    store = Store.open(tmp_path / "store")
    record = store.lookup(KEY)
    assert record is not None
    assert (record.manifest, record.predicate) == (digest, {"builder": builder})
    assert leftovers(store.root) == []


def test_of_eight_that_materialise_one_artifact_one_makes_it(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    publish(store, write_files(tmp_path / "out", {f"{n}.bin": b"%d" % n for n in range(50)}))
    said = start_together([python(MATERIALISER, store.root) for _ in range(8)])
    assert {files for _, files in said} == {"50"}
    assert [method for method, _ in said].count("present") == 7
    assert leftovers(store.root) == []


def test_who_waits_hears_of_the_holder_and_goes_on_when_it_is_killed(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    holder = python(HOLDER, store.root)
    assert holder.stdout is not None
    work = Path(holder.stdout.readline().strip())
    heard: list[Holder] = []
    killed_at = 0.0

    def on_wait(who: Holder) -> None:
        nonlocal killed_at
        heard.append(who)
        if len(heard) == 2:
            holder.kill()
            holder.wait()
            killed_at = time.monotonic()

    asked_at = time.monotonic()
    with store.building(KEY, who="the second", on_wait=on_wait):
        waited = time.monotonic() - killed_at
        assert 1.5 < killed_at - asked_at < 10  # told about every second
        assert waited < 1
        # A half-written thing is invisible, and swept by the next writer.
        assert (work / "half").exists()
        assert store.lookup(KEY) is None
        publish(store, write_files(tmp_path / "out"))
        assert not work.exists()
        assert leftovers(store.root) == [f"build-{KEY}"]
    assert [(who.pid, who.who) for who in heard] == [(holder.pid, "the first")] * 2
    assert abs(heard[0].started - time.time()) < 60
    assert leftovers(store.root) == []


def test_a_live_scratch_folder_is_never_swept(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    holder = python(HOLDER, store.root)
    try:
        assert holder.stdout is not None
        work = Path(holder.stdout.readline().strip())
        os.utime(work.parent, (0, 0))  # age is no reason
        publish(store, write_files(tmp_path / "out"), OTHER)
        assert (work / "half").read_bytes() == b"half an engine"
    finally:
        holder.kill()
        holder.wait()


def test_stray_files_and_read_only_folders_in_tmp_are_swept(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    outside = tmp_path / "outside"
    outside.write_text("keep")
    tmp = store.root / "v1" / "tmp"
    write_files(tmp / "dead" / "work")
    (tmp / "dead" / "lock").write_text("")
    (tmp / "dead" / "work" / "sub").chmod(0o500)
    (tmp / "stray").write_text("x")
    (tmp / "link").symlink_to(outside)
    publish(store, write_files(tmp_path / "out"))
    assert list(tmp.iterdir()) == []
    assert outside.read_text() == "keep"


def test_builders_of_one_key_take_turns_and_others_do_not_wait(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    inside: list[int] = []
    most: list[int] = []

    def build() -> None:
        for _ in range(5):
            with store.building(KEY, who="a thread"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=build) for _ in range(4)]
    with store.building(OTHER, who="another key"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    assert len(most) == 20
    assert max(most) == 1


PUBLISHER = """
import os, signal, sys
from pathlib import Path
from trtstore import Store
store = Store.open(Path(sys.argv[1]))
calls = 0
def count(event, arguments):
    global calls
    if event in ("os.rename", "os.link", "os.chmod", "os.mkdir", "os.remove", "os.utime") and str(
        arguments[0]
    ).startswith(sys.argv[1]):
        calls += 1
        if calls == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
store.publish("5e" * 32, Path(sys.argv[2]), predicate_type="p", predicate={}, labels={})
"""


@pytest.mark.parametrize("step", range(1, 30))
def test_a_publisher_killed_at_any_step_leaves_a_whole_artifact_or_none(tmp_path: Path, step: int) -> None:
    folder = write_files(tmp_path / "out")
    publisher = python(PUBLISHER, tmp_path / "store", folder, step)
    publisher.communicate(timeout=60)
    assert publisher.returncode in (0, -signal.SIGKILL)
    store = Store.open(tmp_path / "store")
    found = store.lookup(KEY)
    if found is not None:
        assert read_tree(store.materialise(found).path) == FILES
    record = publish(store, folder)
    assert read_tree(store.materialise(record).path) == FILES
    assert leftovers(store.root) == []


def test_the_note_of_a_lock_is_for_people_and_may_be_anything(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    holder = python(HOLDER, store.root)
    assert holder.stdout is not None
    holder.stdout.readline()
    note = store.root / "v1" / "locks" / f"build-{KEY}"
    assert json.loads(note.read_text())["pid"] == holder.pid
    note.write_text('{"pid": [], "who"')
    heard: list[Holder] = []

    def on_wait(who: Holder) -> None:
        heard.append(who)
        holder.kill()
        holder.wait()

    with store.building(KEY, who="me", on_wait=on_wait):
        assert heard[0].who == "another process"
