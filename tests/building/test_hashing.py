"""A large local model through the real command line: read once, side by side, told of, interruptible, rechecked."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import IO

import pytest

from tests.support import tiny
from tests.support.cli import TRTBUILD, Project
from trtbuild.report.terminal import PlainTerminal
from trtstore import Index, hash_files

MIB = 1 << 20
ENDLESS = 1 << 40  # bytes of hole: they take no room, and a quarter of an hour to hash
LIMIT = 120  # seconds until a test is given up


def sparse(folder: Path, *sizes: int) -> Path:
    """A checkpoint with a shard of each of these sizes, whose weights are holes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tiny.config()))
    placed = {}
    for number, size in enumerate(sizes):
        name = f"model-{number}.safetensors"
        placed[f"t{number}"] = name
        header = {f"t{number}": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + size)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    return folder


def until(stream: IO[str], words: str) -> str:
    """What comes out of the stream until it holds `words`."""
    seen = ""
    while words not in seen:
        line = stream.readline()
        assert line, f"{words!r} never came: {seen}"
        seen += line
    return seen


@pytest.fixture
def witness(project: Project) -> dict[str, str]:
    """An environment in which a process says at its end how many bytes it has read."""
    folder = project.root / "witness"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import atexit, sys\n"
        "atexit.register(lambda: print(open('/proc/self/io').readline(), end='', file=sys.stderr))\n"
    )
    return {"PYTHONPATH": str(folder)}


@pytest.mark.slow
def test_a_file_is_read_once_and_again_when_it_changed(project: Project, witness: dict[str, str]) -> None:
    model = sparse(project.root / "model", 64 * MIB, 128 * MIB, 256 * MIB)
    time.sleep(2.1)  # younger files may change again within the grain of their times

    def key() -> tuple[str, int]:
        done = project.trtbuild("explain", f"model.source={model}", "output=json", env=witness)
        assert done.code == 0, done.err
        (read,) = re.findall(r"rchar: (\d+)", done.err)
        return done.json["key"], int(read)

    first, cold = key()
    again, warm = key()
    assert again == first
    # Beside the weights, all runs read the same: modules, configs, the index. In MiB, to be spared its bytes.
    assert (cold - warm + 4 * MIB) // (8 * MIB) == 448 // 8
    changed = model / "model-0.safetensors"
    times = changed.stat()
    with changed.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))  # the same size and time of modification
    other, partly = key()
    assert other != first
    assert (partly - warm + 4 * MIB) // (8 * MIB) == 64 // 8


def test_two_cores_read_the_two_largest_files_first(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("this machine has one core")
    names = ["a", "b", "c", "largest", "second"]
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.write_bytes(os.urandom({"largest": 5, "second": 4}.get(path.name, 2) * MIB))
    found: list[set[str]] = []

    def told(_done: int, _total: int) -> None:
        """At the first word of progress, nobody else gets further: what is open now was opened first."""
        if not found:
            deadline = time.monotonic() + 20
            while len(held := opened(tmp_path)) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            found.append(held)

    os.sched_setaffinity(0, sorted(cores)[:2])
    try:
        hash_files(paths, Index(tmp_path / "index"), told)
    finally:
        os.sched_setaffinity(0, cores)
    assert found == [{"largest", "second"}]


def opened(folder: Path) -> set[str]:
    """The names of the files of `folder` that this process has open."""
    names = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            path = link.readlink()
            if path.parent == folder:
                names.add(path.name)
    return names


def test_what_is_hashed_at_once_is_not_told() -> None:
    stream = StringIO()
    watcher = PlainTerminal(stream, None)
    for done in (1, 2, 3):
        watcher.hashing(done, 3)
    assert stream.getvalue() == ""


@pytest.mark.slow
def test_a_log_has_one_line_and_ctrl_c_ends_it(project: Project) -> None:
    model = sparse(project.root / "model", ENDLESS, ENDLESS)
    process = project.start("plan", f"model.source={model}")
    assert process.stderr is not None
    said = until(process.stderr, "hashing the checkpoint")
    assert said == "hashing the checkpoint, 2.2 TB …\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


@pytest.mark.slow
def test_a_terminal_has_a_bar_with_the_rate(project: Project) -> None:
    model = sparse(project.root / "model", ENDLESS)
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [TRTBUILD, "plan", f"model.source={model}"],
        cwd=project.root,
        env={**project.environment(), "TERM": "xterm", "COLUMNS": "160"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    seen = ""
    while not re.search(r"hashing the checkpoint.* of 1\.1 TB, [0-9.]+ [kMG]B/s", seen):
        seen += os.read(master, 4096).decode(errors="replace")
    process.send_signal(signal.SIGINT)
    # Somebody has to read on: a terminal takes a few kilobytes, then it blocks who writes.
    reader = threading.Thread(target=drain, args=(master,), daemon=True)
    reader.start()
    assert process.wait(timeout=LIMIT) == 130
    reader.join(timeout=LIMIT)
    os.close(master)


def drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except OSError:  # the other side has closed
        return


@pytest.mark.slow
def test_a_file_that_is_cut_while_it_is_hashed_is_told_as_the_model_s_fault(project: Project) -> None:
    model = sparse(project.root / "model", ENDLESS)
    weights = model / "model-0.safetensors"
    process = project.start("plan", f"model.source={model}")
    assert process.stderr is not None
    until(process.stderr, "hashing the checkpoint")
    os.truncate(weights, 4096)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 2, err
    assert f"error: model.source={model}: {weights} changed while it was read" in err
    assert "hint: " in err


def one_byte(weights: Path) -> None:
    """Another last byte, and the time of modification as it was."""
    times = weights.stat()
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        (last,) = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))


def another_file(weights: Path) -> None:
    """Another file of the same size and time in its place, as a download does."""
    copy = Path(shutil.copy2(weights, weights.with_suffix(".part")))
    one_byte(copy)
    copy.replace(weights)


@pytest.mark.slow
@pytest.mark.parametrize("change", [one_byte, another_file])
def test_a_file_changed_while_the_step_runs_fails_the_build(
    project: Project, tiny_llama: Path, change: Callable[[Path], None]
) -> None:
    model = shutil.copytree(tiny_llama, project.root / "model")
    process = project.start(f"model.source={model}", "until=network")
    assert process.stderr is not None
    until(process.stderr, "building the network")  # all is hashed by then, and the worker is not yet there
    change(model / "model.safetensors")
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (1, ""), err
    expected = f"error: model.source={model}: {model}/model.safetensors changed during the build"
    assert expected in err
    assert "build again when nothing writes to the checkpoint" in err
    assert (project.records(), project.leftovers()) == ([], [])
    assert project.trtbuild(f"model.source={model}", "until=network").code == 0


@pytest.mark.slow
def test_a_file_touched_while_the_step_runs_fails_nothing(project: Project, tiny_llama: Path) -> None:
    model = shutil.copytree(tiny_llama, project.root / "model")
    process = project.start(f"model.source={model}", "until=network")
    assert process.stderr is not None
    until(process.stderr, "building the network")
    for path in model.iterdir():
        path.touch()
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert len(project.records()) == 1
