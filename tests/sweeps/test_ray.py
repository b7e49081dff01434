"""Sweeps over a real Ray cluster with two kinds of GPU, which only its loopback knows."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import nvml, tiny
from tests.support.cli import Project
from tests.support.slurm import free_ports, wait_for
from tests.support.threads import of_workers

pytestmark = pytest.mark.xdist_group("ray")
RECORDED = Path(__file__).parents[1] / "targets" / "recorded"
NODE = ("--node-ip-address=127.0.0.1", "--num-cpus=2", "--num-gpus=1", "--object-store-memory=100000000")
GPUS = {"l40s": "L40S", "rtx5090": "RTX5090"}


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which a command finds the cluster."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'trtbuild[ray]'")
    library = nvml.build(tmp_path_factory.mktemp("nvml"))
    (port,) = free_ports(1)
    while 10002 <= port <= 19999:  # Ray's own, for its workers
        (port,) = free_ports(1)
    token = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    address = f"127.0.0.1:{port}"
    nodes = []
    try:
        head = ["--head", f"--port={port}", "--include-dashboard=false", "--disable-usage-stats"]
        for gpu, kind in GPUS.items():
            place = head if not nodes else [f"--address={address}"]
            resources = f'--resources={{"accelerator_type:{kind}": 1}}'
            with (tmp_path_factory.mktemp(f"ray-{gpu}") / "log").open("wb") as log:
                nodes.append(
                    subprocess.Popen(
                        [Path(sys.executable).with_name("ray"), "start", "--block", *place, *NODE, resources],
                        env={**os.environ, **token, **on_machine(library, gpu)},
                        stdout=log,
                        stderr=log,
                    )
                )
            wait_for(lambda: answers(address, token, len(nodes)), 120)
        yield {**token, "RAY_ADDRESS": address}
    finally:
        for node in reversed(nodes):
            family = psutil.Process(node.pid).children(recursive=True)
            node.terminate()
            node.wait(30)
            for process in family:
                if process.is_running():
                    process.kill()


def on_machine(library: Path, gpu: str) -> dict[str, str]:
    return {"LD_LIBRARY_PATH": str(library), nvml.FACTS: str(RECORDED / f"{gpu}.txt")}


def answers(address: str, token: dict[str, str], nodes: int) -> bool:
    code = (
        f"import ray; ray.init('{address}', logging_level='ERROR', log_to_driver=False);"
        f"raise SystemExit(sum(n['Alive'] for n in ray.nodes()) != {nodes})"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **token}, capture_output=True)
    return done.returncode == 0


@pytest.fixture
def site(project: Project) -> list[str]:
    """A team's config that says what its machines are called in Ray."""
    folder = project.root / "conf" / "target"
    folder.mkdir(parents=True)
    for gpu, kind in GPUS.items():
        (folder / f"our_{gpu}.yaml").write_text(f"defaults:\n  - {gpu}\n  - _self_\njob:\n  accelerator: {kind}\n")
    return ["--config-dir", "conf", "sweep.on=ray", "sweep.ray.cpus=1"]


def test_every_task_lands_on_its_own_kind_of_gpu(project: Project, site: list[str], ray: dict[str, str]) -> None:
    model = tiny.write_model(project.root / "tiny")
    words = [f"model.source={model}", "compiler=tensorrt_rtx", "target=our_l40s,our_rtx5090"]
    done = project.trtbuild("-m", *site, *words, "output=json", env=ray)
    assert done.code == 0, done.err  # a task whose GPU is another one refuses to build
    groups = {group["name"]: group["steps"] for group in done.json["forecast"]["groups"]}
    assert groups == {"cpu": 1, "l40s": 1, "rtx5090": 1}
    assert [r["outcome"] for r in done.json["results"]] == ["built", "built"]


def test_a_task_takes_as_many_threads_as_the_cores_that_it_asked_for(
    project: Project, site: list[str], ray: dict[str, str]
) -> None:
    model = tiny.write_model(project.root / "tiny")
    process = project.start("-m", *site, f"model.source={model}", "until=network", env=ray)
    assert of_workers(process, project) == ["1"]
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_a_task_on_another_gpu_refuses_before_it_works(project: Project, site: list[str], ray: dict[str, str]) -> None:
    model = tiny.write_model(project.root / "tiny")
    words = [f"model.source={model}", "compiler=tensorrt_rtx", "target=our_l40s"]
    done = project.trtbuild("-m", *site, *words, "target.job.accelerator=RTX5090", env=ray)
    assert done.code == 2
    assert "this job was given GeForce RTX 5090" in done.err
    missing = project.trtbuild("-m", *site, *words, "target.job.accelerator=H100", env=ray)
    assert missing.code == 2
    assert "target.job.accelerator: no machine of the cluster has the accelerator H100" in missing.err
    hint = missing.err.splitlines()[-1]
    assert hint.startswith("hint: there are: ")
    assert {"L40S", "RTX5090"} <= set(hint.removeprefix("hint: there are: ").split(", "))


def errands(child: bool) -> list[psutil.Process]:
    """Commands that tasks run here; with `child`, the workers that they have."""
    found = [p for p in psutil.process_iter() if "sweep.key=" in " ".join(cmdline(p))]
    return [worker for each in found for worker in each.children()] if child else found


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_killed_task_is_told_and_ctrl_c_leaves_nothing(
    project: Project, site: list[str], ray: dict[str, str]
) -> None:
    first = tiny.write_model(project.root / "first", seed=1)
    second = tiny.write_model(project.root / "second", seed=2)
    words = ["-m", *site, f"model.source={first},{second}", "until=network"]
    process = project.start(*words, env=ray)
    mine = str(project.root)
    wait_for(lambda: any(mine in " ".join(cmdline(p)) for p in errands(child=False)), 120)
    victim = next(p for p in errands(child=False) if mine in " ".join(cmdline(p)))
    victim.parent().kill()  # Ray's worker, with the task in it
    _, err = process.communicate(timeout=180)
    assert process.returncode == 1, err
    assert "the task was lost" in err
    assert len(project.records()) == 1  # the other one went on

    process = project.start(*words, env=ray)
    wait_for(lambda: any(mine in " ".join(cmdline(p)) for p in errands(child=False)), 120)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "interrupted" in err
    until = time.monotonic() + 20
    while any(mine in " ".join(cmdline(p)) for p in errands(child=False)) and time.monotonic() < until:
        time.sleep(0.1)
    assert [p for p in errands(child=False) if mine in " ".join(cmdline(p))] == []


def test_a_cluster_that_is_not_there_is_one_error(project: Project, site: list[str], tiny_llama: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'trtbuild[ray]'")
    (port,) = free_ports(1)
    words = [f"model.source={tiny_llama}", f"sweep.ray.address=127.0.0.1:{port}"]
    done = project.trtbuild("-m", *site, *words, timeout=120)
    assert done.code == 2, done.err
    assert "no Ray cluster answers" in done.err
    assert "Traceback" not in done.err
