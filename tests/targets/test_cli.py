"""The real command line on machines with GPUs: what is wrong is one line, exit code 2, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Project
from tests.targets.conftest import Machines


@pytest.mark.parametrize(
    ("machine", "words", "said"),
    [
        (
            "l4",
            ["target=h100"],
            ["there is no target named 'h100'", "did you mean target=h100_", "rtx4070", "cpu_arm64"],
        ),
        ("l4", ["fleet=theirs"], ["there is no fleet named 'theirs'", "default"]),
        ("l4", ["target=l4", "target.sm_counts=3"], ["target.sm_counts", "did you mean target.sm_count?"]),
        ("l4", ["target=l4", "target.kind=gpu"], ["target.kind", "cpu"]),
        ("l4", ["target=l4", "target.driver=new"], ["target.driver", "580.95.05"]),
        ("none", ["target.kind=cuda"], ["target=auto", "no such NVIDIA GPU here", "target=h100_sxm"]),
        ("mismatch", ["target.kind=cuda"], ["target=auto", "version mismatch", "restart the machine"]),
        ("mixed", ["target.kind=cuda"], ["target=auto", "several kinds", "target.device=0"]),
        ("h100_sxm", ["target=h100_sxm"], ["onnxruntime builds for cpu", "target=h100_sxm is a cuda target"]),
    ],
)
def test_bad_input_is_one_error(
    project: Project, tiny_llama: Path, machines: Machines, machine: str, words: list[str], said: list[str]
) -> None:
    done = project.trtbuild("plan", f"model.source={tiny_llama}", *words, env=machines.env(machine))
    assert done.code == 2, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("error")]) == 1
    for word in said:
        assert word in done.err, done.err


def test_a_compiler_for_cpus_asks_no_gpu(project: Project, tiny_llama: Path, machines: Machines) -> None:
    env = machines.env("mismatch")
    assert "target    cpu: " in project.trtbuild("plan", f"model.source={tiny_llama}", env=env).out
    named = project.trtbuild("plan", f"model.source={tiny_llama}", "target=cpu_x86_64_v3", env=env)
    assert "cpu_x86_64_v3: x86_64_v3, x86_64 (target=cpu_x86_64_v3)" in named.out, named.err


def test_a_plan_for_a_named_cpu_has_the_key_of_the_cpu_here(project: Project, tiny_llama: Path) -> None:
    """onnxruntime's key holds the family, not the level: a laptop of any level finds the engine."""
    plans = [
        project.trtbuild("plan", f"model.source={tiny_llama}", "output=json", f"target={name}").json
        for name in ("cpu_x86_64_v3", "cpu_x86_64_v4", "cpu_arm64")
    ]
    assert plans[0]["key"] == plans[1]["key"] != plans[2]["key"]
    assert plans[0]["target"]["origins"]["level"] == "target=cpu_x86_64_v3"
