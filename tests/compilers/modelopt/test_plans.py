"""compiler=modelopt on the command line, where ModelOpt is not installed: keys, advice, what is refused, servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.cli import Project

MODELOPT = ("compiler=modelopt", "target=cpu_x86_64_v3")


def plan(project: Project, *words: str) -> dict[str, Any]:
    done = project.trtbuild("plan", *MODELOPT, *words, "output=json")
    assert done.code == 0, done.err
    return done.json


@pytest.fixture
def model(tmp_path: Path) -> str:
    return f"model.source={tiny.write_model(tmp_path / 'model')}"


def key(project: Project, *words: str) -> str:
    return str(plan(project, *words)["steps"][-1]["key"])


def test_what_is_measured_depends_on_what_measures(project: Project, model: str, tmp_path: Path) -> None:
    """Threads, instructions, samples and text are in the key of FP8, and in none of int8's."""
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "something else"}\n')
    changes = (
        "target=cpu_x86_64_v4",
        "compiler.threads=2",
        "compiler.calib_size=9",
        "compiler.calib_max_length=9",
        "compiler.calib_batch_size=2",
        f"compiler.calib_dataset={text}",
    )
    found = {key(project, model, "quant=fp8", *words) for words in ((), *((each,) for each in changes))}
    assert len(found) == len(changes) + 1
    for quant in ("int8", "fp8_rowwise", "none"):
        assert key(project, model, f"quant={quant}", *changes) == key(project, model, f"quant={quant}"), quant


def test_a_text_is_known_by_its_content(project: Project, model: str, tmp_path: Path) -> None:
    one, other, folder = tmp_path / "one.txt", tmp_path / "other.txt", tmp_path / "folder"
    folder.mkdir()
    for path in (one, other, folder / "file.txt"):
        path.write_text("the same words")
    found = {key(project, model, "quant=fp8", f"compiler.calib_dataset={path}") for path in (one, other, folder)}
    assert len(found) == 1
    other.write_text("other words")
    assert key(project, model, "quant=fp8", f"compiler.calib_dataset={other}") not in found


def test_few_samples_are_told_of(project: Project, model: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("words")
    few = plan(project, model, "quant=int8_sq", f"compiler.calib_dataset={text}", "compiler.calib_size=32")
    assert few["notes"] == ["quant=int8_sq wants 512 samples, and compiler.calib_size=32 gives fewer"]
    assert plan(project, model, "quant=int8_sq", f"compiler.calib_dataset={text}")["notes"] == []
    assert "come with trtbuild" in plan(project, model, "quant=fp8")["notes"][0]
    assert plan(project, model, "quant=int8")["notes"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("quant=fp8", "parallel.tp=2"), "parallel.tp: a unified checkpoint is one for any number of GPUs"),
        (
            ("quant=int4_awq",),
            "quant.group_size: groups of 128 weights do not divide this model's hidden_size, 64",
        ),
        (("quant=fp8", "quant.group_size=64"), "quant.group_size=64: quant=fp8 has no groups"),
        (
            ("quant=int8", "quant.symmetric=false"),
            "quant.symmetric=false: ModelOpt's formats have no zero points",
        ),
        (("quant=fp8", "compiler.threads=0"), "compiler.threads=0: 0 is not above 0"),
        (
            ("quant=fp8", "compiler.calib_max_length=1"),
            "compiler.calib_max_length=1: a sample needs at least two tokens",
        ),
        (
            ("quant=fp8", "compiler.calib_dataset=/not/there"),
            "compiler.calib_dataset: /not/there is no folder and no file",
        ),
        (("quant=int4",), "quant=int4: compiler=modelopt quantizes to"),
    ],
)
def test_what_cannot_be_is_refused(project: Project, model: str, words: tuple[str, ...], said: str) -> None:
    done = project.trtbuild("plan", *MODELOPT, model, *words)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_the_hint_of_a_group_size_is_one_that_fits(project: Project, model: str) -> None:
    done = project.trtbuild("plan", *MODELOPT, model, "quant=int4_awq")
    assert "choose one that does: quant.group_size=32" in done.err
    assert plan(project, model, "quant=int4_awq", "quant.group_size=32")


@pytest.mark.parametrize(
    ("quant", "server", "hint"),
    [
        ("int8", "vllm", "no server here loads it"),
        ("fp8_rowwise", "sglang", "serve=vllm loads it"),
        ("int4_awq", "vllm", "serve=trtllm loads it"),
    ],
)
def test_a_server_that_does_not_load_it_is_refused_first(
    project: Project, model: str, quant: str, server: str, hint: str
) -> None:
    words = (*MODELOPT, model, f"quant={quant}", f"serve={server}", "out=made")
    done = project.trtbuild(*words, *(["quant.group_size=32"] if quant == "int4_awq" else []))
    assert done.code == 2
    assert f"serve={server}: of ModelOpt's checkpoints it loads" in done.err
    assert hint in done.err
    assert not (project.root / "made.serve").exists()
