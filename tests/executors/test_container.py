"""Steps in real containers of podman, with the stand-in for NVIDIA's tools: what they see, and how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support import nvml, podman, tiny
from tests.support.cli import Done, Project
from tests.support.podman import Podman
from tests.targets.conftest import facts
from trtbuild.errors import InputError
from trtbuild.executors import container
from trtbuild.executors.container import Container
from trtbuild.executors.process import StepLimits, Task
from trtstore import Store

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("podman")]
LIMITS = StepLimits(60, None, 1)
SECRET = "hf_of_nobody"  # noqa: S105  # it is


@pytest.fixture(scope="module")
def engine() -> Iterator[Podman]:
    with podman.podman() as made:
        yield made


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def env(library: Path) -> dict[str, str]:
    """Of a machine with an RTX 4070, which only the command line looks for here."""
    return {"LD_LIBRARY_PATH": str(library), nvml.FACTS: str(facts("rtx4070"))}


def words(engine: Podman, model: Path, *more: str) -> list[str]:
    return [
        "build",
        "compiler=tensorrt_llm",
        "compiler.checkpoint_by=scripts",
        f"model.source={model}",
        *engine.words,
        *more,
    ]


def build(project: Project, engine: Podman, model: Path, env: dict[str, str], *more: str) -> Done:
    return project.trtbuild(*words(engine, model, *more), env=env)


def test_an_engine_is_built_in_containers(
    project: Project, engine: Podman, tiny_llama: Path, env: dict[str, str]
) -> None:
    done = build(project, engine, tiny_llama, env, "parallel.tp=2", "target.gpus=2", "output=json")
    assert done.code == 0, done.err
    result = done.json
    made = Path(result["path"])
    assert {each.name for each in made.iterdir()} == {
        "config.json",
        "rank0.engine",
        "rank1.engine",
        "tokenizer",
    }
    record = Store.open(project.store).lookup(result["key"])
    assert record is not None
    assert record.predicate["trtbuild_toolchain"]["executor"] == "container"
    fields = record.predicate["buildDefinition"]["externalParameters"]
    assert engine.image.endswith(fields["toolchain.image"])
    assert fields["toolchain.image"].startswith("sha256:")
    assert result["check"]["executed"] is False
    assert {path.stat().st_uid for path in made.rglob("*")} == {os.getuid()}
    assert not engine.containers(), "each is removed"
    assert not project.leftovers()


LOOK = """
import json, os, pathlib, socket
def writable(path):
    try:
        pathlib.Path(path, "probe").write_text("x")
    except OSError:
        return False
    return True
mounts = [line.split() for line in open("/proc/self/mounts")]
ours = sorted(m[1] for m in mounts if m[1].startswith("/trtbuild"))
status = dict(line.rstrip().split(":", 1) for line in open("/proc/self/status"))
json.dump({
    "writable": {f"/trtbuild/{p}": writable(f"/trtbuild/{p}") for p in ("out", "home", "inputs/a", "code/trtbuild")},
    "model": os.access("/trtbuild/model/config.json", os.W_OK),
    "read": open("/trtbuild/model/config.json").read(),
    "mounts": ours,
    "devices": sorted(os.listdir("/sys/class/net")),
    "env": dict(os.environ),
    "capabilities": int(status["CapEff"], 16),
    "more": status["NoNewPrivs"].strip(),
}, open("/trtbuild/out/seen.json", "w"))
"""


def look(engine: Podman, tmp_path: Path, **more: Any) -> dict[str, Any]:
    """What a step would see: the very command of a step, with another program for its Python."""
    for name in ("a", "out", "scratch/tmp", "odd, name"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "odd, name" / "file").write_text("content")
    (tmp_path / "odd, name" / "link").symlink_to(tmp_path / "odd, name" / "file")
    model = {"config.json": tmp_path / "odd, name" / "link"}
    task = Task("step", "ab" * 32, "module", {}, {}, model, {"a": tmp_path / "a"})
    box = Container("podman", engine.image, "none", engine_flags=tuple(engine.engine_flags), **more)
    flags = container.Container(**{**vars(box), "flags": tuple(podman.RUN)})
    command = container.words(flags, task, tmp_path / "out", tmp_path / "scratch", LIMITS, f"look-{os.getpid()}")
    assert command[-4:] == [
        "/trtbuild/code/trtbuild/processes/start.py",
        "module",
        "/trtbuild/home/request.json",
        "/trtbuild/out",
    ]
    command = [*command[:-4], "-c", LOOK]
    command.insert(command.index("run") + 1, "--rm")
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "out" / "seen.json").read_text())


def test_a_step_sees_what_it_was_given_and_nothing_else(
    engine: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_TOKEN", SECRET)
    monkeypatch.setenv("OTHER_TOKEN", "hf_other")
    seen = look(engine, tmp_path, env=("HUB_TOKEN",))
    assert seen["writable"] == {
        "/trtbuild/out": True,
        "/trtbuild/home": True,
        "/trtbuild/inputs/a": False,
        "/trtbuild/code/trtbuild": False,
    }
    assert seen["model"] is False
    assert seen["read"] == "content", "of a link in a folder with a comma in its name"
    assert seen["mounts"] == [
        "/trtbuild/code/trtbuild",
        "/trtbuild/home",
        "/trtbuild/inputs/a",
        "/trtbuild/model/config.json",
        "/trtbuild/out",
    ]
    assert seen["devices"] == ["lo"], "no network"
    assert seen["capabilities"] == 0
    assert seen["more"] == "1"
    assert seen["env"]["HUB_TOKEN"] == SECRET
    assert "OTHER_TOKEN" not in seen["env"]


def test_a_secret_is_in_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", SECRET)
    task = Task("step", "ab" * 32, "module", {}, {}, {}, {})
    for kind in container.ENGINES:
        box = Container(kind, f"image@sha256:{'ab' * 32}", env=("HUB_TOKEN",))
        command = container.words(box, task, tmp_path, tmp_path, LIMITS, "name")
        assert "HUB_TOKEN" in command
        assert not [word for word in command if SECRET in word]


def test_a_container_has_no_more_rights_than_it_needs(tmp_path: Path) -> None:
    task = Task("step", "ab" * 32, "module", {}, {}, {}, {})
    for kind in container.ENGINES:
        command = container.words(Container(kind, "image"), task, tmp_path, tmp_path, LIMITS, "name")
        pairs = set(pairwise(command))
        assert {
            ("--cap-drop", "ALL"),
            ("--security-opt", "no-new-privileges"),
            ("--network", "none"),
        } <= pairs
        assert ("--env", "PYTHONSAFEPATH=1") in pairs
        assert ("--pids-limit" in command) == (kind != "podman"), "which has one of its own"
        assert not [word for word in command if "docker.sock" in word or word.strip("-") == "privileged"]
        mounts = [mount for flag, mount in pairwise(command) if flag == "--mount"]
        assert sorted("readonly" in each for each in mounts) == [False, False, True], "scratch, out, and code"


def test_each_engine_brings_the_gpus_in_its_way(tmp_path: Path) -> None:
    task = Task("step", "ab" * 32, "module", {}, {}, {}, {})
    ways = {
        ("docker", "auto"): ["--gpus", "all"],
        ("nerdctl", "auto"): ["--gpus", "all"],
        ("podman", "auto"): ["--device", "nvidia.com/gpu=all"],
        ("docker", "cdi"): ["--device", "nvidia.com/gpu=all"],
        ("podman", "none"): [],
    }
    for (kind, gpus), expected in ways.items():
        command = container.words(Container(kind, "image", gpus), task, tmp_path, tmp_path, LIMITS, "name")
        found = [word for word in command if word in ("--gpus", "all", "--device", "nvidia.com/gpu=all")]
        assert found == expected, (kind, gpus)


def test_a_digest_is_named_as_every_engine_takes_it() -> None:
    digest = f"sha256:{'ab' * 32}"
    assert container.reference(f"nvcr.io:443/nvidia/release:1.2.1@{digest}") == f"nvcr.io:443/nvidia/release@{digest}"
    assert container.reference(f"name@{digest}") == f"name@{digest}"
    assert container.reference(digest) == "ab" * 32


def until(what: Callable[[], bool], words: str) -> None:
    for _ in range(600):
        if what():
            return
        time.sleep(0.1)
    raise AssertionError(words)


@pytest.fixture
def sleeper(tmp_path: Path) -> Path:
    """A model that whoever converts it takes ten minutes for."""
    return tiny.write_model(tmp_path / "sleeper", stand_in={"sleep": 600})


def test_an_interrupt_stops_the_container(project: Project, engine: Podman, sleeper: Path, env: dict[str, str]) -> None:
    running = project.start(*words(engine, sleeper), env=env)
    until(lambda: bool(engine("ps", "--quiet").split()), "no container was started")
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert not engine.containers()
    assert not project.leftovers()
    assert not project.records()


def test_a_killed_trtbuild_leaves_no_container_running(
    project: Project, engine: Podman, sleeper: Path, env: dict[str, str]
) -> None:
    running = project.start(*words(engine, sleeper), env=env)
    until(lambda: bool(engine("ps", "--quiet").split()), "no container was started")
    time.sleep(0.5)  # its Python begins to watch
    running.kill()
    running.communicate()
    until(lambda: not engine("ps", "--quiet").split(), "the container goes on")
    engine("rm", "--all", "--force")


def test_a_step_that_takes_too_long_is_ended(
    project: Project, engine: Podman, sleeper: Path, env: dict[str, str]
) -> None:
    done = build(project, engine, sleeper, env, "executor.timeout_minutes=0.1")
    assert done.code == 1
    assert "step checkpoint: not done after 0.1 minutes" in done.err
    assert not engine.containers()


def test_a_tool_that_is_killed_is_told_apart(
    project: Project, engine: Podman, tmp_path: Path, env: dict[str, str]
) -> None:
    model = tiny.write_model(tmp_path / "killed", stand_in={"signal": 9})
    done = build(project, engine, model, env)
    assert done.code == 1
    assert "convert_checkpoint.py was killed" in done.err
    assert re.search(r"again:  \S*podman ", done.err), "and the command that runs it again"
    assert not engine.containers()


def test_a_container_that_is_out_of_its_memory_is_told_apart(
    project: Project, engine: Podman, tmp_path: Path, env: dict[str, str]
) -> None:
    hog = "b = b'x' * 400_000_000"
    try:
        engine(
            "run",
            "--rm",
            "--network=none",
            "--memory=150m",
            *podman.RUN,
            engine.image,
            "/usr/bin/python3",
            "-c",
            hog,
        )
    except RuntimeError:
        pass
    else:
        pytest.skip("containers here are held to no memory limit")
    model = tiny.write_model(tmp_path / "hog", stand_in={"hog": 400_000_000})
    done = build(project, engine, model, env, "executor.memory_gb=0.15")
    assert done.code == 1
    first = next(line for line in done.err.splitlines() if line.startswith("error:"))
    assert "took more than the" in first
    assert "container" in first
    assert "executor.memory_gb" in done.err


def test_an_image_that_is_not_there_says_so(
    project: Project, engine: Podman, tiny_llama: Path, env: dict[str, str]
) -> None:
    done = build(project, engine, tiny_llama, env, f"compiler.image=localhost/none@sha256:{'ab' * 32}")
    assert done.code == 1
    assert "podman could not start the container" in done.err
    assert "trtbuild doctor" in done.err


def test_bad_input_is_told_before_any_work(project: Project, tiny_llama: Path) -> None:
    base = ["plan", f"model.source={tiny_llama}", "target=rtx4070", "executor=container"]
    pinned = project.trtbuild(*base, "compiler=tensorrt_llm", "output=json")
    assert pinned.code == 0, pinned.err
    tag = project.trtbuild(*base, "compiler=tensorrt_llm", "compiler.image=nvcr.io/nvidia/release:1.2.1")
    assert tag.code == 2
    assert "release:1.2.1 says no digest" in tag.err
    assert "imagetools inspect" in tag.err
    other = project.trtbuild(*base, "compiler=tensorrt_rtx")
    assert other.code == 2
    assert "compiler=tensorrt_rtx runs in no container" in other.err


def test_an_engine_that_is_not_installed_is_named() -> None:
    with pytest.raises(InputError, match="nerdctl is not on PATH"):
        container.engine("nerdctl")
