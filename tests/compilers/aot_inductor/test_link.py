"""An engine and weights: joined where they fit, refused where they do not, and never opened where they cannot run."""

from __future__ import annotations

import io
import json
import platform
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trtbuild.compilers.aot_inductor import link, manifest, package, package_loader
from trtbuild.compilers.aot_inductor.structure import TensorSpec
from trtbuild.errors import BuildError
from trtbuild.networks.weights import safetensors_writer
from trtbuild.worker import Reporter, StepRequest

ROOT = Path(__file__).parents[3]
QEMU = shutil.which("qemu-x86_64")
WANTED = {
    "a.weight": TensorSpec("int8", (4, 8)),
    "a.scales": TensorSpec("float32", (4,)),
    "b": TensorSpec("float32", (2,)),
}
SIZES = {"int8": 1, "float32": 4}


def write_weights(folder: Path, wanted: dict[str, TensorSpec]) -> Path:
    folder.mkdir(exist_ok=True)
    listed = {name: (each.dtype, each.shape) for name, each in wanted.items()}
    sizes = (SIZES[each.dtype] * each.shape[0] * (each.shape[1:] or (1,))[0] for each in wanted.values())
    safetensors_writer.write(folder / manifest.WEIGHTS, listed, map(bytes, sizes), lambda *_: None)
    return folder


def write_engine(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    (folder / manifest.PACKAGE).write_bytes(b"no package at all")
    about = {
        "package": manifest.PACKAGE,
        "weights": manifest.WEIGHTS,
        "torch": "2.13.0",
        "cuda": None,
        "device": "cpu",
        "level": "x86_64_v3",
        "compute_capability": None,
        "constants": {
            name: {"dtype": each.dtype, "shape": list(each.shape), "packed": False} for name, each in WANTED.items()
        },
    }
    manifest.write({**about, **changes}, folder)
    return folder


def joined(tmp_path: Path, weights: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    inputs = {"engine": write_engine(tmp_path / "engine"), "weights": weights}
    link.run(StepRequest("link", {}, {}, inputs, {}, None), out, Reporter(io.StringIO()))
    return out


def test_both_are_in_one_folder_and_take_no_room(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "weights", WANTED)
    (weights / "tokenizer.json").write_text("{}")
    out = joined(tmp_path, weights)
    assert {path.name for path in out.iterdir()} == {
        manifest.PACKAGE,
        manifest.FILE,
        manifest.WEIGHTS,
        "tokenizer.json",
    }
    assert (out / manifest.WEIGHTS).samefile(weights / manifest.WEIGHTS)


def without(name: str) -> dict[str, TensorSpec]:
    return {each: tensor for each, tensor in WANTED.items() if each != name}


WRONG: dict[str, dict[str, TensorSpec]] = {
    "lacks b": without("b"),
    "has c, which the engine does not want": {**WANTED, "c": TensorSpec("float32", (2,))},
    r"has b as float32 \[3\], and the engine wants float32 \[2\]": {
        **WANTED,
        "b": TensorSpec("float32", (3,)),
    },
    r"has b as int8 \[2\], and the engine wants float32 \[2\]": {**WANTED, "b": TensorSpec("int8", (2,))},
}


@pytest.mark.parametrize("why", WRONG)
def test_a_tensor_that_is_missing_extra_or_misshapen_is_one_error(tmp_path: Path, why: str) -> None:
    with pytest.raises(BuildError, match=why):
        joined(tmp_path, write_weights(tmp_path / "weights", WRONG[why]))


def twice(data: bytes) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].rstrip(b" ")
    entry = header.rpartition(b'"b":')[2].removesuffix(b"}")
    text = header[:-1] + b',"b":' + entry + b"}"
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[:-1],
    "twice in one object": twice,
    "does not begin with the length of a header": lambda data: b"\xff" * 8 + data[8:],
    "cannot be read": lambda data: data[:8] + b"{" * (len(data) - 8),
}


@pytest.mark.parametrize("why", SPOILT)
def test_a_file_that_is_not_whole_is_one_error(tmp_path: Path, why: str) -> None:
    weights = write_weights(tmp_path / "weights", WANTED)
    path = weights / manifest.WEIGHTS
    path.write_bytes(SPOILT[why](path.read_bytes()))
    with pytest.raises(BuildError, match=why):
        joined(tmp_path, weights)


def run_worker(folder: Path, step: str, emulator: list[str]) -> list[dict[str, Any]]:
    """What the worker of the check, or of `trtbuild run`, answers for the engine in `folder`."""
    request = folder.with_suffix(".request.json")
    options = {"prompt": "hello", "max_tokens": 4, "raw": False, "temperature": 0, "top_p": 1, "seed": 0}
    asked = {"step": step, "options": options, "model": None, "inputs": {"engine": str(folder)}}
    request.write_text(json.dumps(asked | {"toolchain": {}, "memory_bytes": None}))
    paths = [str(ROOT), str(ROOT / "store"), sysconfig.get_path("purelib")]
    target = f"trtbuild.compilers.aot_inductor.check_and_generate:{step}"
    code = f"import sys; sys.path[:0] = {paths}; from trtbuild.worker import serve; serve({target!r})"
    command = [*emulator, str(Path(sys.executable).resolve()), "-c", code, str(request), str(folder) + ".out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates an x86-64 CPU")
@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 (Debian's qemu-user) is not installed")
def test_an_engine_for_avx512_is_not_opened_on_a_cpu_without_it(tmp_path: Path) -> None:
    """For real: by the CPU's own word, on an emulated Haswell. The package is no package: opening it would fail."""
    folder = write_engine(tmp_path / "engine", level="x86_64_v4")
    write_weights(folder, WANTED)
    haswell = [str(QEMU), "-cpu", "Haswell"]
    (checked,) = run_worker(folder, "check", haswell)
    assert checked["facts"]["executed"] is False
    assert "it is for x86_64_v4, and the CPU here lacks" in checked["facts"]["why"]
    (refused,) = run_worker(folder, "generate", haswell)
    assert (refused["event"], refused["kind"]) == ("error", "input")
    assert "it is for x86_64_v4" in refused["message"]
    assert "target=auto" in refused["hint"]


def test_an_engine_for_a_gpu_is_not_opened_where_there_is_none(tmp_path: Path) -> None:
    changes = {"device": "cuda", "level": None, "compute_capability": "9.0", "cuda": "13.0"}
    folder = write_engine(tmp_path / "engine", **changes)
    write_weights(folder, WANTED)
    (checked,) = run_worker(folder, "check", [])
    assert checked["facts"]["executed"] is False
    assert "it is for compute capability 9.0" in checked["facts"]["why"]


def test_this_cpu_is_known_as_numpy_knows_it() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    assert (package_loader.level_refusal("x86_64_v3") is None) == ("avx2" in flags and "fma" in flags)
    assert (package_loader.level_refusal("x86_64_v4") is None) == ("avx512vl" in flags)


def test_a_package_is_kept_without_what_tells_where_it_was_made(tmp_path: Path) -> None:
    source, kept = tmp_path / "made.pt2", [tmp_path / "one.pt2", tmp_path / "two.pt2"]
    names = ["m/data/aotinductor/model/engine.wrapper.cpp", "m/data/aotinductor/model/engine.wrapper.so"]
    for number, target in enumerate(kept):
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("m/.data/serialization_id", str(number))
            archive.writestr(names[0], f'// /tmp/{number}\nconstants_info_[0].original_fqn = "a.weight";')
            archive.writestr(names[1], b"code")
        assert package.wanted(source) == ["a.weight"]
        package.settle(source, target)
    assert kept[0].read_bytes() == kept[1].read_bytes()
    with zipfile.ZipFile(kept[0]) as archive:
        assert sorted(archive.namelist()) == names
        assert archive.read(names[1]) == b"code"
        assert b"/tmp" not in archive.read(names[0])
