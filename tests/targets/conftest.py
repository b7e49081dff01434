"""Machines with GPUs: the real pynvml, with a stand-in for NVIDIA's library that answers from a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import nvml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_CUDA = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


def facts(name: str) -> Path:
    """The file of a machine: what was recorded of a real one, or a made-up one."""
    (found,) = (
        folder / f"{name}.txt" for folder in (HERE / "recorded", HERE / "made_up") if (folder / f"{name}.txt").exists()
    )
    return found


@dataclass(frozen=True)
class Machines:
    """Resolves targets on one machine or another."""

    running: subprocess.Popen[str]
    library: Path

    def env(self, machine: str, **more: str) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.library), nvml.FACTS: str(facts(machine)), **more}

    def resolve(
        self, machine: str, *args: str, kinds: Sequence[str] = ("cuda",), env: Mapping[str, str] | None = None
    ) -> Any:
        return self._ask({"args": args, "kinds": kinds}, machine, env)

    def at_hand(self, machine: str, device: int | None = None, env: Mapping[str, str] | None = None) -> Any:
        return self._ask({"at_hand": True, "device": device}, machine, env)

    def _ask(self, asked: dict, machine: str, env: Mapping[str, str] | None) -> Any:
        assert self.running.stdin is not None
        assert self.running.stdout is not None
        line = json.dumps({**asked, "env": {nvml.FACTS: str(facts(machine)), **(env or {})}})
        self.running.stdin.write(line + "\n")
        self.running.stdin.flush()
        return json.loads(self.running.stdout.readline())


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    library = nvml.build(tmp_path_factory.mktemp("nvml"))
    env = {name: value for name, value in os.environ.items() if name not in _CUDA}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.targets.probe"],
        cwd=ROOT,
        env={**env, "LD_LIBRARY_PATH": str(library)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        yield Machines(running, library)
        assert running.stdin is not None
        running.stdin.close()
