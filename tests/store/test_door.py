"""`trtstore` is the whole interface: each name is there, says what it is, and loads no more than it needs."""

from __future__ import annotations

import ast
import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import trtstore


def test_every_name_is_there_and_typed_alike() -> None:
    assert set(trtstore.__all__) == set(trtstore._MODULES) <= set(dir(trtstore))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = trtstore.nothing
    tree = ast.parse(Path(trtstore.__file__).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    names = {alias.name: node.module for node in imports for alias in node.names if alias.asname is None}
    assert names == {name: f"trtstore.{module}" for name, module in trtstore._MODULES.items()}
    for name, module in trtstore._MODULES.items():
        assert getattr(trtstore, name) is getattr(sys.modules[f"trtstore.{module}"], name)


@pytest.mark.parametrize("name", trtstore.__all__)
def test_it_says_what_it_is(name: str) -> None:
    found = getattr(trtstore, name)
    if inspect.isclass(found) or inspect.isfunction(found):
        assert inspect.getdoc(found), f"{name} has no docstring"


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "engine.bin").write_bytes(b"engine")
    names = {"Path": Path, "Store": trtstore.Store}
    example = doctest.DocTestParser().get_doctest(trtstore.__doc__ or "", names, "trtstore", None, 0)
    assert len(example.examples) == 5
    assert doctest.DocTestRunner().run(example).failed == 0


def test_what_is_not_used_is_not_loaded() -> None:
    code = "import sys, trtstore; trtstore.format_size; print([m for m in sys.modules if m.startswith('trtstore.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['trtstore.units']\n"
