"""Sweeps over a real Slurm cluster with two kinds of GPU."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import nvml, tiny
from tests.support.cli import Project
from tests.support.slurm import Cluster, cluster, wait_for

pytestmark = pytest.mark.xdist_group("slurm")
RECORDED = Path(__file__).parents[1] / "targets" / "recorded"
GPUS = ("l40s", "rtx5090")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    library = nvml.build(tmp_path_factory.mktemp("nvml"))
    # Short: a socket's path has a limit.
    with cluster(tmp_path_factory.mktemp("slurm"), RECORDED, GPUS) as made:
        yield Cluster(made.folder, {**made.env, "LD_LIBRARY_PATH": str(library)})


@pytest.fixture
def site(project: Project) -> list[str]:
    """A team's config that says where its machines are."""
    folder = project.root / "conf" / "target"
    folder.mkdir(parents=True)
    for gpu in GPUS:
        (folder / f"our_{gpu}.yaml").write_text(
            f"defaults:\n  - {gpu}\n  - _self_\njob:\n  partition: {gpu}\n  gres: gpu:{gpu}:1\n  constraint: {gpu}\n"
        )
    return ["--config-dir", "conf", "sweep.on=slurm", "sweep.slurm.cpus=1"]


def test_every_job_lands_on_its_own_kind_of_gpu(project: Project, site: list[str], slurm: Cluster) -> None:
    model = tiny.write_model(project.root / "tiny")
    words = [f"model.source={model}", "compiler=tensorrt_rtx", "target=our_l40s,our_rtx5090"]
    done = project.trtbuild("-m", *site, *words, "output=json", env=slurm.env)
    assert done.code == 0, done.err
    groups = {group["name"]: group["steps"] for group in done.json["forecast"]["groups"]}
    assert groups == {"cpu": 1, "l40s": 1, "rtx5090": 1}
    assert [r["outcome"] for r in done.json["results"]] == ["built", "built"]
    for gpu in GPUS:
        assert slurm.nodes_of(f"trtbuild-{gpu}") == {f"gpu-{gpu}"}
    assert slurm.queue() == []
    assert not list((project.store / "jobs").iterdir())  # nothing failed: no log is wanted
    again = project.trtbuild("-m", *site, *words, "output=json", env={"PATH": os.environ["PATH"]})
    assert {r["outcome"] for r in again.json["results"]} == {"hit-local"}  # without Slurm's commands at hand


def test_a_job_on_another_gpu_refuses_before_it_works(project: Project, site: list[str], slurm: Cluster) -> None:
    model = tiny.write_model(project.root / "tiny")
    wrong = ["target.job.gres='gpu:rtx5090:1'", "target.job.partition=all", "target.job.constraint=null"]
    words = [f"model.source={model}", "compiler=tensorrt_rtx", "target=our_l40s", *wrong]
    done = project.trtbuild("-m", *site, *words, env=slurm.env)
    assert done.code == 2
    assert "this job was given GeForce RTX 5090" in done.err
    assert "L40S was asked for" in done.err
    assert len(project.records()) == 1  # the network, which needs no GPU


def test_what_slurm_refuses_is_one_error(project: Project, site: list[str], slurm: Cluster) -> None:
    model = tiny.write_model(project.root / "tiny")
    done = project.trtbuild("-m", *site, f"model.source={model}", "sweep.slurm.partition=none", env=slurm.env)
    assert done.code == 2
    assert "invalid partition" in done.err
    assert "Traceback" not in done.err
    assert slurm.queue() == []


def slow(project: Project) -> list[str]:
    """Words of a sweep whose jobs wait before they work."""
    model = tiny.write_model(project.root / "tiny")
    return [
        f"model.source={model}",
        "quant=none,int8",
        "target=cpu_x86_64_v3",
        "sweep.slurm.setup=[sleep 60]",
    ]


def test_a_killed_job_is_told_and_the_others_go_on(project: Project, site: list[str], slurm: Cluster) -> None:
    first = tiny.write_model(project.root / "first", seed=1)
    second = tiny.write_model(project.root / "second", seed=2)
    words = [f"model.source={first},{second}", "until=network"]
    gate = project.root / "gate"
    held = f"sweep.slurm.setup=['while [ ! -e {gate} ]; do sleep 0.1; done']"
    process = project.start("-m", *site, *words, held, env=slurm.env)
    wait_for(lambda: len(slurm.running()) == 2)
    victim = sorted(slurm.running())[0]
    pids = slurm.command("scontrol", "show", "job", victim)
    assert "RUNNING" in pids
    slurm.command("scancel", "--full", "--signal=KILL", victim)
    gate.touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert f"job {victim} ended without an answer" in err
    assert re.search(r"Slurm says (FAILED|CANCELLED|NODE_FAIL)", err)
    assert len(out.splitlines()) == 1  # the other one's path
    assert slurm.queue() == []
    left = project.trtbuild("plan", "-m", *site, *words, "output=json", env=slurm.env)
    assert len(left.json["forecast"]["steps"]) == 1


def test_ctrl_c_cancels_the_jobs(project: Project, site: list[str], slurm: Cluster) -> None:
    process = project.start("-m", *site, *slow(project), env=slurm.env)
    wait_for(lambda: slurm.running())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert slurm.queue() == []
    assert project.records() == []


def test_a_node_that_goes_down_is_told(project: Project, site: list[str], slurm: Cluster) -> None:
    process = project.start("-m", *site, *slow(project), "sweep.slurm.partition=l40s", env=slurm.env)
    wait_for(lambda: slurm.running())
    slurm.command("scontrol", "update", "nodename=gpu-l40s", "state=down", "reason=test")
    try:
        _, err = process.communicate(timeout=120)
    finally:
        slurm.heal("gpu-l40s")
    assert process.returncode == 1, err
    assert "Slurm says NODE_FAIL" in err
    assert err.count("not run: what it needs failed") == 2
    assert slurm.queue() == []


def test_slurm_that_is_not_there_is_one_error(project: Project, tiny_llama: Path) -> None:
    bare = str(Path(subprocess.sys.executable).parent)
    done = project.trtbuild("-m", f"model.source={tiny_llama}", "sweep.on=slurm", env={"PATH": bare})
    assert done.code == 2
    assert "sweep.on=slurm: sbatch is not in PATH" in done.err
