"""What a stranger installs: a wheel made through the sdist, whose core is light and works alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from trtbuild.toolchains import lockfile_build

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    clone = tmp_path_factory.mktemp("clone")
    for name in tracked.stdout.splitlines():
        if (source := ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes(source.read_bytes())
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(clone)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_configs_types_and_both_packages(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "conf" / "toolchain").iterdir()]:
        assert f"trtbuild/conf/{path.relative_to(ROOT / 'conf').as_posix()}" in names
    for base, prefix in ((ROOT / "trtbuild", "trtbuild"), (ROOT / "store" / "trtstore", "trtstore")):
        for path in base.rglob("*.py"):
            name = f"{prefix}/{path.relative_to(base).as_posix()}"
            assert name.replace("trtbuild/config/plugin/", "hydra_plugins/trtbuild/") in names
    assert {"trtbuild/py.typed", "trtstore/py.typed", "trtbuild/conf/__init__.py"} <= names
    assert {"trtbuild/report/page.css", "trtbuild/report/page.js"} <= names
    assert not [name for name in names if name.startswith(("tests", "bench", "store/"))]


@dataclass(frozen=True)
class Core:
    """trtbuild as `pip install trtbuild` brings it, in a Python of its own, in a new folder with an empty HOME."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / "venv" / "bin" / "python"

    @property
    def store(self) -> Path:
        return self.root / "store"

    def __call__(self, *words: str | Path, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.root), "TRTBUILD_STORE": str(self.store)}
        # By pip where nothing else is said: it is what every machine has.
        env |= {name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "SSL_", "UV_"))}
        done = subprocess.run(
            [self.python.with_name("trtbuild"), *words],
            env=env | more,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=900,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, done.stderr
        return done


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Core:
    made = Core(tmp_path_factory.mktemp("core"))
    venv.create(made.root / "venv", with_pip=True)
    pip = [made.python, "-m", "pip"]
    subprocess.run([*pip, "install", "-q", "--disable-pip-version-check", wheel], check=True)
    listed = subprocess.run([*pip, "list", "--format=freeze"], capture_output=True, text=True, check=True)
    installed = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert installed.isdisjoint({"torch", "numpy", "onnx", "onnxruntime", "tensorrt", "gguf", "safetensors"})
    return made


NOWHERE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "0",
}


def test_the_core_alone_builds_and_speaks(core: Core, tiny_llama: Path, tmp_path: Path) -> None:
    """The tests of this module are one story: first without a network, then with one, then without one again.

    SmolLM2 is built so and answers in English in `make demo`.
    """
    model = (f"model.source={tiny_llama}", "quant=int8")
    plan = core("plan", *model)
    (missing,) = re.findall(
        "The toolchain onnxruntime of network and engine is missing: about ([0-9.]+) MB", plan.stdout
    )
    assert 70 < float(missing) < 90
    cold = core(*model, code=2, **NOWHERE)
    assert cold.stderr.count("error: ") == 1
    assert "trtbuild toolchain export onnxruntime -o FILE" in cold.stderr
    assert "trtbuild toolchain import FILE" in cold.stderr
    assert list(core.root.glob("store/v1/records/**/*")) == []
    lacking = core(*model, "executor=process", code=2)
    assert "pip install 'trtbuild[onnxruntime]'" in lacking.stderr

    run = core("run", *model, "prompt=Why is the sky blue?", "generate.max_tokens=24", "output=json")
    document = json.loads(run.stdout)
    assert [step["outcome"] for step in document["steps"]] == ["built", "built"]
    assert document["run"]["text"]
    print(run.stderr)
    assert len(re.findall(r"toolchain \S+  installed", run.stderr)) == 1

    witness = tmp_path / "witness"
    witness.mkdir()
    (witness / "sitecustomize.py").write_text(
        "import sys\nsys.addaudithook(lambda e, a: print('STARTED', *a[1], file=sys.stderr)"
        " if e == 'subprocess.Popen' else None)\n"
    )
    again = core("run", *model, "prompt=Hello", "generate.max_tokens=4", PYTHONPATH=str(witness), **NOWHERE)
    started = [line.split() for line in again.stderr.splitlines() if line.startswith("STARTED")]
    assert len(started) == 1, "the worker alone: neither pip nor uv"
    assert "trtbuild.compilers.onnxruntime.generate" in started[0]
    assert any("/v1/toolchains/" in word for word in started[0])
    assert core("toolchain", "verify").stdout.count("whole ") == 1
    assert "toolchain" in core("plan", *model, "output=json").stdout


@pytest.fixture(scope="module")
def ours(core: Core) -> Path:
    """A lock of another numpy than the one that ships."""
    pins = core.root / "ours.in"
    text = (ROOT / "conf" / "toolchain" / "onnxruntime.in").read_text()
    pins.write_text(re.sub("numpy==.*", "numpy==2.3.5", text))
    made = core.root / "ours.txt"
    made.write_text(lockfile_build.make(pins, None, upgrade=False).text)
    return made


def test_a_sweep_over_toolchains_that_contradict_each_other(core: Core, ours: Path, tiny_llama: Path) -> None:
    """Another numpy than the one that ships, each in its own environment; and both at once."""
    words = (f"model.source={tiny_llama}", "quant=int8")
    shipped = ROOT / "conf" / "toolchain" / "onnxruntime.txt"
    sweep = core("-m", *words, f"compiler.locks.onnxruntime={shipped},{ours}", "output=json")
    first, second = json.loads(sweep.stdout)["results"]
    assert (first["toolchain"]["numpy"], second["toolchain"]["numpy"]) == ("2.4.6", "2.3.5")
    assert first["key"] != second["key"]
    assert first["steps"][0]["key"] != second["steps"][0]["key"], "the network is made in it, too"
    explained = core("explain", *words, f"compiler.locks.onnxruntime={ours}", "quant.group_size=64").stdout
    assert "quant.group_size  32 → 64" in explained
    explained = json.loads(core("explain", *words, "quant.group_size=64", "output=json").stdout)
    assert [each["field"] for each in explained["nearest"]["differences"]] == ["quant.group_size"]
    shutil.rmtree(next(core.store.glob(f"v1/records/{second['key'][:2]}")))
    missed = core("explain", *words, f"compiler.locks.onnxruntime={ours}")
    # Whatever else the index has anew since the shipped lock was made is told beside it.
    assert re.search(r"^  toolchain\.numpy +2\.4\.6 → 2\.3\.5$", missed.stdout, re.MULTILINE)
    with ThreadPoolExecutor() as pool:
        built = list(
            pool.map(
                lambda lock: core(*words, "quant.group_size=16", f"compiler.locks.onnxruntime={lock}"),
                (shipped, ours),
            )
        )
    assert ["engine   built" in done.stderr for done in built] == [True, True]
    rebuilt = core("rebuild", json.loads(core("explain", *words, "output=json").stdout)["key"][:12])
    assert "the same bytes" in rebuilt.stdout


def test_an_engine_is_rebuilt_in_the_toolchain_of_its_own_record(core: Core, ours: Path, tiny_llama: Path) -> None:
    """Of a lock that does not ship, and that is not given again: whoever asks for it allows it."""
    words = (f"model.source={tiny_llama}", "quant=int8")
    key = json.loads(core(*words, f"compiler.locks.onnxruntime={ours}", "output=json").stdout)["key"]
    ours.unlink()
    core("toolchain", "rm", "--all")
    refused = core("rebuild", key[:12], code=2)
    allowed = re.findall(r"executor\.allow_lock=\[\w+\]", refused.stderr)
    # numpy, and whatever else the index has newer releases of today
    assert "packages that no shipped toolchain has: " in refused.stderr
    rebuilt = core("rebuild", key[:12], *allowed)
    assert "the same bytes" in rebuilt.stdout
    assert "toolchain ours  installed" in rebuilt.stderr
