"""One key for every x86-64 is right only if the bytes are: each step on an emulated AVX2 machine and on this one."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from trtstore import Index, folder_manifest

QEMU = shutil.which("qemu-x86_64")
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="compares x86-64 instruction sets"),
    pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 (Debian's qemu-user) is not installed"),
]

HASWELL = [str(QEMU), "-cpu", "Haswell"]  # AVX2 and FMA, no AVX-512
ENGINE = {"compiler.optimization": "all", "profile.max_seq_len": None}
QUANTIZED = {"quant.group_size": 32, "quant.embedding": True, "compiler.accuracy_level": 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {"quant.weights": "none"},
    "int8": {"quant.weights": "int8", "quant.symmetric": True, **QUANTIZED},
    "int4": {"quant.weights": "int4", "quant.symmetric": False, **QUANTIZED},
}


def work(emulator: list[str], target: str, out: Path, **request: Any) -> str:
    """Run a worker's function, under `emulator` if there is one; returns the digest of what it made."""
    path = out.with_suffix(".json")
    asked = {"step": "s", "model": None, "inputs": {}, "toolchain": {}, "memory_bytes": None}
    path.write_text(json.dumps(asked | request))
    # An emulated process cannot follow the environment's own launcher: the interpreter, and its packages.
    folders = [str(ROOT), str(ROOT / "store"), sysconfig.get_path("purelib")]
    code = f"import sys; sys.path[:0] = {folders}; from trtbuild.worker import serve; serve({target!r})"
    command = [*emulator, str(Path(sys.executable).resolve()), "-c", code, str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder_manifest(out, Index(out.with_suffix(".index"))).digest


@pytest.fixture(scope="module")
def network(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("network") / "out"
    options = {"network.frontend": "native", "network.operators": "fused", "model.dtype": "float32"}
    model = {path.name: str(path) for path in tiny_llama.iterdir()}
    here = work([], "trtbuild.networks.build:run", out, options=options, model=model)
    there = out.with_name("haswell")
    assert work(HASWELL, "trtbuild.networks.build:run", there, options=options, model=model) == here
    return out


@pytest.mark.parametrize("quant", OPTIONS)
def test_the_engine_is_the_same(network: Path, tmp_path: Path, quant: str) -> None:
    request = {"options": {**ENGINE, **OPTIONS[quant]}, "inputs": {"network": str(network)}}
    target = "trtbuild.compilers.onnxruntime.engine:run"
    here = work([], target, tmp_path / "here", **request)
    assert work(HASWELL, target, tmp_path / "haswell", **request) == here


def test_the_emulated_machine_lacks_what_this_one_may_have() -> None:
    """Otherwise the tests above would compare a machine with itself."""
    code = (
        f"import sys; sys.path.insert(0, {sysconfig.get_path('purelib')!r}); "
        "from numpy._core._multiarray_umath import __cpu_features__ as f; print(f['AVX2'], f['AVX512F'])"
    )
    command = [*HASWELL, str(Path(sys.executable).resolve()), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True", "False"], done.stderr
