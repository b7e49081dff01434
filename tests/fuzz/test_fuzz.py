"""Each fuzz target runs for a while in every test run; `make fuzz` runs them for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS

RUNS = {
    "index_row": 1500,
    "export_file": 1500,
    "small_files": 1500,
    "config_file": 1500,
}  # each run of these writes to a disk


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_holds_for_its_seeds_and_for_each_shorter_one(target: str) -> None:
    for seed in seeds.SEEDS[target]:
        for length in {*range(0, len(seed), 1 + len(seed) // 500), len(seed)}:
            TARGETS[target](seed[:length])


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_parser_withstands_made_up_bytes(tmp_path: Path, target: str) -> None:
    pytest.importorskip(
        "atheris", reason="atheris has no wheel for this Python or machine: pip install '.[fuzz]'"
    )
    options = [f"-runs={RUNS.get(target, 10_000)}", "-seed=1"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, str(tmp_path), *options],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done " in done.stderr
