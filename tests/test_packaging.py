"""What a stranger installs: a wheel made through the sdist, whose core is light and works alone."""

from __future__ import annotations

import os
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


def test_the_core_alone_builds_and_speaks(wheel: Path, tmp_path: Path) -> None:
    """In a new folder with an empty HOME, toolchains included; the next run needs no installer and no index."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel], check=True)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    installed = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert installed.isdisjoint({"torch", "numpy", "onnx", "onnxruntime", "tensorrt", "gguf", "safetensors"})
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TRTBUILD_STORE": str(tmp_path / "store"), **kept}

    def trtbuild(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [home / "bin" / "trtbuild", *words]
        return subprocess.run(command, env={**env, **more}, cwd=tmp_path, capture_output=True, text=True)

    plan = trtbuild("plan", "model=smollm2", "quant=int8")
    assert plan.returncode == 0, plan.stderr
    assert "The toolchain onnxruntime of engine is missing: about " in plan.stdout
    words = ("run", "model=smollm2", "quant=int8", "prompt=Why is the sky blue?", "generate.max_tokens=8")
    first = trtbuild(*words)
    assert first.returncode == 0, first.stderr
    assert "toolchain network  installed by pip" in first.stderr
    assert "toolchain onnxruntime  installed by pip" in first.stderr
    again = trtbuild(*words, PIP_INDEX_URL="http://127.0.0.1:9/none", PATH="/nowhere")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip()
    assert "installing" not in again.stderr
