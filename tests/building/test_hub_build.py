"""From the Hub to an engine: the real client against a Hub of our own, through the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Project
from tests.support.minihub import MiniHub


@pytest.fixture
def hub(tiny_llama: Path) -> Iterator[MiniHub]:
    with MiniHub() as server:
        server.add("tiny/llama", {path.name: path.read_bytes() for path in tiny_llama.iterdir()})
        yield server


def test_a_plan_downloads_no_weight_and_has_the_key_of_the_folder(
    project: Project, tiny_llama: Path, hub: MiniHub
) -> None:
    env = {"HF_ENDPOINT": hub.url}
    from_hub = project.trtbuild("plan", "model.source=hf://tiny/llama", "quant=int8", "output=json", env=env).json
    from_folder = project.trtbuild("plan", f"model.source={tiny_llama}", "quant=int8", "output=json").json
    assert from_hub["key"] == from_folder["key"]
    assert from_hub["model"]["label"] == "llama"
    # The header of the weights, and no more.
    asked = [(entry.range, entry.sent) for entry in hub.log if "safetensors" in entry.path and entry.sent]
    assert asked == [("bytes=0-65535", 1 << 16)]


def test_build_from_the_hub_then_hit_from_the_folder(project: Project, tiny_llama: Path, hub: MiniHub) -> None:
    env = {"HF_ENDPOINT": hub.url}
    built = project.trtbuild("model.source=hf://tiny/llama@main", "quant=int4", "output=json", env=env)
    assert built.code == 0, built.err
    assert built.json["outcome"] == "built"
    assert built.json["model"]["origin"].startswith("hf://tiny/llama@")
    hit = project.trtbuild(f"model.source={tiny_llama}", "quant=int4", "output=json").json
    assert hit["outcome"] == "hit-local"
    assert hit["key"] == built.json["key"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf://tiny/lama", ["tiny/lama"]),
        ("hf://tiny/llama@v9", ["v9"]),
        ("hf://tiny/gated", ["licence", "HF_TOKEN"]),
    ],
)
def test_what_the_hub_refuses_is_one_error(
    project: Project, hub: MiniHub, tiny_llama: Path, source: str, words: list[str]
) -> None:
    hub.add("tiny/gated", {path.name: path.read_bytes() for path in tiny_llama.iterdir()})
    hub.repositories["tiny/gated"].accepted = set()
    done = project.trtbuild(f"model.source={source}", env={"HF_ENDPOINT": hub.url})
    assert done.code == 2
    assert done.err.count("error: ") == 1
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


def test_a_corrupted_download_is_refused(project: Project, hub: MiniHub) -> None:
    hub.repositories["tiny/llama"].corrupt["model.safetensors"] = 99
    done = project.trtbuild("model.source=hf://tiny/llama", env={"HF_ENDPOINT": hub.url})
    assert done.code == 2, done.err
    assert "sha256" in done.err
    assert project.records() == []
    hub.repositories["tiny/llama"].corrupt.clear()
    assert project.trtbuild("model.source=hf://tiny/llama", env={"HF_ENDPOINT": hub.url}).code == 0


def test_what_cannot_be_built_is_refused_before_a_weight_is_downloaded(
    project: Project, hub: MiniHub, tiny_llama: Path
) -> None:
    files = {path.name: path.read_bytes() for path in tiny_llama.iterdir()}
    config = json.loads(files["config.json"])
    for name, change, word in (
        ("mamba", {"architectures": ["MambaForCausalLM"]}, "it lacks this architecture"),
        ("olmo", {"architectures": ["OlmoForCausalLM"]}, "RMSNorm where Olmo has LayerNorm"),
        ("phi", {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"}, "lacks what this build needs"),
        ("rope", {"rope_scaling": {"rope_type": "spiral", "factor": 2.0}}, "spiral"),
    ):
        hub.add(f"tiny/{name}", {**files, "config.json": json.dumps(config | change).encode()})
        # In the Python at hand, which lacks torch: executor=auto would install it for what genai's builder takes.
        words = (f"model.source=hf://tiny/{name}", *(["executor=process"] if name == "phi" else []))
        done = project.trtbuild(*words, env={"HF_ENDPOINT": hub.url})
        assert done.code == 2
        assert word in done.err
    assert not [entry for entry in hub.log if "safetensors" in entry.path and entry.sent]
