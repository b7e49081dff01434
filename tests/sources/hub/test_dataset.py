"""Text to calibrate on from a dataset of the Hub: known by its content, checked, and asked for once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Done, Project
from tests.support.minihub import MiniHub

LINES = "".join(json.dumps({"text": f"a line of text, number {at} of many"}) + "\n" for at in range(200)).encode()


@pytest.fixture
def hub() -> Iterator[MiniHub]:
    with MiniHub() as server:
        server.add("datasets/our/prompts", {"README.md": b"# ours", "data/train.jsonl": LINES})
        server.add("datasets/our/many", {"a.jsonl": LINES, "b.txt": b"words", "c.csv": b"1,2"})
        server.add("datasets/our/none", {"c.csv": b"1,2"})
        yield server


def plan(project: Project, model: Path, hub: MiniHub, dataset: str, **env: str) -> Done:
    words = ("compiler=modelopt", "target=cpu_x86_64_v3", "quant=fp8", f"model.source={model}", "output=json")
    given = {"HF_ENDPOINT": hub.url, **env}
    return project.trtbuild("plan", *words, f"compiler.calib_dataset={dataset}", env=given)


def key(done: Done) -> str:
    assert done.code == 0, done.err
    return str(done.json["key"])


def test_it_is_known_by_its_content(project: Project, tiny_llama: Path, hub: MiniHub, tmp_path: Path) -> None:
    """By whatever name, of whatever commit, and as a file on this machine: the same bytes, the same key."""
    local = tmp_path / "elsewhere.jsonl"
    local.write_bytes(LINES)
    sha = hub.repositories["datasets/our/prompts"].branches["main"]
    named = [
        "hf://datasets/our/prompts",
        "hf://datasets/our/prompts/data/train.jsonl",
        "hf://datasets/our/prompts/data/train.jsonl@main",
        f"hf://datasets/our/prompts/data/train.jsonl@{sha}",
        str(local),
    ]
    found = {key(plan(project, tiny_llama, hub, each)) for each in named}
    assert len(found) == 1
    assert hub.sent(".jsonl") == len(LINES), "downloaded once, and then in the Hub's own cache"
    hub.add("datasets/our/prompts", {"data/train.jsonl": LINES + LINES})
    assert key(plan(project, tiny_llama, hub, named[0])) not in found
    assert key(plan(project, tiny_llama, hub, named[3])) in found
    local.unlink()


def test_of_a_known_commit_no_network_is_needed(project: Project, tiny_llama: Path, hub: MiniHub) -> None:
    sha = hub.repositories["datasets/our/prompts"].branches["main"]
    at = f"hf://datasets/our/prompts/data/train.jsonl@{sha}"
    first = key(plan(project, tiny_llama, hub, at))
    asked = len(hub.log)
    assert key(plan(project, tiny_llama, hub, at, HF_HUB_OFFLINE="1")) == first
    assert len(hub.log) == asked
    refused = plan(project, tiny_llama, hub, "hf://datasets/our/prompts", HF_HUB_OFFLINE="1")
    assert refused.code == 2
    assert f"compiler.calib_dataset=hf://datasets/our/prompts@{sha}" in refused.err


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("hf://datasets/our/many", "our/many has several files of text"),
        ("hf://datasets/our/none", "our/none has no file of text"),
        ("hf://datasets/our/many/c.csv", "our/many has no file of text c.csv"),
        ("hf://datasets/our/many/../a.jsonl", "is no file of a dataset on the Hub"),
        ("hf://our/prompts", "is no file of a dataset on the Hub"),
        ("hf://datasets/our/nothing", "there is no repository our/nothing"),
        ("hf://datasets/our/prompts@v9", "our/prompts has no revision v9"),
    ],
)
def test_what_cannot_be_had_is_one_error(
    project: Project, tiny_llama: Path, hub: MiniHub, named: str, said: str
) -> None:
    done = plan(project, tiny_llama, hub, named)
    assert done.code == 2
    assert done.err.count("error: ") == 1
    assert "compiler.calib_dataset" in done.err
    assert said in done.err
    assert "Traceback" not in done.err


def test_other_bytes_than_those_that_are_published_are_refused(
    project: Project, tiny_llama: Path, hub: MiniHub
) -> None:
    hub.repositories["datasets/our/prompts"].corrupt["data/train.jsonl"] = 1
    assert key(plan(project, tiny_llama, hub, "hf://datasets/our/prompts")), "once more, and then as it should be"
    hub.add("datasets/our/prompts", {"data/train.jsonl": LINES + b"{}\n"})
    hub.repositories["datasets/our/prompts"].corrupt["data/train.jsonl"] = 99
    done = plan(project, tiny_llama, hub, "hf://datasets/our/prompts")
    assert done.code == 2
    assert "was downloaded with other bytes" in done.err


def test_a_gated_one_wants_a_token(project: Project, tiny_llama: Path, hub: MiniHub) -> None:
    hub.repositories["datasets/our/prompts"].accepted = {"hf_good"}
    hub.tokens = {"hf_good"}
    done = plan(project, tiny_llama, hub, "hf://datasets/our/prompts")
    assert done.code == 2
    assert "is gated" in done.err
    assert "/datasets/our/prompts" in done.err
    good = plan(project, tiny_llama, hub, "hf://datasets/our/prompts", **{"HF_TOKEN": "hf_good"})
    assert key(good)
    assert "hf_good" not in good.out + good.err
