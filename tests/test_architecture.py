"""The shape of the code: start-up stays light, modules stay small. `make lint` holds who may import whom."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.facts import test_key
from trtbuild.planning.plan import make_plan
from trtbuild.toolchains import builtin

ROOT = Path(__file__).parents[1]
CODE = sorted([*(ROOT / "trtbuild").rglob("*.py"), *(ROOT / "store" / "trtstore").rglob("*.py")])


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


def test_modules_stay_small_and_say_what_they_are() -> None:
    faults = []
    for path in CODE:
        text = path.read_text()
        tree = ast.parse(text)
        if len(text.splitlines()) > 350:
            faults.append(f"{path} has more than 350 lines")
        if path.name != "__main__.py" and not ast.get_docstring(tree):
            faults.append(f"{path} does not open with a sentence")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                if (node.end_lineno or 0) - node.lineno >= 60:
                    faults.append(f"{path}: {node.name} has 60 lines or more")
                if any(isinstance(inner, ast.Import | ast.ImportFrom) for inner in ast.walk(node)):
                    faults.append(f"{path}: {node.name} imports inside")
    assert not faults, "\n".join(faults)


def test_no_broad_except_but_at_the_edges() -> None:
    # the last: the tokenizers library raises Exception itself
    edges = {
        "trtbuild.worker",
        "trtbuild.config.compose",
        "trtbuild.cli.main",
        "trtbuild.networks.tokenizer.tokens",
    }
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
        "obstore",
        "securesystemslib",
        "cryptography",
        "trtstore.upkeep",  # a hit lists no records
    ]
    code = f"import sys, json, trtbuild.cli.main; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_store_starts_without_hydra() -> None:
    others = ("hydra", "omegaconf", "trtbuild", "obstore", "securesystemslib", "cryptography")
    code = f"import sys, trtstore.cli.main; print([m for m in {others} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


#: The extra that brings what a toolchain's lock chooses, for who wants one environment; with those that it adds to.
EXTRAS = {
    "network": ["onnxruntime"],
    "onnxruntime": ["onnxruntime"],
    "genai": ["onnxruntime", "genai"],
    "aot_inductor": ["aot-inductor"],
    "modelopt": ["modelopt"],
    "modelopt_trtllm": [],  # its transformers wants an older huggingface_hub than trtbuild does: managed alone
    "tensorrt_rtx": ["tensorrt-rtx"],
}


def test_the_extras_pin_what_the_locks_choose() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(builtin.names())
    chosen: set[str] = set()
    for toolchain, names in EXTRAS.items():
        if not names:
            continue
        requirements = [r.partition(";")[0].strip() for name in names for r in extras[name]]
        pins = dict(r.split("==") for r in requirements if "==" in r)
        lock = builtin.load(toolchain)
        assert lock.title == toolchain
        assert lock.versions == {name: pins[name] for name in lock.chosen}, toolchain
        chosen |= set(lock.chosen)
    pinned = {r.partition("==")[0] for names in EXTRAS.values() for name in names for r in extras[name] if "==" in r}
    assert chosen == pinned


def test_a_lock_chooses_what_its_pins_say() -> None:
    for name in builtin.names():
        lines = (builtin.FOLDER / f"{name}.in").read_text().splitlines()
        pins = dict(line.partition(";")[0].strip().split("==") for line in lines if "==" in line and line[0] != "#")
        assert builtin.load(name).versions == dict(sorted(pins.items())), name


def test_steps_run_in_what_their_toolchain_chooses() -> None:
    """The versions that a key holds where no lock has them are of the packages that the lock chooses."""
    for frontend, network in (("native", "onnxruntime"), ("genai", "genai")):
        for recipe in (test_key.RECIPE, test_key.replaced(tools=test_key.LOOSE)):
            steps = make_plan(dataclasses.replace(recipe, frontend=frontend)).steps
            for step, toolchain in zip(steps, (network, "onnxruntime"), strict=True):
                if step.step.lock is None:
                    assert set(step.toolchain) <= set(builtin.load(toolchain).chosen)
                else:
                    assert step.step.lock.title == toolchain


#: What runs in which toolchains: the module that `python -m` runs, and the one that it serves.
WORKERS = {
    ("trtbuild.networks.__main__", "trtbuild.networks.build"): ("network", "onnxruntime", "genai"),
    ("trtbuild.compilers.onnxruntime.__main__", "trtbuild.compilers.onnxruntime.engine"): ("onnxruntime",),
    ("trtbuild.compilers.onnxruntime.check", "trtbuild.compilers.onnxruntime.runtime"): ("onnxruntime",),
    ("trtbuild.compilers.onnxruntime.generate", "trtbuild.compilers.onnxruntime.runtime"): ("onnxruntime",),
    ("trtbuild.compilers.tensorrt.__main__", "trtbuild.compilers.tensorrt.engine"): ("tensorrt_rtx",),
    ("trtbuild.compilers.tensorrt.check", "trtbuild.compilers.tensorrt.check_and_generate"): ("tensorrt_rtx",),
    ("trtbuild.compilers.tensorrt.generate", "trtbuild.compilers.tensorrt.check_and_generate"): ("tensorrt_rtx",),
    ("trtbuild.compilers.tensorrt.builder", "trtbuild.compilers.tensorrt.builder"): ("tensorrt_rtx",),
    ("trtbuild.compilers.tensorrt.inference", "trtbuild.compilers.tensorrt.inference"): ("tensorrt_rtx",),
    ("trtbuild.networks.unpack",) * 2: ("network",),
    ("trtbuild.networks.chat.apart",) * 2: ("network",),
    ("trtbuild.networks.chat.apart_genai",) * 2: ("genai",),
    ("trtbuild.compilers.aot_inductor.__main__", "trtbuild.compilers.aot_inductor.engine"): ("aot_inductor",),
    ("trtbuild.compilers.aot_inductor.weights_worker", "trtbuild.compilers.aot_inductor.weights"): ("network",),
    ("trtbuild.compilers.aot_inductor.link",) * 2: (),
    ("trtbuild.compilers.aot_inductor.check", "trtbuild.compilers.aot_inductor.check_and_generate"): ("aot_inductor",),
    ("trtbuild.compilers.aot_inductor.generate", "trtbuild.compilers.aot_inductor.check_and_generate"): (
        "aot_inductor",
    ),
    ("trtbuild.compilers.aot_inductor.export",) * 2: ("aot_inductor",),
    ("trtbuild.compilers.aot_inductor.inference",) * 2: ("aot_inductor",),
    ("trtbuild.compilers.modelopt.checkpoint",) * 2: ("modelopt",),
    ("trtbuild.compilers.modelopt.modelopt_run",) * 2: ("modelopt",),
    ("trtbuild.compilers.modelopt.check",) * 2: ("modelopt",),
    ("trtbuild.compilers.modelopt.generate",) * 2: ("modelopt",),
    ("trtbuild.compilers.tensorrt_llm.modelopt_checkpoint",) * 2: ("modelopt_trtllm",),
    ("trtbuild.compilers.tensorrt_llm.modelopt_run",) * 2: ("modelopt_trtllm",),
    # In NVIDIA's image, or a Python that has TensorRT-LLM: what they start is there, and they import nothing of it.
    **{
        (f"trtbuild.compilers.tensorrt_llm.{name}",) * 2: ()
        for name in ("scripts_checkpoint", "engine", "check", "generate")
    },
}
#: What a worker starts or imports by name.
STARTED_OTHERWISE = {
    ("trtbuild.networks.chat.apart",) * 2,
    ("trtbuild.networks.chat.apart_genai",) * 2,
    ("trtbuild.compilers.aot_inductor.export",) * 2,
    ("trtbuild.compilers.aot_inductor.inference",) * 2,
    ("trtbuild.compilers.modelopt.modelopt_run",) * 2,
    ("trtbuild.compilers.tensorrt_llm.modelopt_run",) * 2,
    ("trtbuild.compilers.tensorrt.builder",) * 2,
    ("trtbuild.compilers.tensorrt.inference",) * 2,
}
FILES = {module_name(path): path for path in CODE}
FILES |= {f"{module_name(path)}.__main__": path for path in CODE if path.name == "__main__.py"}


def test_every_worker_is_looked_at() -> None:
    found = {}
    for path in CODE:
        if served := re.search(r'^ *serve\("([\w.]+):', path.read_text(), re.MULTILINE):
            name = module_name(path) + ("" if path.name != "__main__.py" else ".__main__")
            found[name.replace(".__main__.__main__", ".__main__")] = served[1]
    assert set(found.items()) == set(WORKERS) - STARTED_OTHERWISE


@pytest.mark.parametrize(("modules", "toolchains"), WORKERS.items(), ids=[started for started, _ in WORKERS])
def test_a_worker_imports_its_toolchain_and_nothing_else(modules: tuple[str, ...], toolchains: tuple[str, ...]) -> None:
    """Whatever it loads: the standard library, light modules of ours, and packages of each of its toolchains."""
    held = [{name.replace("-", "_") for name in builtin.load(name).packages} for name in toolchains]
    allowed = set.intersection(*held) if held else set()
    todo, seen = set(modules), set()
    while todo:
        name = todo.pop()
        seen.add(name)
        todo |= {name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)} - seen
        for each in imports(FILES[name]):
            top = each.split(".")[0]
            if top == "trtbuild":
                todo |= {each if each in FILES else each.rpartition(".")[0]} - seen
            elif top not in sys.stdlib_module_names:
                assert {"modelopt": "nvidia_modelopt"}.get(top, top) in allowed, (
                    f"{name} imports {each}, which {' and '.join(toolchains)} do not hold"
                )
    assert len(seen) >= 5
    assert not seen & {
        "trtbuild.facts.recipe",
        "trtbuild.config.schema",
        "trtbuild.targets",
        "trtbuild.building.runner",
    }


#: Contract -> a module, and an import that breaks it there.
WALLS = {
    "the rooms of trtbuild stand one above the other": ("trtbuild/facts/recipe.py", "import trtbuild.cli.outcome"),
    "the rooms of networks stand one above the other": (
        "trtbuild/networks/config/rope.py",
        "import trtbuild.networks.chat.files",
    ),
    "the rooms of trtstore stand one above the other": ("store/trtstore/units.py", "import trtstore.team.team"),
    "modules of one room import each other in one direction": (
        "store/trtstore/remote/objects.py",
        "import trtstore.remote.remote",
    ),
    "the store knows nothing of trtbuild, nor of Hydra": ("store/trtstore/table.py", "import trtbuild.errors"),
    "whoever uses the store comes in by its door": ("trtbuild/artifacts/chain.py", "import trtstore.disk.layout"),
    "facts, config and networks know nothing of the store": ("trtbuild/facts/key_exclusions.py", "import trtstore"),
}


def test_an_import_across_a_wall_fails_lint(tmp_path: Path) -> None:
    """Each contract is broken by one import, in a copy of the code."""
    for folder in ("trtbuild", "store"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, line in WALLS.values():
        file = tmp_path / path
        head, marker, rest = file.read_text().partition("from __future__ import annotations\n")
        file.write_text(f"{head}{marker}{line}\n{rest}")
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    path = {**os.environ, "PYTHONPATH": f"{tmp_path / 'store'}:{tmp_path}"}
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True)
    broken = re.findall(r"^(.*) BROKEN$", done.stdout, re.MULTILINE)
    assert done.returncode == 1, done.stderr
    assert sorted(broken) == sorted(WALLS)
