"""The shape of the code: imports point one way, start-up stays light, modules stay small."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from trtbuild.compilers import COMPILERS

ROOT = Path(__file__).parents[1]
CODE = sorted([*(ROOT / "trtbuild").rglob("*.py"), *(ROOT / "store" / "trtstore").rglob("*.py")])

#: Who may import whom, from the bottom up: a module may import those of its own line and of lines above it.
LAYERS = [
    {"trtbuild.errors", "trtbuild.stores", "trtbuild.unkeyed"},
    {"trtbuild.worker", "trtbuild.targets", "trtbuild.sources", "trtbuild.executors"},
    {"trtbuild.recipe", "trtbuild.schema"},
    {"trtbuild.key"},
    {"trtbuild.networks"},
    {"trtbuild.compilers"},
    {"trtbuild.plan", "trtbuild.compose"},
    {"trtbuild.resolve", "trtbuild.provenance"},
    {"trtbuild.history"},
    {"trtbuild.session"},
    {"trtbuild.survey", "trtbuild.hashing"},
    {"trtbuild.pipeline"},
    {"trtbuild.rebuild"},
    {"trtbuild.report"},
    {"trtbuild.cli"},
]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_name(path: Path) -> str:
    base = ROOT / "store" if "trtstore" in path.parts else ROOT
    return ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")


def layer_of(name: str) -> int | None:
    for height, layer in enumerate(LAYERS):
        if any(name == member or name.startswith(member + ".") for member in layer):
            return height
    return None


def test_the_store_knows_nothing_of_trtbuild() -> None:
    for path in CODE:
        if "trtstore" in path.parts:
            assert not [
                name for name in imports(path) if name.split(".")[0] in ("trtbuild", "hydra", "omegaconf")
            ], path


def test_imports_point_one_way() -> None:
    for path in CODE:
        name = module_name(path)
        mine = layer_of(name)
        if mine is None:
            assert name == "trtbuild" or name.startswith("trtstore"), f"{name} is in no layer"
            continue
        for imported in imports(path):
            other = layer_of(imported)
            assert other is None or other <= mine, f"{name} imports {imported}, which stands above it"


@pytest.mark.parametrize("path", CODE, ids=module_name)
def test_modules_stay_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 350, "split it"
    assert path.name == "__main__.py" or ast.get_docstring(ast.parse(text)), "a module opens with a sentence"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is long"
            inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not inner, f"{node.name} imports inside"


def test_no_broad_except_but_at_the_edges() -> None:
    edges = {"trtbuild.worker", "trtbuild.compose", "trtbuild.cli"}
    for path in CODE:
        if module_name(path) not in edges:
            assert "except Exception" not in path.read_text(), path


def test_nothing_heavy_at_start_up() -> None:
    heavy = [
        "torch",
        "onnxruntime",
        "onnx",
        "numpy",
        "tensorrt",
        "tensorrt_rtx",
        "tensorrt_rtx_bindings",
        "ml_dtypes",
        "tokenizers",
        "jinja2",
        "gguf",
        "safetensors",
        "huggingface_hub",
        "transformers",
        "pynvml",
    ]
    code = f"import sys, json, trtbuild.cli; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_store_starts_without_hydra() -> None:
    code = "import sys, trtstore; print([m for m in ('hydra', 'omegaconf', 'trtbuild') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


#: compiler -> the extras that together bring what its YAML pins
EXTRAS = {
    "onnxruntime": ("onnxruntime", "genai"),
    "tensorrt_rtx": ("tensorrt-rtx",),
    "tensorrt": ("tensorrt",),
}


@pytest.mark.parametrize("compiler", sorted(COMPILERS))
def test_the_extra_pins_what_the_yaml_pins(compiler: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    conf = yaml.safe_load((ROOT / "conf" / "compiler" / f"{compiler}.yaml").read_text())
    pinned = {**conf["packages"], COMPILERS[compiler].package: conf["version"]}
    assert COMPILERS[compiler].extra in EXTRAS[compiler]
    found = {}
    for extra in EXTRAS[compiler]:
        for requirement in extras[extra]:
            name, exact, version = requirement.partition(";")[0].strip().partition("==")
            if exact:  # what runs an engine, and is in no key, is not pinned
                found[name] = version
    assert found == pinned
