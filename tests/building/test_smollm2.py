"""The demo model, for real: from the package index to an answer, at each precision."""

from __future__ import annotations

import os

import pytest

from tests.support.cli import Project

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("smollm2")]


@pytest.mark.parametrize("quant", ["none", "int8", "int4"])
def test_it_answers_in_english(smollm2: Project, quant: str) -> None:
    args = ["run", "model=smollm2", f"quant={quant}", "prompt=Why is the sky blue?", "generate.max_tokens=60"]
    done = smollm2.trtbuild(*args, timeout=600)
    assert done.code == 0, done.err
    answer = done.out.lower()
    assert "sky" in answer
    assert "blue" in answer
    assert any(word in answer for word in ("light", "scatter", "atmosphere", "sun")), done.out
    assert len(set(answer.split())) > 15  # words, not one word again and again


def test_sizes_shrink_and_the_network_is_shared(smollm2: Project) -> None:
    done = smollm2.trtbuild("-m", "model=smollm2", "quant=none,int8,int4", "output=json", timeout=600)
    assert done.code == 0, done.err
    none, int8, int4 = done.json["results"]
    assert none["bytes"] > 2.5 * int8["bytes"] > 3 * int4["bytes"]
    assert len({r["steps"][0]["key"] for r in (none, int8, int4)}) == 1


def test_the_second_time_is_a_hit(smollm2: Project) -> None:
    assert smollm2.trtbuild("model=smollm2", "quant=int8", timeout=600).code == 0
    document = smollm2.trtbuild("fetch", "model=smollm2", "quant=int8", "output=json").json
    assert document["outcome"] == "hit-local"
    assert document["model"]["identity"] in str(list_identities(smollm2))


def test_a_gguf_file_and_the_wheel_are_one_model(smollm2: Project) -> None:
    """The same bytes from a folder give the same key as from the package index."""
    from_wheel = smollm2.trtbuild("plan", "model=smollm2", "quant=int8", "output=json").json
    assert smollm2.trtbuild("model=smollm2", "quant=int8", timeout=600).code == 0
    blobs = smollm2.store / "v1" / "blobs" / "sha256"
    digest = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    renamed = smollm2.root / "renamed.gguf"
    os.link(blobs / digest[:2] / digest, renamed)
    from_file = smollm2.trtbuild("plan", f"model.source={renamed}", "quant=int8", "output=json").json
    assert from_file["key"] == from_wheel["key"]


def list_identities(project: Project) -> list[str]:
    document = project.trtbuild("plan", "model=smollm2", "quant=int8", "output=json").json
    return [step["fields"].get("model.identity", "") for step in document["steps"]]
