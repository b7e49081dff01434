"""The doctor on a healthy machine with an RTX 4070, on six broken ones, and here: what it finds, and how to mend it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.machines import IMAGE, MACHINES
from tests.support import nvml
from tests.support.cli import Project
from trtbuild.config.schema import StoreConf
from trtbuild.doctor import team
from trtstore.format.trust import Role, Trusted
from trtstore.team import signing, trust_list

pytestmark = pytest.mark.xdist_group("doctor")
ROOT = Path(__file__).parents[2]
CONTAINER = ("compiler=tensorrt_llm", "executor=container", f"compiler.image={IMAGE}", "quant=int8")


@dataclass(frozen=True)
class Doctor:
    running: subprocess.Popen[str]
    root: Path

    def __call__(self, machine: str, *words: str) -> Mapping[str, Any]:
        place = self.root / machine.replace(" ", "_")
        if not place.exists():
            place.mkdir()
            MACHINES[machine].make(place)
        store = f"store.root={place / 'store'}"
        assert self.running.stdin is not None
        assert self.running.stdout is not None
        self.running.stdin.write(json.dumps({"root": str(place), "words": [*words, store]}) + "\n")
        self.running.stdin.flush()
        return json.loads(self.running.stdout.readline())


@pytest.fixture(scope="module")
def doctor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doctor]:
    library = nvml.build(tmp_path_factory.mktemp("nvml"))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.doctor.probe"],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(library)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        yield Doctor(running, tmp_path_factory.mktemp("machines"))
        assert running.stdin is not None
        running.stdin.close()


def failed(said: Mapping[str, Any]) -> dict[str, Any]:
    return {check["name"]: check for check in said["checks"] if check["failed"]}


def named(said: Mapping[str, Any], name: str) -> Any:
    (found,) = [check for check in said["checks"] if check["name"] == name]
    return found


def test_a_healthy_machine_lacks_nothing(doctor: Doctor) -> None:
    said = doctor("healthy", *CONTAINER)
    assert failed(said) == {}
    states = {check["name"]: check["state"] for check in said["checks"]}
    wanted = ("driver", "gpu", "nvidia-smi", "cuda", "container", "toolkit", "runtime", "image", "pulled")
    assert {name: states[name] for name in (*wanted, "gpu in container", "memory", "store", "disk")} == dict.fromkeys(
        (*wanted, "gpu in container", "memory", "store", "disk"), "ok"
    )
    assert said["lines"][-1] == "A build with this config can work here."
    assert "GeForce RTX 4070" in named(said, "gpu")["words"]
    assert named(said, "driver")["words"] == "NVIDIA 580.95.05, CUDA 13.0"


#: machine -> what fails: name, words of it, words of its mend
BROKEN: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "old driver": {"cuda": ("CUDA 13.1: driver 580 or later, and this one is 550.40.07", "ubuntu-drivers install")},
    "no toolkit": {
        "toolkit": ("not installed (nvidia-ctk)", "apt-get install -y nvidia-container-toolkit"),
        "runtime": ("not registered with docker", "nvidia-ctk runtime configure --runtime=docker"),
    },
    "daemon not restarted": {"runtime": ("the daemon has not read it", "sudo systemctl restart docker")},
    "driver mismatch": {
        "driver": ("NVML/RM version mismatch", "sudo reboot"),
        "nvidia-smi": ("Driver/library version mismatch", "sudo reboot"),
    },
    "container without GPU": {
        "gpu in container": (
            "libnvidia-ml.so.1: cannot open",
            "nvidia-ctk runtime configure --runtime=docker",
        )
    },
    "podman without CDI": {"cdi": ("no description of NVIDIA's GPUs", "sudo nvidia-ctk cdi generate")},
}


@pytest.mark.parametrize("machine", BROKEN)
def test_what_is_broken_is_named_with_its_mend_and_nothing_else(doctor: Doctor, machine: str) -> None:
    said = doctor(machine, *CONTAINER)
    found = failed(said)
    assert set(found) == set(BROKEN[machine])
    for name, (words, mend) in BROKEN[machine].items():
        assert words in found[name]["words"]
        assert mend in "\n".join(found[name]["mend"])
        assert any(line.startswith(name) and "MISSING" in line for line in said["lines"])
    assert said["lines"][-1].startswith("A build with this config lacks: ")


def test_the_mend_is_of_the_distribution(doctor: Doctor) -> None:
    debian, rhel = doctor("no toolkit", *CONTAINER), doctor("podman without CDI", *CONTAINER)
    assert "apt-get" in str(named(debian, "toolkit")["mend"])
    assert named(rhel, "system")["words"].startswith("Rocky Linux 9.4")
    pulled = named(rhel, "pulled")
    assert pulled["state"] == "warning"
    assert pulled["mend"] == [f"podman pull nvcr.io/nvidia/tensorrt-llm/release@sha256:{'ab' * 32}"]


def test_what_a_config_does_not_want_is_not_missing(doctor: Doctor) -> None:
    """The same broken machine builds what needs no GPU, and one without docker what runs in none."""
    assert failed(doctor("driver mismatch", "compiler=onnxruntime", "quant=int8", "target=cpu")) == {}
    ahead = doctor("driver mismatch", "compiler=tensorrt_rtx", "target=rtx4070")
    assert not {"driver", "nvidia-smi", "container"} & set(failed(ahead))
    assert named(ahead, "container")["state"] == "unneeded"


def test_a_target_that_is_not_here_is_said(doctor: Doctor) -> None:
    found = failed(doctor("healthy", *CONTAINER, "target=h100_sxm"))
    assert set(found) == {"gpu"}
    assert "target=h100_sxm is built on such a GPU alone" in found["gpu"]["words"]


def test_an_image_by_its_tag_alone_is_not_pinned(doctor: Doctor) -> None:
    tag = "compiler.image=nvcr.io/nvidia/tensorrt-llm/release:1.2.1"
    found = failed(doctor("healthy", "compiler=tensorrt_llm", "executor=container", tag))
    assert set(found) == {"image"}
    assert "imagetools inspect nvcr.io/nvidia/tensorrt-llm/release:1.2.1" in found["image"]["mend"][0]


def test_a_python_without_tensorrt_llm_is_found(doctor: Doctor) -> None:
    found = failed(doctor("healthy", "compiler=tensorrt_llm"))
    assert set(found) == {"tensorrt_llm"}
    assert "executor=container" in str(found["tensorrt_llm"]["mend"])


def test_gated_models_want_a_token(doctor: Doctor) -> None:
    hub = named(doctor("healthy", *CONTAINER, "model=llama"), "hub")
    assert hub["state"] == "warning"
    assert "hf auth login" in hub["mend"][0]


def test_what_compiles_wants_a_compiler(doctor: Doctor) -> None:
    found = named(doctor("healthy", "compiler=aot_inductor"), "compiler")
    assert found["state"] == "missing"
    assert found["mend"] == ["sudo apt-get install -y g++"]


class TestHere:
    """On the machine that runs the tests, from the command line."""

    def test_it_is_correct_without_a_gpu(self, project: Project) -> None:
        done = project.trtbuild("doctor", "compiler=tensorrt_llm", "executor=container", "output=json")
        checks = {check["name"]: check for check in done.json["checks"]}
        if checks["driver"]["state"] == "ok":
            pytest.skip("this machine has an NVIDIA driver")
        assert done.code == 1
        assert done.json["ok"] is False
        assert checks["driver"]["required"] is True
        assert checks["store"]["state"] == "ok"
        assert not (project.root / "store").exists(), "looking makes nothing"

    def test_a_config_that_needs_none_of_it_can_work(self, project: Project) -> None:
        done = project.trtbuild("doctor", "quant=int8")
        assert done.code == 0, done.out
        assert done.out.splitlines()[-1] == "A build with this config can work here."

    def test_a_store_that_cannot_be_written_is_named(self, project: Project) -> None:
        (project.root / "file").write_text("in the way")
        done = project.trtbuild("doctor", f"store.root={project.root / 'file' / 'store'}")
        assert done.code == 1
        assert "cannot be written" in done.out
        assert "store.root=PATH" in done.out

    def test_a_store_that_others_may_write_to_is_named(self, project: Project) -> None:
        root = project.root / "open"
        (root / "v1").mkdir(parents=True)
        (root / "v1").chmod(0o777)
        done = project.trtbuild("doctor", "quant=int8", f"store.root={root}")
        assert done.code == 1
        assert f"everybody may write to {root / 'v1'}" in done.out
        assert f"chmod -R go-w {root}" in done.out
        assert project.trtbuild("quant=int8", f"store.root={root}", "model.source=.").code in (2, 4)


def test_a_team_store_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust_list.FOLDER, str(tmp_path / "config"))
    trust_list.save([Trusted(signing.new("ci", None), "ci")])
    (tmp_path / "team").mkdir()
    there, missing = (tmp_path / "team").as_uri(), (tmp_path / "none").as_uri()
    for url, write, state, required in (
        (there, False, "ok", False),
        (there, True, "ok", True),
        (missing, False, "warning", False),
        (missing, True, "missing", True),
        ("ftp://host/store", False, "warning", False),
    ):
        (found,) = team.check(StoreConf(team=url, write=write))
        assert (found.state, found.required) == (state, required), url
    assert not list(team.check(StoreConf(team="")))
    (unnamed,) = team.check(StoreConf(team="", write=True))
    assert unnamed.failed


def test_a_team_store_that_would_be_refused_or_cannot_be_signed_for_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trust_list.FOLDER, str(tmp_path / "config"))
    (tmp_path / "team").mkdir()
    conf = StoreConf(root=str(tmp_path / "store"), team=(tmp_path / "team").as_uri(), write=True)
    (keyless,) = team.check(conf)
    assert keyless.failed
    assert "no key was named to sign with" in str(keyless)
    public = signing.new("ci", None)
    (stranger,) = team.check(conf)
    assert "is not trusted here" in str(stranger)
    trust_list.save([Trusted(public, "ci", roles=(Role.publish, Role.revoke))])
    (listless,) = team.check(conf)
    assert "has no list of revocations" in str(listless)
