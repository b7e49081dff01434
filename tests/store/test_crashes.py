"""Processes that share a store and are killed at random: what was published stays, and nothing half-made is seen."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

from tests.store.faults import memory
from tests.store.faults.zygote import REPOSITORY

KILLS = 200
SEED = "TRTSTORE_STORM_SEED"


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing_that_was_published_and_leave_nothing_to_repair() -> None:
    seed = os.environ.get(SEED) or str(random.randrange(10**9))  # dice, no secret
    print(f"the storm's seed: run again with {SEED}={seed}")
    with memory.folder() as folder:
        storm = subprocess.run(
            [sys.executable, "-m", "tests.store.faults.storm", str(folder / "store"), seed, str(KILLS)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
    assert storm.returncode == 0, f"{SEED}={seed}"
    found = json.loads(storm.stdout)
    print({name: value for name, value in found.items() if name != "findings"})
    assert not found["findings"], "\n".join([f"{SEED}={seed}", *found["findings"]])
    assert found["kills"] >= KILLS
    # Kills that hit nobody at work, or a store where nothing was published, would prove nothing.
    assert found["cut_short"] > KILLS / 10, f"{SEED}={seed}"
    assert found["complete"] > KILLS / 20, f"{SEED}={seed}"
    assert found["collections"] > KILLS / 20, f"{SEED}={seed}"
    assert found["collected"] > 0, f"{SEED}={seed}"
