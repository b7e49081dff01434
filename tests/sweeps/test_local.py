"""A sweep on one machine: nothing runs twice, one failure is one failure, and an interrupt leaves nothing behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import tiny
from tests.support.cli import TRTBUILD, Project
from tests.support.threads import of_workers
from trtbuild.executors import cgroup_limits
from trtstore import Store

HALF, ALL = max(1, cgroup_limits.cores() // 2), cgroup_limits.thread_limit()
#: Prints what is started, and how much was imported, to standard error.
WITNESS = (
    "import sys, atexit\n"
    "sys.addaudithook(lambda e, a: print('STARTED', a[0], file=sys.stderr) if e in"
    " ('subprocess.Popen', 'os.fork', 'os.posix_spawn', 'os.exec') else None)\n"
)


def model(project: Project, name: str, seed: int) -> Path:
    return tiny.write_model(project.root / name, seed=seed)


def ran(err: str) -> list[str]:
    """The lines of steps that ran."""
    return re.findall(r"^\[ *\d+/\d+\] (\w+ +built)", err, re.MULTILINE)


def step_keys(document: Any) -> list[str]:
    return sorted(step["key"] for step in document["forecast"]["steps"])


def test_a_sweep_does_what_its_forecast_says_and_hits_start_no_process(project: Project, tiny_llama: Path) -> None:
    # The last option is in no key: each engine is asked for twice.
    words = ["-m", f"model.source={tiny_llama}", "quant=none,int8", "check.max_tokens=1,2", "output=json"]
    planned = project.trtbuild("plan", *words)
    assert planned.code == 0, planned.err
    forecast = planned.json["forecast"]
    assert [forecast[name] for name in ("points", "failed", "keys")] == [4, 0, 2]
    assert sorted(step["name"] for step in forecast["steps"]) == ["engine", "engine", "network"]
    assert forecast["hits"] == {"local": 0, "also": {}}

    done = project.trtbuild(*words)
    assert done.code == 0, done.err
    assert done.json["forecast"]["steps"] == forecast["steps"]
    assert len(ran(done.err)) == 3
    built = [step["key"] for r in done.json["results"] for step in r["steps"] if step["outcome"] == "built"]
    assert sorted(built) == step_keys(planned.json)  # each once
    assert {path.name for path in project.records()} == set(built)
    assert [r["quant"] for r in done.json["results"]] == ["none", "none", "int8", "int8"]
    assert [r["outcome"] for r in done.json["results"]] == ["built", "hit-local"] * 2

    (project.root / "sitecustomize.py").write_text(WITNESS)
    again = project.trtbuild(*words, env={"PYTHONPATH": str(project.root)})
    assert "STARTED" not in again.err
    assert "4 points, 2 distinct keys: 2 hits here\nNothing will run." in again.err
    assert again.json["forecast"]["steps"] == []
    assert {r["outcome"] for r in again.json["results"]} == {"hit-local"}
    assert [r["path"] for r in again.json["results"]] == [r["path"] for r in done.json["results"]]


def test_a_dry_run_stops_after_the_forecast(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild("-m", f"model.source={tiny_llama}", "quant=none,int8", "sweep.dry_run=true")
    assert done.code == 0
    assert "3 steps will run" in done.out
    assert project.records() == []


def test_a_forecast_names_the_toolchains_that_will_be_fetched(project: Project, tiny_llama: Path) -> None:
    words = ["-m", f"model.source={tiny_llama}", "quant=int8,int4", "executor=managed"]
    planned = project.trtbuild("plan", *words)
    assert planned.code == 0, planned.err
    assert planned.out.count("The toolchain onnxruntime of network and engine is missing: about ") == 1
    found = project.trtbuild("plan", *words, "output=json").json["forecast"]["toolchains"]
    assert [(each["title"], each["state"], each["steps"]) for each in found] == [
        ("onnxruntime", "missing", ["network", "engine"]),
    ]


def test_a_python_that_is_not_there_is_one_point_s_error(project: Project, tiny_llama: Path) -> None:
    pythons = f"executor.python=/nowhere/python,{sys.executable}"
    words = ["-m", f"model.source={tiny_llama}", "executor=process", "check=none", pythons, "quant=int8,int4"]
    planned = project.trtbuild("plan", *words)
    assert planned.code == 0, planned.err
    done = project.trtbuild(*words)
    assert done.code == 2
    assert "executor.python: /nowhere/python does not answer" in done.err


def test_what_is_too_dear_is_refused(project: Project, tiny_llama: Path) -> None:
    words = ["-m", f"model.source={tiny_llama}", "check=none"]
    assert project.trtbuild(*words, "quant=none").code == 0  # now there is a basis
    before = project.records()
    for limit in ("sweep.max_minutes=0.001", "sweep.max_gb=0.00001"):
        done = project.trtbuild(*words, "quant=int8,int4", limit)
        assert done.code == 2, done.err
        assert f"error: {limit.partition('=')[0]}" in done.err
        assert "sweep.dry_run=true" in done.err
    assert project.records() == before


def test_a_failed_point_is_told_and_the_others_go_on(project: Project) -> None:
    good, bad = model(project, "good", 1), model(project, "bad", 2)
    weights = bad / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])  # found only by who reads the header
    missing = project.root / "nowhere"
    words = f"model.source={good},{bad},{missing}"
    done = project.trtbuild("-m", words, "quant=none,int8", "check=none", "output=json")
    assert done.code == 2
    results = done.json["results"]
    assert [r.get("outcome") for r in results] == ["built", "built", None, None, None, None]
    assert "there is nothing at" in results[4]["error"]["message"]
    assert done.err.count("there is nothing at") == 1  # once for both points
    assert "and 1 other point" in done.err
    assert done.json["forecast"]["failed"] == 4


def test_a_step_that_fails_takes_those_with_it_that_need_it(project: Project, tiny_llama: Path) -> None:
    # Too little memory for a worker even to start: a real death, of a real process.
    words = ["-m", f"model.source={tiny_llama}", "quant=none,int8", "executor.memory_gb=0.005"]
    done = project.trtbuild(*words, "output=json")
    assert done.code == 1, done.err
    assert [r["error"]["exit_code"] for r in done.json["results"]] == [1, 1]
    assert done.err.count("error: ") == 1
    assert done.err.count("not run: what it needs failed") == 2
    assert "2 points in" in done.err
    assert "2 failed" in done.err
    assert project.records() == []
    assert project.leftovers() == []


def test_options_of_the_sweep_cannot_differ_between_points(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild("-m", f"model.source={tiny_llama}", "sweep.jobs=1,2")
    assert done.code == 2
    assert "sweep: a sweep runs in one way" in done.err
    done = project.trtbuild("-m", f"model.source={tiny_llama}", "quant=none,int8", "out=engine")
    assert done.code == 2
    assert "out: several engines would have the link engine" in done.err
    assert project.records() == []


def test_refresh_builds_each_step_again_once_and_each_point_has_its_link(project: Project, tiny_llama: Path) -> None:
    words = ["-m", f"model.source={tiny_llama}", "quant=none,int8", "check=none"]
    assert project.trtbuild(*words).code == 0
    again = project.trtbuild(*words, "refresh=true", "out='engine-${hydra:runtime.choices.quant}'")
    assert again.code == 0, again.err
    assert len(ran(again.err)) == 3
    assert again.err.count("built again, the same bytes as in the store") == 3
    links = [(project.root / f"engine-{quant}").resolve() for quant in ("none", "int8")]
    assert links == [Path(line).resolve() for line in again.out.splitlines()]


def test_an_interrupt_leaves_nothing_and_what_is_finished_stays(project: Project) -> None:
    models = ",".join(str(model(project, f"m{seed}", seed)) for seed in range(3))
    words = ["-m", f"model.source={models}", "quant=none,int8"]
    process = project.start(*words)
    children = wait_for_workers(process.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "of 9 steps had ended: the same command goes on from there\ninterrupted" in err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert project.leftovers() == []
    kept = {path.name for path in project.records()}
    left = project.trtbuild("plan", *words, "output=json")
    assert left.code == 0, left.err
    assert set(step_keys(left.json)).isdisjoint(kept)  # finished keys are hits
    assert len(left.json["forecast"]["steps"]) + len(kept) == 9


def wait_for_workers(pid: int) -> list[psutil.Process]:
    parent, until = psutil.Process(pid), time.monotonic() + 120
    while time.monotonic() < until:
        found = [child for child in parent.children(recursive=True) if "trtbuild.networks" in child.cmdline()]
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("no worker was started")


@pytest.mark.parametrize(
    ("models", "said", "threads"),
    [(2, (), str(HALF)), (2, ("executor.threads=3",), "3"), (1, (), ALL and str(ALL))],
)
def test_steps_that_run_side_by_side_share_the_cores(
    project: Project, models: int, said: tuple[str, ...], threads: str | None
) -> None:
    """Threads wait for each other busily: with all cores for each of two steps, checks took nine times as long."""
    sources = ",".join(str(model(project, f"m{seed}", seed)) for seed in range(models))
    process = project.start("-m", f"model.source={sources}", "until=network", "sweep.jobs=2", *said)
    found = of_workers(process, project)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert found == [threads] * models


def test_another_store_s_hits_are_told_and_taken(project: Project, tiny_llama: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    words = [f"model.source={tiny_llama}", "check=none"]
    assert project.trtbuild(*words, "quant=none", f"store.root={other}").code == 0
    assert list(Store.open(other).keys())
    done = project.trtbuild("-m", *words, "quant=none,int8", f"store.also=[{other}]", "output=json")
    assert done.code == 0, done.err
    forecast = done.json["forecast"]
    assert forecast["hits"] == {"local": 0, "also": {str(other): 1}}
    assert [step["name"] for step in forecast["steps"]] == ["engine"]  # its network is there too
    assert [r["outcome"] for r in done.json["results"]] == ["hit-local", "built"]


def test_on_a_terminal_it_shows_what_is_going_on(project: Project, tiny_llama: Path) -> None:
    command = f"{TRTBUILD} -m model.source={tiny_llama} quant=none,int8"
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", command, "log"],
        cwd=project.root,
        env={**project.environment(), "TERM": "xterm", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout.decode())
    assert done.returncode == 0, shown
    assert "building the network" in shown
    assert re.search(r"cpu .*1/3", shown)
    assert "points: 1 at work, 1 waiting" in shown or "points: 2 at work" in shown
    assert "2 points in" in shown


#: A plugin of Hydra's as others write them: it asks for points in batches, and goes on from the best.
SMALLEST = """
import sys
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class Smallest(Sweeper):
    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        first = self.launcher.launch([[*arguments, f"quant={quant}"] for quant in ("none", "int8")], 0)
        best = min(first, key=lambda job: job.return_value)
        (second,) = self.launcher.launch([[*best.overrides, "quant.group_size=64"]], 2)
        print("BEST", best.overrides[-1], best.return_value > second.return_value, file=sys.stderr)

node = {"_target_": "hydra_plugins.smallest.Smallest"}
ConfigStore.instance().store(group="hydra/sweeper", name="smallest", node=node)
"""


def test_a_sweeper_that_optimizes_asks_in_batches_and_gets_its_number(project: Project, tiny_llama: Path) -> None:
    plugin = project.root / "plugins" / "hydra_plugins" / "smallest"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text(SMALLEST)
    words = [f"model.source={tiny_llama}", "check=none", "hydra/sweeper=smallest", "sweep.objective=bytes"]
    done = project.trtbuild("-m", *words, "output=json", env={"PYTHONPATH": str(plugin.parents[1])})
    assert done.code == 0, done.err
    assert "BEST quant=int8 True" in done.err
    assert [r["outcome"] for r in done.json["results"]] == ["built"] * 3
    sizes = [r["bytes"] for r in done.json["results"]]
    assert sizes[0] > sizes[1] > sizes[2]
