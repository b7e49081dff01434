"""What runs under a keeper ends with it: children that left its session, too, and whoever of them all is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from trtbuild.processes import programs

# A child in a session of its own, and an orphan of one: each writes its id, and sleeps.
FAMILY = """
import os, subprocess, sys, time
place = sys.argv[1]
sleeper = f"import os, time; open({place!r} + '/%d' % os.getpid(), 'w').close(); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", sleeper], start_new_session=True)
orphan = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleeper!r}], start_new_session=True)"
subprocess.run([sys.executable, "-c", orphan])
while len(os.listdir(place)) < 2:
    time.sleep(0.01)
open(f"{place}/ready-{os.getpid()}", "w").close()
"""
# As trtbuild does: begins the command, and is killed before its end.
PARENT = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from trtbuild.processes import programs
process = programs.begin(sys.argv[3:], {"PATH": "/usr/bin:/bin"}, "/")
open(sys.argv[2] + "/keeper-%d" % process.pid, "w").close()
process.wait()
"""
ROOT = Path(programs.__file__).parents[1]


def family(place: Path, then: str = "time.sleep(600)") -> list[str]:
    place.mkdir()
    return [sys.executable, "-I", "-c", FAMILY + then, str(place)]


def begin(command: list[str]) -> subprocess.Popen[bytes]:
    return programs.begin(command, {"PATH": "/usr/bin:/bin"}, "/")


def ids(place: Path) -> list[int]:
    """Of all, once they are there."""
    until = time.monotonic() + 60
    while not any(place.glob("ready-*")):
        assert time.monotonic() < until
        time.sleep(0.01)
    found = [int(path.name.rpartition("-")[2]) for path in place.iterdir()]
    assert len(found) >= 3
    return found


def gone(pids: list[int]) -> bool:
    until = time.monotonic() + 30
    while left := [pid for pid in pids if running(pid)]:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return not left


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    process = begin(family(tmp_path / "f", "sys.exit(3)"))
    assert process.wait(60) == 3
    assert gone(ids(tmp_path / "f"))


def test_who_ends_it_ends_all(tmp_path: Path) -> None:
    process = begin(family(tmp_path / "f"))
    pids = ids(tmp_path / "f")
    programs.end(process)
    assert process.returncode is not None
    assert gone(pids)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_with_its_parent_it_ends(tmp_path: Path, sign: signal.Signals) -> None:
    command = family(tmp_path / "f")
    words = [sys.executable, "-I", "-c", PARENT, str(ROOT), str(tmp_path / "f"), *command]
    parent = subprocess.Popen(words)
    pids = ids(tmp_path / "f")
    parent.send_signal(sign)
    parent.wait()
    assert gone(pids)


def test_a_killed_keeper_takes_the_command_along() -> None:
    process = begin([sys.executable, "-I", "-c", "import time; time.sleep(600)"])
    until = time.monotonic() + 60
    while not (children := psutil.Process(process.pid).children()) and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert gone([child.pid for child in children])


@pytest.mark.parametrize(
    ("ends", "status"),
    [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", -9), ("os.abort()", -6)],
)
def test_it_ends_as_the_command_ends(ends: str, status: int) -> None:
    assert begin([sys.executable, "-I", "-c", f"import os, sys; {ends}"]).wait(60) == status


def test_nothing_starts_for_a_parent_that_is_gone(tmp_path: Path) -> None:
    words = programs.python(sys.executable, "-S", programs.KEEPER, "1", "touch", tmp_path / "made")
    assert subprocess.run(words).returncode == 1
    assert not (tmp_path / "made").exists()


def test_a_run_that_takes_too_long_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        programs.run(family(tmp_path / "f"), {"PATH": "/usr/bin:/bin"}, "/", timeout=6)
    assert gone(ids(tmp_path / "f"))


@pytest.mark.parametrize("path", ["", ".", ":", "bin", "./bin:"])
def test_a_program_is_found_in_absolute_folders_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "bin").mkdir()
    for place in (tmp_path, tmp_path / "bin"):
        (place / "odd-tool").write_text("#!/bin/sh\n")
        (place / "odd-tool").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert programs.find("odd-tool", {"PATH": path}) is None
    assert programs.find("odd-tool", {"PATH": f"{path}:{tmp_path}/bin"}) == f"{tmp_path}/bin/odd-tool"
    assert programs.find("./odd-tool", {"PATH": path}) is None
    assert programs.find("odd-tool", {"PATH": path}, beside=tmp_path) == f"{tmp_path}/odd-tool"


def cleaned(environ: dict[str, str]) -> dict[str, str]:
    return programs.cleaned(environ)


def allowed(environ: dict[str, str]) -> dict[str, str]:
    for name, value in environ.items():
        os.environ[name] = value
    return programs.allowed(environ)


@pytest.mark.parametrize("made", [cleaned, allowed])
def test_variables_that_load_code_are_not_passed_on(
    monkeypatch: pytest.MonkeyPatch, made: Callable[[dict[str, str]], dict[str, str]]
) -> None:
    hostile = ("LD_PRELOAD", "LD_AUDIT", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE")
    hostile += ("CPATH", "GCC_EXEC_PREFIX", "COMPILER_PATH", "BASH_ENV", "PYTHONPLATLIBDIR", "LIBRARY_PATH")
    given = dict.fromkeys(hostile, "/odd") | {
        "PATH": ":a:/b:.",
        "LD_LIBRARY_PATH": ":/c:d",
        "HTTP_PROXY": "p",
    }
    for name in given:
        monkeypatch.setenv(name, "before")
    found = made(given)
    assert not set(hostile) & found.keys()
    assert {name: found[name] for name in ("PATH", "LD_LIBRARY_PATH", "HTTP_PROXY")} == {
        "PATH": "/b",
        "LD_LIBRARY_PATH": "/c",
        "HTTP_PROXY": "p",
    }
