"""A stand-in for TensorRT-LLM 1.2, which cannot be installed where there is no GPU: a Python that pretends to have it.

`tool.py` is each of NVIDIA's tools, by the name that it is started with: it parses just the flags of the contract,
checks values, fails as the real ones do, and writes folders of the documented shape. Nothing in it is of trtbuild.
"""

from __future__ import annotations

import argparse
import json
import runpy
import shutil
import venv
from pathlib import Path

from trtbuild.compilers.tensorrt_llm import contract

HERE = Path(__file__).parent
PACKAGES = {
    "tensorrt_llm": "1.2.1",
    "tensorrt": "10.14.1.48",
    "torch": "2.9.1",
    "transformers": "4.57.1",
    "nvidia_modelopt": "0.37.0",
}
PROGRAMS = ("trtllm-build", "trtllm-refit", "nvidia-smi")


class StandIn:
    """One installation: a virtual environment with NVIDIA's tools beside its Python, and the scripts of their image."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    @property
    def examples(self) -> Path:
        return self.root / "examples"

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def words(self) -> list[str]:
        """The options that choose it."""
        return [
            f"executor.python={self.python}",
            "executor.env=[TENSORRT_LLM_EXAMPLES]",
            "executor.name=process",
            "compiler.checkpoint_by=scripts",
        ]

    @property
    def env(self) -> dict[str, str]:
        return {"TENSORRT_LLM_EXAMPLES": str(self.examples)}

    def sees(self, packages: Path) -> None:
        """Its Python has what lies in that folder of packages, too."""
        site = next((self.root / "lib").glob("python*")) / "site-packages"
        (site / "more.pth").write_text(f"{packages}\n")

    def gpu(self, capability: str) -> None:
        """The compute capability of the GPU that it sees."""
        self._settings(capability=capability)

    def release(self, tensorrt_llm: str, tensorrt_serialization: int = 239) -> None:
        """What its tools say that they are."""
        self._settings(version=tensorrt_llm, serialization=tensorrt_serialization)

    def fails(self, tool: str, log: Path | None, status: int = 1) -> None:
        """From now on `tool` prints a recorded log and ends with `status` (minus a signal); None: works again."""
        self._settings(failure=None if log is None else {"tool": tool, "log": log.read_text(), "status": status})

    def drops(self, name: str | None) -> None:
        """From now on tools leave out the file of that name, and say nothing."""
        self._settings(dropped=name)

    def _settings(self, **changes: object) -> None:
        path = self.root / "stand_in" / "settings.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def install(root: Path, *, python: str | None = None) -> StandIn:
    """Make one in the new folder `root`. With `python` (a path, in an image) there is no environment beside it."""
    if python is None:
        venv.create(root, symlinks=True, with_pip=False)
        python = str(root / "bin" / "python")
        site = next((root / "lib").glob("python*")) / "site-packages"
    else:
        site = root / "site-packages"
        (root / "bin").mkdir(parents=True)
    for name, version in PACKAGES.items():
        info = site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    inner = root / "stand_in"
    inner.mkdir()
    shutil.copyfile(HERE / "tool.py", inner / "tool.py")
    shutil.copyfile(contract.FILE, inner / "contract.json")
    (inner / "settings.json").write_text(json.dumps({"capability": "8.9", "version": "1.2.1", "serialization": 239}))
    scripts = {f"bin/{name}": name for name in PROGRAMS}
    scripts["examples/quantization/quantize.py"] = "quantize.py"
    for path in contract.contract()["convert_checkpoint_flags"]:
        scripts[path] = path
    for path, name in scripts.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        up = "/".join([".."] * path.count("/"))
        file.write_text(
            f"#!{python}\nimport pathlib, runpy\n"
            f"tool = pathlib.Path(__file__).resolve().parent / '{up}' / 'stand_in' / 'tool.py'\n"
            f"runpy.run_path(str(tool), init_globals={{'STARTED_AS': {name!r}}}, run_name='__main__')\n"
        )
        file.chmod(0o755)
    return StandIn(root)


def parser(tool: str) -> argparse.ArgumentParser:
    """The parser of `tool`, a program's name or a converter's path in the contract."""
    flags = {
        "trtllm-build": "trtllm_build_flags",
        "trtllm-refit": "trtllm_refit_flags",
        "quantize.py": "quantize_py_flags",
    }
    found = runpy.run_path(str(HERE / "tool.py"), init_globals={"CONTRACT": contract.contract(), "SETTINGS": {}})
    told = contract.contract()
    made = found["parser_of"](tool, told[flags[tool]] if tool in flags else told["convert_checkpoint_flags"][tool])
    assert isinstance(made, argparse.ArgumentParser)
    return made
