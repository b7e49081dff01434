"""What a GPU is to a key, from the command line: equal on a laptop and on the machine, and built on no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Project
from tests.targets.conftest import Machines

LAPTOP = "none"


class Planner:
    """`trtbuild plan` on one machine or another."""

    def __init__(self, project: Project, machines: Machines, model: Path) -> None:
        self.project, self.machines, self.model = project, machines, model

    def __call__(self, machine: str, *words: str) -> Any:
        env = self.machines.env(machine)
        words = ("compiler=tensorrt", f"model.source={self.model}", *words, "output=json")
        done = self.project.trtbuild("plan", *words, env=env)
        assert done.code == 0, done.err
        return done.json


@pytest.fixture
def plan(project: Project, machines: Machines, tiny_llama: Path) -> Planner:
    return Planner(project, machines, tiny_llama)


@pytest.mark.parametrize(
    ("machine", "driver", "cuda"),
    [("h100_sxm", "550.54.15", "12.4"), ("h200", None, None), ("rtx4070", None, None)],
)
def test_a_laptop_computes_the_key_of_the_machine(
    plan: Planner, machine: str, driver: str | None, cuda: str | None
) -> None:
    there = plan(machine)
    target = there["target"]
    if driver is not None:
        assert (target["driver"], target["cuda"]) == (driver, cuda)
    words = (f"target.driver={target['driver']}", f"target.cuda={target['cuda']}")
    here = plan(LAPTOP, f"target={machine}", *words)
    assert here["key"] == there["key"]
    assert here["steps"][1]["fields"] == there["steps"][1]["fields"]
    assert plan(machine, f"target={machine}")["key"] == there["key"]
    assert "not here" in here["target"]["here"]


def test_a_sku_memory_and_driver_are_other_keys(plan: Planner) -> None:
    keys = {plan(LAPTOP, f"target={name}")["key"] for name in ("h100_sxm", "h100_pcie", "h100_nvl", "h200")}
    assert len(keys) == 4


def test_the_driver_policy(plan: Planner) -> None:
    def key(release: str, cuda: str, policy: str) -> str:
        words = (f"target.driver={release}", f"target.cuda={cuda}", f"key.driver={policy}")
        return str(plan(LAPTOP, "target=h100_sxm", *words)["key"])

    first, patch, branch = ("580.95.05", "13.0"), ("580.159.04", "13.0"), ("570.172.08", "12.8")
    assert key(*first, "branch") == key(*patch, "branch") != key(*branch, "branch")
    assert len({key(*each, "exact") for each in (first, patch, branch)}) == 3
    assert len({key(*each, "ignore") for each in (first, patch, branch)}) == 1
    fields = plan(LAPTOP, "target=h100_sxm", "key.driver=ignore")["steps"][1]["fields"]
    assert not {"target.driver", "target.cuda"} & set(fields)


def test_golden_keys_of_a_gpu(plan: Planner) -> None:
    """As on a laptop, so everywhere: these change only with a schema, a step's version or a pin."""
    fields = plan(LAPTOP, "target=h100_sxm")["steps"][1]["fields"]
    assert {name: value for name, value in fields.items() if name.startswith("target.")} == {
        "target.arch": "x86_64",
        "target.compute_capability": "9.0",
        "target.cuda": "13.0",
        "target.driver": "580",
        "target.gpu": "H100 80GB HBM3",
        "target.kind": "cuda",
        "target.memory_gb": 80,
        "target.mig": None,
        "target.sm_count": 132,
    }


def refused(project: Project, machines: Machines, machine: str, model: Path, *words: str, verb: str = "build") -> str:
    done = project.trtbuild(verb, "compiler=tensorrt", f"model.source={model}", *words, env=machines.env(machine))
    assert done.code == 2, done.err
    assert done.out == ""
    assert project.records() == []
    return done.err


def test_a_build_for_another_gpu_is_refused_before_work(project: Project, machines: Machines, tiny_llama: Path) -> None:
    err = refused(project, machines, "h100_sxm", tiny_llama, "target=rtx4070")
    assert "error: target: rtx4070 cannot be built on this machine: " in err
    assert "target.gpu is H100 80GB HBM3 here, and GeForce RTX 4070 was asked for" in err
    assert f"is not in {project.store}: build it on such a machine" in err
    err = refused(project, machines, LAPTOP, tiny_llama, "target=rtx4070")
    assert "this machine has no NVIDIA GPU" in err


def test_a_build_for_another_driver_is_refused(project: Project, machines: Machines, tiny_llama: Path) -> None:
    words = ("target=h100_sxm", "target.driver=580.95.05", "target.cuda=13.0")
    err = refused(project, machines, "h100_sxm", tiny_llama, *words)
    assert "target.driver is 550 here, and 580 was asked for" in err


def test_mixed_gpus_want_a_name(project: Project, machines: Machines, tiny_llama: Path) -> None:
    err = refused(project, machines, "mixed", tiny_llama)
    assert "the GPUs here are of several kinds" in err
    assert "target.device=0" in err
    err = refused(project, machines, "mixed", tiny_llama, "target=h100_sxm")
    assert "cannot be built on this machine" in err


def test_the_machine_s_own_gpu_gets_as_far_as_its_tools(project: Project, machines: Machines, tiny_llama: Path) -> None:
    err = refused(project, machines, "h100_sxm", tiny_llama, "target=h100_sxm")
    assert "lacks what this build needs: tensorrt " in err


def test_a_plan_says_what_cannot_run_here(plan: Planner, machines: Machines) -> None:
    steps = plan("h100_sxm", "target=rtx4070")["steps"]
    assert [step["obstacle"] is None for step in steps] == [True, False]
    assert "rtx4070 cannot be built on this machine" in steps[1]["obstacle"]
    words = ("compiler=tensorrt", f"model.source={plan.model}", "target=rtx4070")
    out = plan.project.trtbuild("plan", *words, env=machines.env("h100_sxm")).out
    assert "  not here  " in out
    assert "driver 580.95.05, CUDA 13.0 (fleet=default)" in out


def test_a_world_of_eight(plan: Planner) -> None:
    """Eight equal GPUs are one target; how many there are is told, and in no key."""
    assert plan("h100_sxm")["target"]["gpus"] == 8
    words = ("target.driver=550.54.15", "target.cuda=12.4")
    assert plan(LAPTOP, "target=h100_sxm", *words, "target.gpus=2")["key"] == plan("h100_sxm")["key"]
