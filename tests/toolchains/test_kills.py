"""An install that is killed, at any moment, leaves nothing half: the next run installs, and nothing is left over.

TRTBUILD_INSTALL_KILLS is how many are killed with each installer (20).
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.toolchains.shop import Shop, lock, wheel
from trtstore.environments.environment import verify_environment

KILLS = int(os.environ.get("TRTBUILD_INSTALL_KILLS", "40"))
pytestmark = pytest.mark.slow


def several(shop: Shop) -> Path:
    made = [wheel(shop.wheels, f"tiny_{name}", "1.0") for name in "abcd"]
    return lock(shop.project.root / "tiny.txt", *made)


def tree(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def alive(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended 10 seconds later. Some reapers of orphans take their time: a zombie has ended."""
    until = time.monotonic() + 10
    while (left := [each for each in family if not ended(each)]) and time.monotonic() < until:
        time.sleep(0.005)
    return left


def ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_is_killed_at_any_moment(shop: Shop) -> None:
    """Spread evenly over the time that an install takes."""
    file = several(shop)
    shop.fork("ls").communicate(60)  # what forks has read its modules
    began = time.monotonic()
    first = shop.fork("install", str(file))  # as those that are killed
    assert first.communicate(60)[0] == 0
    whole = time.monotonic() - began
    assert shop.run("rm", file).code == 0
    stages, finished = set(), 0
    for number in range(KILLS):
        running = shop.fork("install", str(file))
        time.sleep(whole * (number + 0.5) / KILLS)
        family = tree(psutil.Process(running.pid))
        stages.add(len(family))
        os.kill(running.pid, signal.SIGKILL)
        running.communicate(60)
        left = alive(family)
        assert not left, f"{len(family) - len(left)} died with trtbuild, and {left} did not"
        found = shop.installed()
        finished += len(found)
        for one in found:
            assert verify_environment(one) == [], f"kill {number}: half an environment has its name"
            assert shop.run("path", file).code == 0
            assert shop.run("rm", file).code == 0
    assert len(stages) > 1, "no kill met pip"
    assert finished < KILLS, "no kill came before the end"
    done = shop.run("install", file)
    assert done.code == 0, done.err
    assert "waiting" not in done.err
    (one,) = shop.installed()
    assert verify_environment(one) == []
    assert shop.lying_about() == [one.name], "nothing of the killed ones is left"
    locks = {path.name for path in (shop.project.store / "v1" / "locks").iterdir()}
    assert not [name for name in locks if name.startswith("toolchain-")]


#: A signal, and whether all of the command's process group gets it, as from a terminal or a batch system.
ENDS = [
    (signal.SIGINT, False),
    (signal.SIGINT, True),
    (signal.SIGTERM, False),
    (signal.SIGKILL, True),
    (signal.SIGKILL, False),
]
ROUNDS = 1


def of(place: Path) -> list[psutil.Process]:
    """Whatever runs and names something below `place`: children of killed processes belong to nobody."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(place) in word for word in process.cmdline()) and not ended(process):
                found.append(process)
    return found


def test_however_it_is_ended_no_process_is_left(shop: Shop) -> None:
    """Installers start processes of their own, which byte-compile: those, too, end with trtbuild."""
    file = several(shop)
    began = time.monotonic()
    assert shop.start("install", str(file)).wait(120) == 0
    whole = time.monotonic() - began
    assert shop.run("rm", file).code == 0
    for number in range(ROUNDS * len(ENDS)):
        sign, everyone = ENDS[number % len(ENDS)]
        running = shop.start("install", str(file), own_group=True)
        time.sleep(whole * random.uniform(0.3, 1))
        if everyone:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, sign)
        else:
            running.send_signal(sign)
        _, err = running.communicate(timeout=60)
        assert "Traceback" not in err
        left = alive(of(shop.project.store))
        assert not left, f"{sign.name} left {[process.cmdline() for process in left]}"
        for one in shop.installed():
            assert verify_environment(one) == []
            assert shop.run("rm", file).code == 0
    done = shop.run("install", file)
    assert done.code == 0, done.err
    (one,) = shop.installed()
    assert shop.lying_about() == [one.name]


def test_an_interrupt_ends_pip(shop: Shop) -> None:
    file = several(shop)
    running = shop.start("install", str(file))
    process, family = psutil.Process(running.pid), []
    until = time.monotonic() + 30
    while not family and time.monotonic() < until:
        family = tree(process)
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert not alive(family)
    assert shop.lying_about() == []


def test_who_waits_for_a_killed_one_installs(shop: Shop) -> None:
    file = several(shop)
    first = shop.start("install", str(file))
    until = time.monotonic() + 30
    while not tree(psutil.Process(first.pid)) and time.monotonic() < until:
        time.sleep(0.005)
    second = shop.start("install", str(file))
    time.sleep(0.2)
    first.kill()
    first.communicate()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert Path(out.strip()).is_dir()
    assert shop.run("verify").code == 0
