"""What a stranger installs: a wheel made through the sdist, whose core is light and works alone."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


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
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(out), str(clone)], check=True, capture_output=True
    )
    return next(out.glob("*.whl"))


def test_the_wheel_holds_configs_types_and_both_packages(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"trtbuild/conf/{path.relative_to(ROOT / 'conf').as_posix()}" in names
    for base, prefix in ((ROOT / "trtbuild", "trtbuild"), (ROOT / "store" / "trtstore", "trtstore")):
        for path in base.rglob("*.py"):
            assert f"{prefix}/{path.relative_to(base).as_posix()}" in names
    assert {"trtbuild/py.typed", "trtstore/py.typed", "trtbuild/conf/__init__.py"} <= names
    assert not [name for name in names if name.startswith(("tests", "bench", "store/"))]


def test_the_core_alone_plans_and_says_what_it_lacks(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel], check=True)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    installed = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert installed.isdisjoint({"torch", "numpy", "onnx", "onnxruntime", "tensorrt", "gguf", "safetensors"})
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TRTBUILD_STORE": str(tmp_path / "store")}
    trtbuild = home / "bin" / "trtbuild"
    plan = subprocess.run(
        [trtbuild, "plan", "model=smollm2", "quant=int8"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert plan.returncode == 0, plan.stderr
    assert "engine" in plan.stdout
    build = subprocess.run(
        [trtbuild, "model=smollm2", "quant=int8"], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert build.returncode == 2, build.stderr
    assert "pip install 'trtbuild[onnxruntime]'" in build.stderr
    assert list(tmp_path.glob("store/v1/records/**/*")) == []
