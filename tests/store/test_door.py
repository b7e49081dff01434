"""`trtstore` is the whole interface: each name is there, says what it is, and loads no more than it needs."""

from __future__ import annotations

import ast
import doctest
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trtstore
from trtstore.format import trust
from trtstore.team import signing, trust_list


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


#: Classes whose methods only callers of another public name meet, or that are protocols: no example of their own.
WITHOUT = {"HeldLease": "in that of Leases", "Reader": "a protocol"}


def has_methods(kind: type) -> bool:
    own = [value for name, value in vars(kind).items() if not name.startswith("_")]
    return any(inspect.isfunction(value) or isinstance(value, classmethod) for value in own)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the examples work with: every public name, and a store with an artifact, a team store, and a signer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(trust_list.FOLDER, str(tmp_path / "config"))
    Path("result").mkdir()
    Path("result/engine.bin").write_bytes(b"engine")
    Path("team").mkdir()
    trust_list.save([trust.parse(f"{signing.new('ci', None)} name=ci")])
    store, key, url = trtstore.Store.open(Path("store")), "ab" * 32, Path("team").absolute().as_uri()
    labels = {"model": "llama"}
    record = store.publish(key, Path("result"), predicate_type="urn:example", predicate={}, labels=labels)
    team = trtstore.open_team(url, store, trtstore.TrustPolicy.require, [], print)
    public = {name: getattr(trtstore, name) for name in trtstore.__all__}
    signer = trtstore.open_signer("ci")
    return {
        **public,
        "Path": Path,
        "store": store,
        "key": key,
        "record": record,
        "url": url,
        "team": team,
        "signer": signer,
    }


@pytest.mark.parametrize("name", ["trtstore", *trtstore.__all__])
def test_the_example(name: str, names: dict[str, object]) -> None:
    """Each public function, and each class with methods, has one that works."""
    value = trtstore if name == "trtstore" else getattr(trtstore, name)
    if name == "trtstore":
        shutil.rmtree("store")
    wanted = name == "trtstore" or inspect.isfunction(value) or (inspect.isclass(value) and has_methods(value))
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(value) or "", names, name, None, 0)
    if not wanted or name in WITHOUT:
        return
    assert example.examples, f"{name} has no example"
    assert doctest.DocTestRunner().run(example).failed == 0


def test_what_is_not_used_is_not_loaded() -> None:
    code = "import sys, trtstore; trtstore.format_size; print([m for m in sys.modules if m.startswith('trtstore.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['trtstore.units']\n"
