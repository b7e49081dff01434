"""GPUs as NVML reported them somewhere are what the catalogue says they are, fact for fact."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys

import pytest
import yaml

from tests.targets.conftest import HERE, Machines, facts

CONF = HERE.parents[1] / "conf" / "target"
RECORDED = {
    path.stem: found[1]
    for path in sorted((HERE / "recorded").glob("*.txt"))
    if (found := re.search(r"^# target (\w+)$", path.read_text(), re.MULTILINE))
}
KEPT = ("kind", "arch", "level", "microarchitecture", "gpu", "driver", "cuda")  # what a key may hold


def kept(target: dict) -> dict:
    assert "error" not in target, target
    return {name: target[name] for name in KEPT}


def test_many_kinds_are_recorded_each_with_its_sources() -> None:
    assert len(RECORDED) >= 18
    for path in (HERE / "recorded").glob("*.txt"):
        assert re.search(r"^# (\(.*\) )?https://", path.read_text(), re.MULTILINE), path.name


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_gpu_is_its_entry_of_the_catalogue(machines: Machines, name: str) -> None:
    conf = yaml.safe_load((CONF / f"{RECORDED[name]}.yaml").read_text())
    detected = machines.resolve(name, "target=auto")
    assert detected["gpu"] == {
        "name": conf["gpu"],
        "memory_gb": conf["memory_gb"],
        "compute_capability": conf["compute_capability"],
        "sm_count": conf["sm_count"],
        "mig": None,
    }
    assert set(detected["origins"].values()) == {"detected on this machine"}
    if conf["arch"] != platform.machine():
        return  # a Grace GPU's facts, on this x86-64: it is not here, as the next test says
    named = machines.resolve(name, f"target={RECORDED[name]}")
    assert kept(named) == kept(detected)
    assert named["name"] == RECORDED[name]
    assert named["gpus"] == detected["gpus"]


@pytest.mark.parametrize("name", RECORDED)
def test_a_laptop_computes_the_same_target_for_the_same_driver(machines: Machines, name: str) -> None:
    conf = yaml.safe_load((CONF / f"{RECORDED[name]}.yaml").read_text())
    detected = machines.resolve(name, "target=auto")
    laptop = machines.resolve(
        "none",
        f"target={RECORDED[name]}",
        f"target.driver={detected['driver']}",
        f"target.cuda={detected['cuda']}",
    )
    assert kept(laptop) == {**kept(detected), "arch": conf["arch"]}
    assert laptop["here"].startswith("not here: this machine has no NVIDIA GPU")
    assert laptop["origins"]["driver"] == "target.driver="


def test_another_architecture_of_the_host_is_another_target(machines: Machines) -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    target = machines.resolve("h100_sxm", "target=h100_sxm", f"target.arch={other}")
    assert target["arch"] == other
    assert target["origins"]["driver"] == "fleet=default"


@pytest.mark.parametrize("name", sorted(path.stem for path in (HERE / "recorded").glob("*.txt")))
def test_what_is_printed_for_a_report_tells_no_machine_apart(machines: Machines, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trtbuild.targets"],
        env={"PATH": "/usr/bin:/bin", **machines.env(name)},
        capture_output=True,
        text=True,
        check=True,
    )
    shown = json.loads(done.stdout)
    uuids = re.findall(r"^uuid (\S+)", facts(name).read_text(), re.MULTILINE)
    assert uuids
    assert not [uuid for uuid in uuids if uuid in done.stdout]
    assert "GPU-" not in done.stdout
    assert len(shown["devices"]) == facts(name).read_text().count("\ngpu\n")
    reported = shown["devices"][0]["reported"]
    memory = re.search(r"^memory (\d+)", facts(name).read_text(), re.MULTILINE)
    assert memory
    assert reported["memory"] == int(memory[1]) << 20
    if name in RECORDED:
        assert shown["target"]["gpu"]["memory_gb"] == shown["devices"][0]["facts"][0]["memory_gb"]


def test_the_report_loads_neither_hydra_nor_a_compiler(machines: Machines) -> None:
    code = (
        "import sys, runpy; sys.argv = ['x']\n"
        "try: runpy.run_module('trtbuild.targets', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('hydra', 'omegaconf', 'torch', 'numpy', 'trtbuild.config.schema') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/usr/bin:/bin", **machines.env("l4")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_entry_names_its_source(machines: Machines) -> None:
    names = [path.stem for path in CONF.glob("*.yaml")]
    for name in names:
        conf = yaml.safe_load((CONF / f"{name}.yaml").read_text())
        if name in ("auto", "cpu"):
            continue
        assert conf["name"] == name
        assert all(word.startswith("https://") for word in conf["source"].split()), name
        target = machines.resolve("none", f"target={name}", kinds=("cpu", "cuda"))
        assert target["name"] == name
        assert target["kind"] == conf["kind"]
        assert target["arch"] == conf["arch"]


def test_the_stand_in_has_just_the_functions_that_are_called() -> None:
    """What the code calls and what the stand-in defines are the same, by the names that pynvml gives them in C."""
    code = (HERE.parents[1] / "trtbuild" / "targets" / "nvml.py").read_text()
    source = (HERE.parent / "support" / "nvml" / "stand_in.c").read_text()
    called = set(re.findall(r"\bnvml\.(nvml\w+)", code))
    defined = {name.removesuffix("_v2") for name in re.findall(r"^[\w \*]*?\*?(nvml\w+)\(", source, re.MULTILINE)}
    spelt = {"nvmlInitWithFlags": "nvmlInit"}
    assert {spelt.get(name, name) for name in defined} - {"nvmlErrorString"} == {
        name.removesuffix("_v2") for name in called if name != "nvmlError"
    }


def test_the_catalogue_of_the_documentation_is_that_of_conf() -> None:
    text = (HERE.parents[1] / "docs" / "hardware.md").read_text()
    rows = {
        cells[0].strip("` "): [cell.strip() for cell in cells[1:]]
        for line in text.splitlines()
        if line.startswith("| `") and len(cells := line.strip("|").split("|")) == 7
    }
    gpus = {}
    for path in CONF.glob("*.yaml"):
        conf = yaml.safe_load(path.read_text())
        if conf.get("kind") == "cuda" and "memory_gb" in conf:  # not a class of GPUs
            links = ", ".join(f"[{at}]({url})" for at, url in enumerate(conf["source"].split(), 1))
            facts_of = (
                conf["gpu"],
                conf["memory_gb"],
                conf["compute_capability"],
                conf["sm_count"],
                conf["arch"],
            )
            gpus[path.stem] = [*map(str, facts_of), links]
    assert rows == gpus
