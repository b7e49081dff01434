"""Nobody asks a team store without saying what the answer must be."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import trtbuild
from tests.team.support import Machine, Place, machine, make, writer
from trtbuild.artifacts.chain import StoreChain
from trtbuild.artifacts.team import TeamStore
from trtbuild.config import choices, schema
from trtstore import Store
from trtstore.format.expected import Expected

KEY = "5" * 64
TOY = {"step": "source", "model": "toy"}
LLAMA = {"step": "source", "model": "hf://org/llama@1"}


@dataclass
class Notes:
    """Remembers what the user is told."""

    told: list[str] = field(default_factory=list)

    def note(self, words: str) -> None:
        self.told.append(words)

    def progress(self, what: str, done: int, total: int, unit: str) -> None:
        pass


@pytest.fixture
def intern(tmp_path: Path, shared_folder: Place) -> tuple[Machine, str]:
    """A key that is trusted for the model `toy` alone signed a record of KEY; and the line that says so."""
    signer = writer("intern")
    line = f"{signer.public} name=intern model=toy"
    found = machine(tmp_path / "intern", shared_folder, line)
    make(found.store, tmp_path / "files", KEY, labels=TOY)
    found.team().push(found.store, KEY, signer)
    return found, line


def lookup(store: Store, url: str, line: str) -> tuple[StoreChain, Notes]:
    conf = schema.StoreConf(team=url, trusted=[line], trust=choices.Trust.require)
    notes = Notes()
    return StoreChain(conf, store, TeamStore(conf, store, notes.note), notes), notes


def test_a_narrow_key_does_not_speak_for_another_s_source(
    intern: tuple[Machine, str], tmp_path: Path, shared_folder: Place
) -> None:
    there, line = intern
    found, notes = lookup(Store.open(tmp_path / "mine"), shared_folder.url, line)
    assert found.use(Expected(KEY, LLAMA, None)) is None
    assert "intern signed it, and is not trusted for model=hf://org/llama@1" in notes.told[0]
    assert there.store.lookup(KEY) is not None


def test_who_does_not_know_whose_a_key_is_does_not_ask_the_team(
    intern: tuple[Machine, str], tmp_path: Path, shared_folder: Place
) -> None:
    found, notes = lookup(Store.open(tmp_path / "mine"), shared_folder.url, intern[1])
    assert found.use(Expected(KEY, None, None)) is None
    assert found.find(Expected(KEY, None, None)).record is None
    assert notes.told == []


def test_other_files_are_refused_whoever_signed_them(
    intern: tuple[Machine, str], tmp_path: Path, shared_folder: Place
) -> None:
    line = intern[1].replace(" model=toy", "")
    found, notes = lookup(Store.open(tmp_path / "mine"), shared_folder.url, line)
    assert found.use(Expected(KEY, LLAMA, f"sha256:{'0' * 64}")) is None
    assert "lists other files than those that its key names" in notes.told[0]
    assert not (tmp_path / "mine" / "v1" / "blobs").exists(), "nothing travelled"
    assert found.find(Expected(KEY, LLAMA, f"sha256:{'0' * 64}")).record is None
    assert found.use(Expected(KEY, LLAMA, None)) is not None


def test_whoever_pushes_believes_no_record_of_a_narrower_key(
    intern: tuple[Machine, str], tmp_path: Path, shared_folder: Place
) -> None:
    """Else "the team has one already" would leave a record there that no reader takes."""
    signer = writer("ci")
    ci = machine(tmp_path / "ci", shared_folder, intern[1], f"{signer.public} name=ci")
    make(ci.store, tmp_path / "ci-files", KEY, {"other": b"bytes"}, labels=LLAMA)
    assert ci.team().push(ci.store, KEY, signer).new
    reader, _ = lookup(Store.open(tmp_path / "mine"), shared_folder.url, f"{signer.public} name=ci")
    assert reader.use(Expected(KEY, LLAMA, None)) is not None


def test_one_module_alone_asks_for_artifacts_of_the_team() -> None:
    """`chain` states what it expects; no other module has a way around it."""
    asking = set()
    for path in Path(trtbuild.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name) and node.id == "Layered":
                asking.add(path.stem)
            if isinstance(node, ast.Attribute) and (
                node.attr == "envelope" or ast.unparse(node).endswith(("team.lookup", "team.judged"))
            ):
                asking.add(path.stem)
    assert asking == {"chain", "attached_locks"}, "attached_locks reads a record of the local store"
