"""Why a key misses, field by field, and what a build will take: from records of real builds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.cli import Project
from trtbuild.toolchains import builtin
from trtstore import Store


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Project:
    """A store with one engine, int8, and its network. Tests read it."""
    project = Project(tmp_path_factory.mktemp("explained"))
    assert project.trtbuild(f"model.source={tiny_llama}", "quant=int8").code == 0
    return project


def differences(document: Any) -> dict[str, tuple[Any, Any]]:
    return {each["field"]: (each.get("old"), each.get("new")) for each in document["nearest"]["differences"]}


def explain(project: Project, *words: str) -> Any:
    done = project.trtbuild("explain", *words, "output=json")
    assert (done.code, done.err) == (0, "")
    return done.json


def test_one_option_differs(built: Project, tiny_llama: Path) -> None:
    words = (f"model.source={tiny_llama}", "quant=int8", "quant.group_size=64", "executor.threads=1")
    document = explain(built, *words)
    assert document["outcome"] == "miss"
    assert differences(document) == {"quant.group_size": (32, 64)}
    assert document["nearest"]["labels"]["quant"] == "int8"
    done = built.trtbuild("explain", *words)
    assert done.code == 0
    assert "  quant.group_size  32 → 64\n" in done.out
    assert "1 difference from the nearest engine" in done.out
    assert "  executor.threads  how and where a step is run; no byte depends on it\n" in done.out


def test_a_tool_differs_in_the_steps_that_read_it(built: Project, tiny_llama: Path) -> None:
    words = (
        f"model.source={tiny_llama}",
        "quant=int8",
        "compiler.packages.onnx=1.22.0",
        "compiler.packages.gguf=0.18.0",
    )
    document = explain(built, *words)
    assert differences(document) == {
        "toolchain.onnx": ("1.23.1", "1.22.0"),
        "toolchain.gguf": ("0.19.0", "0.18.0"),
    }
    steps = {each["field"]: set(each["steps"]) for each in document["nearest"]["differences"]}
    assert steps == {"toolchain.onnx": {"network", "engine"}, "toolchain.gguf": {"network"}}
    assert "  toolchain.gguf  0.19.0 → 0.18.0  (network)\n" in built.trtbuild("explain", *words).out


def test_other_weights_are_named_by_file(built: Project, tiny_llama: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_llama, tmp_path / "other")
    weights = other / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    document = explain(built, f"model.source={other}", "quant=int8")
    assert set(differences(document)) == {"model.identity"}
    out = built.trtbuild("explain", f"model.source={other}", "quant=int8").out
    assert "(model.safetensors differs; " in out
    assert "files are equal)" in out


def test_fields_that_one_side_does_not_read(built: Project, tiny_llama: Path) -> None:
    found = explain(built, f"model.source={tiny_llama}", "quant=none")["nearest"]["differences"]
    group = next(each for each in found if each["field"] == "quant.group_size")
    assert group == {"field": "quant.group_size", "steps": ["engine"], "old": 32}
    out = built.trtbuild("explain", f"model.source={tiny_llama}", "quant=none").out
    assert "32 → (not read)" in out


def test_a_hit_says_what_is_the_same(built: Project, tiny_llama: Path) -> None:
    document = explain(built, f"model.source={tiny_llama}", "quant=int8")
    assert (document["outcome"], document["nearest"]) == ("hit", None)
    assert document["fields"]["network"]["model.identity"]
    done = built.trtbuild("explain", f"model.source={tiny_llama}", "quant=int8")
    assert done.out.startswith(f"engine {document['key'][:12]} is in {built.store}, built 20")
    assert re.search(r"^  quant\.weights +int8$", done.out, re.MULTILINE)
    lock = builtin.load("onnxruntime")
    versions = ", ".join(f"{name} {version}" for name, version in lock.versions.items())
    assert re.search(rf"^  toolchain\.lock +{lock.digest[:12]} +\({re.escape(versions)}\)$", done.out, re.MULTILINE)


def test_nothing_to_compare_with(project: Project, tiny_llama: Path) -> None:
    assert explain(project, f"model.source={tiny_llama}")["nearest"] is None
    assert (
        "is in no store, and neither is any other engine"
        in project.trtbuild("explain", f"model.source={tiny_llama}").out
    )
    assert not (project.store / "v1" / "records").exists()


def test_the_nearest_may_be_in_another_store(built: Project, project: Project, tiny_llama: Path) -> None:
    words = (
        f"model.source={tiny_llama}",
        "quant=int8",
        "quant.embedding=false",
        f"store.also=[{built.store}]",
    )
    for _ in range(2):  # the second time from what the own index remembers of the other
        document = explain(project, *words)
        assert document["nearest"]["store"] == str(built.store)
        assert differences(document) == {"quant.embedding": (True, False)}
    assert not (project.store / "v1" / "records").exists()


def record(project: Project, step: str) -> tuple[str, Any]:
    """The key and the predicate of the one record of a step."""
    store = Store.open(project.store)
    for key in store.keys():  # noqa: SIM118  # a store is no mapping
        found = store.lookup(key)
        if found is not None and found.labels["step"] == step:
            return key, found
    raise AssertionError(step)


def pretend(project: Project, key: str, like: Any, seconds: float, **fields: Any) -> None:
    """Publish a record like another one, but for fields of its key and for what it took."""
    store = Store.open(project.store)
    predicate = json.loads(json.dumps(like.predicate))
    for name, value in fields.items():
        predicate["buildDefinition"]["externalParameters"][name.replace("__", ".")] = value
    predicate["trtbuild_stats"]["seconds"] = seconds
    with store.scratch() as work:
        (work / "out").mkdir()
        (work / "out" / "file").write_text(key)
        store.publish(
            key * 64,
            work / "out",
            predicate_type=like.predicate_type,
            predicate=predicate,
            labels=like.labels,
        )


def test_the_nearest_has_the_fewest_differences_and_then_took_longest(project: Project, tiny_llama: Path) -> None:
    words = (f"model.source={tiny_llama}", "quant=int8")
    assert project.trtbuild(*words).code == 0
    _, like = record(project, "engine")
    pretend(project, "a", like, 5.0, quant__group_size=64)
    pretend(project, "b", like, 9.0, quant__embedding=False)
    pretend(project, "c", like, 99.0, quant__embedding=False, quant__group_size=16)
    shutil.rmtree(project.store / "v1" / "records" / like.key[:2])
    document = explain(project, *words)
    assert document["nearest"]["key"] == "b" * 64
    assert document["nearest"]["seconds"] == 9.0


def test_a_record_that_says_nothing_is_passed_over(project: Project, tiny_llama: Path) -> None:
    store = Store.open(project.store)
    with store.scratch() as work:
        (work / "out").mkdir()
        (work / "out" / "file").write_text("x")
        labels = {"step": "engine"}
        store.publish("d" * 64, work / "out", predicate_type="other", predicate={"a": [1]}, labels=labels)
        predicate = {"buildDefinition": {"externalParameters": 7, "resolvedDependencies": [7, {"name": "input.x"}]}}
        (work / "out" / "file").write_text("y")
        store.publish("e" * 64, work / "out", predicate_type="other", predicate=predicate, labels=labels)
    assert explain(project, f"model.source={tiny_llama}")["nearest"] is None


def test_plan_estimates_from_the_nearest_build(built: Project, tiny_llama: Path) -> None:
    document = built.trtbuild("plan", f"model.source={tiny_llama}", "quant=int4", "output=json").json
    network, engine = document["steps"]
    assert (network["runs"], network["estimate"]) == (False, None)
    key, like = record(built, "engine")
    assert engine["estimate"]["basis"] == key
    assert engine["estimate"]["seconds"] == like.predicate["trtbuild_stats"]["seconds"]
    assert engine["estimate"]["bytes"] == like.bytes
    assert engine["estimate"]["differs"] == ["quant.symmetric", "quant.weights"]
    assert document["estimate"] == {
        "steps": 1,
        "seconds": engine["estimate"]["seconds"],
        "bytes": like.bytes,
        "unknown": [],
    }
    out = built.trtbuild("plan", f"model.source={tiny_llama}", "quant=int4").out
    assert "1 step to run: about " in out
    assert f"  engine: as {key[:12]} (llama, int8, cpu) took; quant.symmetric and quant.weights differ\n" in out


def test_an_estimate_grows_with_the_checkpoint(built: Project, tmp_path: Path) -> None:
    larger = tiny.write_model(tmp_path / "larger", num_hidden_layers=6)
    document = built.trtbuild("plan", f"model.source={larger}", "quant=int8", "output=json").json
    assert [step["runs"] for step in document["steps"]] == [True, True]
    key, like = record(built, "engine")
    before = like.predicate["trtbuild_stats"]["model_bytes"]
    scale = document["model"]["bytes"] / before
    assert scale > 1
    engine = document["steps"][1]["estimate"]
    assert engine["basis"] == key
    assert engine["scale"] == pytest.approx(scale)
    assert engine["bytes"] == round(like.bytes * scale)
    assert document["estimate"]["steps"] == 2
    assert (
        f"times {scale:.3g} for the checkpoint's size"
        in built.trtbuild("plan", f"model.source={larger}", "quant=int8").out
    )


def test_plan_says_when_it_has_no_basis(project: Project, tiny_llama: Path) -> None:
    document = project.trtbuild("plan", f"model.source={tiny_llama}", "output=json").json
    assert document["estimate"] == {"steps": 2, "seconds": 0, "bytes": 0, "unknown": ["network", "engine"]}
    out = project.trtbuild("plan", f"model.source={tiny_llama}").out
    assert "2 steps to run.\nNo time estimate: nothing similar has been built yet.\n" in out
    assert not (project.store / "v1" / "records").exists()


def test_a_plan_of_a_hit_runs_nothing(built: Project, tiny_llama: Path) -> None:
    out = built.trtbuild("plan", f"model.source={tiny_llama}", "quant=int8").out
    assert out.endswith("Nothing will run: this is a hit.\n")


def test_explain_is_a_sweep_too(built: Project, tiny_llama: Path) -> None:
    done = built.trtbuild("explain", "-m", f"model.source={tiny_llama}", "quant=int8,int4", "output=json")
    assert [each["outcome"] for each in done.json["results"]] == ["hit", "miss"]
