"""Each fuzz target runs for a while in every test run; `make fuzz` runs them for longer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS

ON_DISK = ("index_row", "export_file", "small_files", "config_file")  # each run of these writes to a disk


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_holds_for_its_seeds_and_for_each_shorter_one(target: str) -> None:
    most = 100 if target in ON_DISK else 500
    for seed in seeds.SEEDS[target]:
        for length in {*range(0, len(seed), 1 + len(seed) // most), len(seed)}:
            TARGETS[target](seed[:length])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("targets", "runs"),
    [([name for name in TARGETS if name not in ON_DISK], 10_000), (ON_DISK, 1500)],
    ids=["in memory", "on disk"],
)
def test_parsers_withstand_made_up_bytes(tmp_path: Path, targets: Sequence[str], runs: int) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python or machine: pip install '.[fuzz]'")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", ",".join(targets), str(tmp_path), f"-runs={runs}", "-seed=1"],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    ended = [line for line in done.stdout.splitlines() if " ended with " in line]
    assert ended == [f"{name} ended with 0" for name in targets], done.stderr[-4000:]
    assert done.returncode == 0
    assert done.stderr.count("\nDone ") == len(targets)
