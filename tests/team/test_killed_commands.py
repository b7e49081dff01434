"""A storm: whole commands are killed at random moments while they build and share; all stores stay right.

TRTBUILD_KILLS is how many commands are killed (5), TRTBUILD_TEST_SEED has the same moments again. By hand:

    TRTBUILD_KILLS=150 .venv/bin/python -m pytest tests/team/test_killed_commands.py -s
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.support import tiny
from tests.team.support import Place, User, as_ci, believer, writer

KILLS = int(os.environ.get("TRTBUILD_KILLS", "5"))
SEED = int(os.environ.get("TRTBUILD_TEST_SEED", "0")) or random.randrange(1 << 30)
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FORMATS = ("int8", "int4")
PATIENCE = 60.0  # seconds in which a command that was told to end has ended


def words(model: Path, quant: str) -> list[str]:
    # Who was killed is waited for as long as some heartbeats.
    return [f"model.source={model}", f"quant={quant}", "store.write=true", "store.heartbeat=3", "output=json"]


def family(of: psutil.Process) -> list[psutil.Process]:
    try:
        return [of, *of.children(recursive=True)]
    except psutil.Error:
        return []


def strike(who: User, command: list[str], dice: random.Random, longest: float) -> str:
    """Start a command, signal it after a while, and return how it ended. Raises AssertionError for what lives on."""
    running = who.project.fork(*command, env={**who.environment, **as_ci()})
    seen: dict[int, psutil.Process] = {}
    main = psutil.Process(running.pid)
    until = time.monotonic() + dice.uniform(0, longest)
    while time.monotonic() < until and main.status() != psutil.STATUS_ZOMBIE:
        seen |= {one.pid: one for one in family(main)}
        time.sleep(0.05)
    seen |= {one.pid: one for one in family(main)}
    chosen = dice.choice(SIGNALS)
    ended = main.status() == psutil.STATUS_ZOMBIE
    if not ended:
        os.kill(running.pid, chosen)
    code, out, err = running.communicate(PATIENCE)
    assert "Traceback" not in err and "fault of trtbuild" not in err, f"seed {SEED}: {err}"
    _, alive = psutil.wait_procs([one for pid, one in seen.items() if pid != running.pid], timeout=PATIENCE)
    assert not alive, f"seed {SEED}: {[one.cmdline() for one in alive]} lived on after {chosen.name}"
    assert code in (0, 130, 143, -chosen), f"seed {SEED}: {code} {out} {err}"
    return "came too late" if ended else f"{chosen.name}, exit {code}"


@pytest.mark.slow
@pytest.mark.xdist_group("storm")
def test_killed_commands_leave_nothing_wrong_nothing_lost_and_nothing_running(tmp_path: Path) -> None:
    signer = writer()
    (tmp_path / "team").mkdir()
    place = Place(f"file://{tmp_path / 'team'}", folder=tmp_path / "team")
    tiny.write_model(tmp_path / "model")
    asked = [(tmp_path / "model", quant) for quant in FORMATS]

    # What is right: built alone, without a team.
    alone = believer(tmp_path / "alone", place, signer)
    began = time.monotonic()
    right = {}
    for model, quant in asked:
        done = alone.trtbuild(*words(model, quant)[:2], "output=json", "store.team=")
        assert done.code == 0, done.err
        right[model, quant] = (done.json["key"], done.json["digest"])
    longest = (time.monotonic() - began) / len(asked)  # so that strikes meet all of a build, on any machine

    dice = random.Random(SEED)
    users = [believer(tmp_path / f"user-{number}", place, signer) for number in range(2)]
    outcomes: Counter[str] = Counter()
    while sum(outcomes.values()) - outcomes["came too late"] < KILLS and sum(outcomes.values()) < 4 * KILLS:
        who, what = dice.choice(users), dice.choice(asked)
        refresh = ["refresh=true"] if dice.random() < 0.6 else []
        outcomes[strike(who, [*words(*what), *refresh], dice, 1.3 * longest)] += 1
    print(f"seed {SEED}, up to {1.3 * longest:.2f} s: {dict(outcomes)}")
    assert sum(outcomes.values()) - outcomes["came too late"] >= KILLS / 2, "the strikes met nothing"

    # A push that was cut off waits in its own store; all else goes on as if nothing had been.
    for who in users:
        for what in asked:
            done = who.trtbuild(*words(*what), **as_ci())
            assert done.code == 0, f"seed {SEED}: {done.err}"
            assert (done.json["key"], done.json["digest"]) == right[what], f"seed {SEED}"
        assert who.trtstore("push", "--pending", **as_ci()).code == 0
        assert who.trtstore("verify").code == 0
        assert who.project.leftovers() == []
    assert users[0].trtstore("verify", "--team", place.url).code == 0
    reader = believer(tmp_path / "reader", place, signer)
    for what in asked:
        done = reader.trtbuild("fetch", *words(*what)[:2], "output=json")
        assert done.code == 0, f"seed {SEED}: {done.err}"
        assert done.json["digest"] == right[what][1], f"seed {SEED}"
