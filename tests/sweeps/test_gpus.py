"""Which GPU a step that needs one gets to itself: on recorded machines, through the real pynvml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import nvml

RECORDED = Path(__file__).parents[1] / "targets" / "recorded"
SHOW = """
import json
from trtbuild import targets
print(json.dumps({kind.name: targets.gpu_slots(kind) for kind in targets.kinds_here("cuda")}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


def slots(library: Path, machine: str, **env: str) -> dict[str, list[str]]:
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    where = {"LD_LIBRARY_PATH": str(library), nvml.FACTS: str(RECORDED / f"{machine}.txt")}
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        env={**cleared, **where, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_each_gpu_of_a_kind_is_a_place(library: Path) -> None:
    found = slots(library, "mixed")
    assert found["geforce_rtx_4090"] == [
        "GPU-aaaaaaaa-0000-0000-0000-000000000000",
        "GPU-aaaabbbb-1111-1111-1111-111111111111",
    ]
    assert found["geforce_rtx_5090"] == ["GPU-cccccccc-2222-2222-2222-222222222222"]


def test_a_slice_is_a_place_of_its_own(library: Path) -> None:
    (names,) = slots(library, "mig").values()
    assert len(names) > 1
    assert len(set(names)) == len(names)
    assert all(name.startswith("MIG-") for name in names)


def test_what_a_user_hides_is_no_place(library: Path) -> None:
    one = "GPU-aaaabbbb-1111-1111-1111-111111111111"
    assert slots(library, "mixed", CUDA_VISIBLE_DEVICES=one) == {"geforce_rtx_4090": [one]}
