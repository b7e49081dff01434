"""Two machines, one key: `plan` says the same of the same bytes, whoever asks, where, when and with what Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import TRTBUILD

ROOT = Path(__file__).parents[1]
NOBODY = 65534
THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHERS = [version for version in ("3.11", "3.12", "3.13") if version != THIS]

VARIABLES = {
    "USER": "somebody",
    "LOGNAME": "somebody",
    "HOSTNAME": "elsewhere",
    "PWD": "/nowhere",
    "EDITOR": "ed",
    "XDG_CACHE_HOME": "/nowhere/cache",
    "XDG_CONFIG_HOME": "/nowhere/config",
    "XDG_STATE_HOME": "/nowhere/state",
    "HF_HOME": "/nowhere/hf",
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "HF_TOKEN": "hf_nobody",
    "PIP_INDEX_URL": "http://127.0.0.1:9",
    "CUDA_VISIBLE_DEVICES": "7",
    "OMP_NUM_THREADS": "3",
    "MKL_CBWR": "COMPATIBLE",
    "SOURCE_DATE_EPOCH": "1",
    "COLUMNS": "20",
    "NO_COLOR": "1",
    "PYTHONOPTIMIZE": "2",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "1",
    "http_proxy": "http://127.0.0.1:9",
}
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "variables": VARIABLES,
    "hash seed": {"PYTHONHASHSEED": "2"},
    "no locale": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "another locale": {"LANG": "tr_TR.ISO-8859-9", "LC_ALL": "tr_TR.ISO-8859-9", "LC_NUMERIC": "de_DE"},
    "east": {"TZ": "Pacific/Kiritimati"},
    "west": {"TZ": "Etc/GMT+12"},
}


@dataclass(frozen=True)
class Machine:
    """A folder with a home, a store and a copy of the model, and how a command is started there."""

    root: Path
    command: Sequence[str | Path] = (TRTBUILD,)
    environment: Mapping[str, str] = field(default_factory=dict)
    umask: int = -1
    user: int | None = None

    def plan(self, model: Path | str) -> dict[str, Any]:
        """What `trtbuild plan` says of `model`, but for where it looked and what is in the store already."""
        for name in ("home", "work"):
            (self.root / name).mkdir(exist_ok=True)
            if self.user is not None:
                os.chown(self.root / name, self.user, self.user)
        done = subprocess.run(
            [*self.command, "plan", f"model.source={model}", "quant=int4", "output=json"],
            cwd=self.root / "work",
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.root / "home"),
                "TRTBUILD_STORE": str(self.root / "home" / "store"),
                **self.environment,
            },
            umask=self.umask,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            **identity_of(self.user),
        )
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        for step in document["steps"]:
            for name in ("local", "also", "runs", "bytes", "seconds"):
                del step[name]
            assert step["fields"]
        del document["model"]["label"]  # the folder's name
        assert {each["title"] for each in document.pop("toolchains")} == {"onnxruntime"}  # here, or not
        return document


def identity_of(user: int | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> dict[str, Any]:
    """What this machine says."""
    return Machine(tmp_path_factory.mktemp("here")).plan(tiny_llama)


@pytest.fixture
def copy(tmp_path: Path, tiny_llama: Path) -> Path:
    """The same bytes at another place, of another time and mode."""
    folder = shutil.copytree(tiny_llama, tmp_path / "elsewhere" / "another name", copy_function=shutil.copyfile)
    for age, path in enumerate(sorted(folder.iterdir())):
        os.utime(path, (age, 1_000_000_000 - age))
        path.chmod(0o640)
    return folder


def test_a_copy_elsewhere_has_the_key_and_another_byte_another(
    tmp_path: Path, copy: Path, here: dict[str, Any]
) -> None:
    assert Machine(tmp_path).plan(copy) == here
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        (last,) = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    other = Machine(tmp_path).plan(copy)
    assert other["key"] != here["key"]
    changed = {name for name, value in fields(other).items() if fields(here)[name] != value}
    assert changed == {"network: model.identity", "engine: input.network"}


def fields(document: dict[str, Any]) -> dict[str, Any]:
    """Every field of every step, as "step: field"."""
    return {f"{step['name']}: {name}": value for step in document["steps"] for name, value in step["fields"].items()}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_whatever_the_environment(tmp_path: Path, copy: Path, here: dict[str, Any], name: str) -> None:
    assert Machine(tmp_path, environment=ENVIRONMENTS[name]).plan(copy) == here


def test_whatever_the_umask_and_the_working_directory(tmp_path: Path, copy: Path, here: dict[str, Any]) -> None:
    machine = Machine(tmp_path, umask=0o777 - 0o700)
    assert machine.plan(f"../{copy.relative_to(tmp_path)}") == here


def under(*command: str) -> list[str]:
    """`command` as a prefix for another, unless it cannot be run here: then the test is skipped, with the reason."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]}")
    tried = subprocess.run([*command, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"{command[0]} is not allowed here: {tried.stderr.strip()}")
    return list(command)


def renamed_host() -> list[str]:
    # As root, or with a namespace in which one is root.
    mapped = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    rename = 'echo another-host > /proc/sys/kernel/hostname && exec "$@"'
    prefix = under("unshare", *mapped, "--uts", "sh", "-c", rename, "sh")
    said = subprocess.run([*prefix, "uname", "-n"], capture_output=True, text=True, check=True)
    assert said.stdout == "another-host\n"
    return prefix


def one_core() -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        pytest.skip("this machine has one core anyway")
    return under("taskset", "--cpu-list", str(cores[-1]))


def test_whatever_the_host_is_called(tmp_path: Path, copy: Path, here: dict[str, Any]) -> None:
    assert Machine(tmp_path, command=[*renamed_host(), TRTBUILD]).plan(copy) == here


def test_on_one_core(tmp_path: Path, copy: Path, here: dict[str, Any]) -> None:
    assert Machine(tmp_path, command=[*one_core(), TRTBUILD]).plan(copy) == here


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder into which another user may look: pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="trtbuild-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def command_for(user: int) -> list[str | Path]:
    """The command line by a Python that `user` may run: an environment's own often lies in a home that is closed."""
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    packages = sysconfig.get_path("purelib")
    start = f"import site, sys; site.addsitedir({packages!r}); from trtbuild.cli.main import main"
    system = shutil.which(f"python{THIS}", path="/usr/local/bin:/usr/bin:/bin")
    said = ""
    for python in [sys.executable, *([system] if system else [])]:
        try:
            tried = subprocess.run(
                [python, "-c", f"{start}; import os; print(os.getuid())"],
                cwd="/",
                capture_output=True,
                text=True,
                **identity_of(user),
            )
        except OSError as failure:
            said = str(failure)
            continue
        if tried.returncode == 0:
            assert tried.stdout == f"{user}\n"
            return [python, "-c", f"{start}; sys.exit(main())"]
        said = tried.stderr.strip().splitlines()[-1]
    pytest.skip(f"user {user} may not run a Python {THIS} with our packages: {said}")


def test_whoever_asks(open_folder: Path, tiny_llama: Path, here: dict[str, Any]) -> None:
    command = command_for(NOBODY)
    model = shutil.copytree(tiny_llama, open_folder / "model", copy_function=shutil.copyfile)
    machine = Machine(open_folder, command=command, environment={"USER": "nobody"}, user=NOBODY)
    assert machine.plan(model) == here


def interpreter(version: str) -> str:
    """A Python of that version on this machine, on PATH or kept by uv or pyenv; else the test is skipped."""
    found: list[Path | str | None] = [shutil.which(f"python{version}")]
    if uv := shutil.which("uv"):
        found.append(said_by(uv, "python", "find", "--no-python-downloads", version))
    if pyenv := shutil.which("pyenv"):
        found += sorted((Path(said_by(pyenv, "root")) / "versions").glob(f"{version}.*/bin/python"))
    for python in found:
        # A shim of pyenv is there for versions that it does not let run.
        if python and said_by(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])") == version:
            return str(python)
    pytest.skip(f"there is no Python {version} here")


def said_by(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is installed: building in the tree would take along what earlier builds left there."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("trtbuild", "store", "conf"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("version", OTHERS)
def test_whatever_the_python(version: str, sources: Path, tmp_path: Path, copy: Path, here: dict[str, Any]) -> None:
    """With the core alone, as on a laptop: no compiler is installed there."""
    venv = tmp_path / "venv"
    subprocess.run([interpreter(version), "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    uv = shutil.which("uv")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-compile"]
    installer = [uv, "pip", "install", "--python", python] if uv else pip
    installed = subprocess.run([*installer, "-q", sources], capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"the core cannot be installed for Python {version}: {installed.stderr[-300:]}")
    assert Machine(tmp_path, command=[venv / "bin" / "trtbuild"]).plan(copy) == here


def test_all_at_once(open_folder: Path, tiny_llama: Path, here: dict[str, Any]) -> None:
    """Another user on another host with one core, another zone, another mask."""
    # The host is renamed by root, so the user is changed by what comes behind it.
    nobody = under("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    command = [*renamed_host(), *nobody, *one_core(), *command_for(NOBODY)]
    model = shutil.copytree(tiny_llama, open_folder / "m", copy_function=shutil.copyfile)
    for name in ("home", "work"):
        (open_folder / name).mkdir()
        os.chown(open_folder / name, NOBODY, NOBODY)
    environment = VARIABLES | ENVIRONMENTS["no locale"] | ENVIRONMENTS["east"]
    assert Machine(open_folder, command, environment, umask=0o077).plan(model) == here
