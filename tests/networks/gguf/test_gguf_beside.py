"""A GGUF whose own tokenizer is not understood speaks with the tokenizer.json beside it, if that is the model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.networks.tiny_models import config, save_gguf, weights
from trtbuild.errors import InputError
from trtbuild.formats import gguf as gguf_file
from trtbuild.networks.gguf import beside
from trtbuild.networks.tokenizer import convert
from trtbuild.networks.tokenizer import gguf as gguf_tokenizer
from trtbuild.networks.weights.checkpoint import Checkpoint

TOKENS = ["<unk>", "<s>", "</s>", "a", "b", "ab"]
METADATA = {"tokenizer.ggml.tokens": [*TOKENS, "[PAD6]"]}


def made(vocabulary: Any, *added: tuple[int, str]) -> dict[str, Any]:
    """A tokenizer.json of a model with `vocabulary`."""
    return {
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        "added_tokens": [{"id": number, "content": text} for number, text in added],
    }


def mapping(tokens: list[str]) -> dict[str, int]:
    return {text: number for number, text in enumerate(tokens)}


@pytest.mark.parametrize(
    "found",
    [
        made(mapping(TOKENS)),
        made(mapping(TOKENS), (1, "<s>"), (6, "[PAD6]")),
        made(mapping(TOKENS[:4])),
        made([[text, 0.0] for text in TOKENS]),
        {"model": None},
    ],
)
def test_a_tokenizer_with_the_same_ids_is_the_model_s(found: dict[str, Any]) -> None:
    beside.check(found, METADATA)
    beside.check(made(mapping(["x"])), {})  # a file without a list


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (made(mapping(["<unk>", "<s>", "</s>", "b", "a"])), ["'b' as token 3", "has 'a'"]),
        (made(mapping(TOKENS), (7, "<more>")), ["'<more>' with the id 7", "has 7 tokens"]),
        (made(mapping(TOKENS), (2, "<end>")), ["'<end>' as token 2", "'</s>'"]),
        (made([["<unk>", 0.0], ["other", 0.0]]), ["'other' as token 1"]),
        (made({"a": -1}), ["the id -1"]),
    ],
)
def test_another_model_s_is_refused_with_the_first_id(found: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        beside.check(found, METADATA)
    for word in words:
        assert word in caught.value.message


def test_the_step_writes_the_tokenizer_that_lies_beside(tmp_path: Path) -> None:
    settings = config(vocab_size=len(TOKENS))
    files = save_gguf(tmp_path / "model.gguf", settings, weights(settings), tokens=TOKENS)
    assert gguf_tokenizer.understood(gguf_file.read_file(files["model.gguf"], "model.gguf", "model.source").metadata)
    whole = files["model.gguf"].read_bytes()
    assert whole.count(b"gpt-2") == 1
    files["model.gguf"].write_bytes(whole.replace(b"gpt-2", b"gpt-X"))
    metadata = Checkpoint.open(files).metadata
    assert metadata is not None
    assert not gguf_tokenizer.understood(metadata)
    with pytest.raises(InputError, match="gpt-X"):
        convert.write(Checkpoint.open(files), tmp_path)

    for name, value in {"tokenizer.json": made(mapping(TOKENS)), "tokenizer_config.json": {}}.items():
        files[name] = tmp_path / name
        files[name].write_text(json.dumps(value))
    out = tmp_path / "out"
    out.mkdir()
    convert.write(Checkpoint.open(files), out)
    written = json.loads((out / "tokenizer.json").read_text())
    assert written["model"] == made(mapping(TOKENS))["model"]

    files["tokenizer.json"].write_text(json.dumps(made(mapping(TOKENS[::-1]))))
    with pytest.raises(InputError, match="as token 0"):
        Checkpoint.open(files)
