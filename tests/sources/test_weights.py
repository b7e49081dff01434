"""What lies in a folder or on the Hub, told before anything is hashed: headers, tokenizers, and what is no model."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from tests.sources.conftest import Client
from tests.sources.hub.test_hub import assert_refused
from tests.sources.samples import (
    PlainDigester,
    checkpoint,
    gguf,
    ignore,
    safetensors,
    sharded,
    string,
    vocabulary,
    write,
)
from tests.support.minihub import MiniHub
from trtbuild.errors import InputError
from trtbuild.networks.tokenizer import gguf as gguf_tokenizer
from trtbuild.sources import Headers, Source, identity, open_source

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4096\n"
BESIDE = {
    "tokenizer.json": b'{"model": {}}',
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ x }}",
    "generation_config.json": b"{}",
    "config.json": b"{}",
}


def opened(path: Path, digester: PlainDigester | None = None) -> Source:
    return open_source(
        str(path),
        revision=None,
        digester=digester or PlainDigester(),
        understood=gguf_tokenizer.understood,
    )


def names(path: Path) -> list[str]:
    return [file.path for file in opened(path).files()]


def refused(path: Path, *words: str) -> None:
    digester = PlainDigester()
    with pytest.raises(InputError) as caught:
        opened(path, digester).files()
    assert digester.hashed == []
    said = f"{caught.value.message}\n{caught.value.hint}"
    assert caught.value.hint
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"


def model(pre: str | None, kind: str = "gpt2", tokens: int = 3) -> bytes:
    """A GGUF that names its tokenizer's kind and pre-tokenizer."""
    pairs = [vocabulary(tokens), string("tokenizer.ggml.model") + struct.pack("<I", 8) + string(kind)]
    if pre is not None:
        pairs.append(string("tokenizer.ggml.pre") + struct.pack("<I", 8) + string(pre))
    return gguf(*pairs)


# Words that are true


ADAPTER = {
    "adapter_config.json": b'{"base_model_name_or_path": "org/base"}',
    "adapter_model.safetensors": b"x",
}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (ADAPTER, ["an adapter", "for org/base", "merge it into its base first", "merge_and_unload"]),
        ({"adapter_config.json": b"[]"}, ["an adapter", "adapter_config.json"]),
        (ADAPTER | checkpoint(), ["an adapter", "beside a model", "take the adapter's files away"]),
        (checkpoint(**{"model.safetensors": POINTER}), ["model.safetensors is a pointer of Git LFS", "git lfs pull"]),
        (checkpoint(**{"tokenizer.json": POINTER}), ["tokenizer.json is a pointer of Git LFS"]),
        (checkpoint(**{"config.json": POINTER}), ["config.json is a pointer"]),
        (sharded(2) | {"model.safetensors.index.json": POINTER}, ["index.json is a pointer", "git lfs pull"]),
        ({"m.gguf": POINTER}, ["m.gguf is a pointer of Git LFS"]),
        ({"m.gguf": POINTER, "tokenizer.json": b"{}"}, ["m.gguf is a pointer of Git LFS"]),
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, ["pytorch_model.bin alone", "save_pretrained(OUT)"]),
        ({"consolidated.00.pth": b"x", "params.json": b"{}"}, ["Meta's own layout", "convert_llama_weights_to_hf.py"]),
        ({"consolidated.safetensors": b"x", "params.json": b"{}"}, ["Mistral's own layout", "Hugging Face"]),
        ({"model_index.json": b"{}", "unet/model.safetensors": b"x"}, ["Diffusers"]),
        ({"config.json": b"{}", "onnx/model.onnx": b"x"}, ["ONNX", "onnx/model.onnx", "exported from"]),
        ({"config.json": b"{}", "weights.npz": b"x"}, ["MLX"]),
        ({"0_Transformer/model.safetensors": b"x", "modules.json": b"[]"}, ["0_Transformer", "name that folder"]),
        ({"snapshots/0a/model.safetensors.index.json": b"x"}, ["snapshots/0a"]),
        ({".cache/huggingface/download/a.incomplete": b""}, ["broken off", "run the download again"]),
        ({"config.json": b"{}"}, ["no weights"]),
        ({}, ["no config.json and no weights"]),
        (checkpoint(**{"templates/chat_template.jinja": b"x"}), ["chat template at templates/chat_template.jinja"]),
        (checkpoint(**{"chat_template.jinja2": b"x"}), ["chat_template.jinja2", "move it to chat_template.jinja"]),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_told_what_it_is(files: dict[str, bytes], words: list[str], tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    refused(write(tmp_path / "m", files), str(tmp_path / "m"), *words)


def test_a_download_that_broke_off_is_told_so_where_a_shard_is_missing(tmp_path: Path) -> None:
    files = sharded(2)
    del files["model-00002-of-00002.safetensors"]
    folder = write(tmp_path / "m", files | {".cache/huggingface/download/b.incomplete": b""})
    refused(folder, "names model-00002-of-00002.safetensors", "broken off")


def test_a_name_of_another_cannot_move_the_cursor(tmp_path: Path) -> None:
    base = json.dumps({"base_model_name_or_path": "\x1b[2Jorg"}).encode()
    folder = write(tmp_path / "m", {"adapter_config.json": base})
    with pytest.raises(InputError) as caught:
        opened(folder).files()
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    "more",
    [
        {"chat_template.jinja": b"x", "old/chat_template.jinja": b"y"},
        {"tokenizer_config.json": b'{"chat_template": "x"}', "old/chat_template.jinja": b"y"},
        {"additional_chat_templates/rag.jinja": b"y"},
        {"adapter_config.json": b"{}"},  # of a model that was merged, without the adapter
        {".git/chat_template.jinja": b"x", "1_Pooling/config.json": b"{}", "onnx/model.onnx": b"x"},
    ],
)  # fmt: skip
def test_what_changes_no_engine_is_no_error(more: dict[str, bytes], tmp_path: Path) -> None:
    assert "model.safetensors" in names(write(tmp_path / "m", checkpoint(**more)))


def test_named_templates_belong_to_the_model(tmp_path: Path, hub: MiniHub) -> None:
    files = checkpoint(**{
        "chat_template.jinja": b"x",
        "additional_chat_templates/tool_use.jinja": b"y",
        "additional_chat_templates/notes.txt": b"z",
    })  # fmt: skip
    folder = write(tmp_path / "m", files)
    assert names(folder)[:2] == ["additional_chat_templates/tool_use.jinja", "chat_template.jinja"]
    hub.add("org/name", files)
    assert Client(tmp_path, hub.url).look("hf://org/name")["identity"] == identity(opened(folder).files())


# A tokenizer beside a GGUF


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (model("gpt-2"), False),
        (model(None, "llama"), False),
        (model(None), True),
        (model("no-such-splits"), True),
        (model(None, "t5"), True),
        (gguf(), True),
    ],
)
def test_a_tokenizer_beside_a_gguf_counts_where_its_own_is_not_understood(
    data: bytes, read: bool, tmp_path: Path
) -> None:
    alone = write(tmp_path / "alone", {"Model.gguf": data})
    beside = write(tmp_path / "beside", {"Model.gguf": data, **BESIDE})
    wanted = ["chat_template.jinja", "model.gguf", "tokenizer.json", "tokenizer_config.json"]
    for path in (beside, beside / "Model.gguf"):
        assert names(path) == (wanted if read else ["model.gguf"])
        assert (opened(path).config(), opened(path).gguf_architecture()) == (None, "llama")
    same = identity(opened(alone).files()) == identity(opened(beside).files())
    assert same is not read
    fetched = opened(beside).fetch(tmp_path, ignore)
    assert fetched["model.gguf"] == beside / "Model.gguf"
    (beside / "tokenizer.json").unlink()
    assert names(beside) == ["model.gguf"]  # the rest says nothing without it


def test_beside_a_gguf_on_the_hub_is_in_its_folder(hub: MiniHub, client: Client) -> None:
    files = {"q4/m.gguf": model(None), **{f"q4/{name}": data for name, data in BESIDE.items()}}
    hub.add("org/name", files | {"tokenizer.json": b"another", "n.gguf": model("gpt-2")})
    found = client.look("hf://org/name/q4/m.gguf")
    wanted = ["chat_template.jinja", "model.gguf", "tokenizer.json", "tokenizer_config.json"]
    assert [file["path"] for file in found["files"]] == wanted
    folder = write(client.home / "copy", {"m.gguf": model(None), **BESIDE})
    assert found["identity"] == identity(opened(folder).files())
    assert [file["path"] for file in client.look("hf://org/name/n.gguf")["files"]] == ["model.gguf"]


# Headers


def test_headers_are_read_of_a_file_of_shards_and_of_a_gguf(tmp_path: Path) -> None:
    def told(found: Headers | None) -> object:
        assert found is not None
        return {f: {n: (e.kind, e.shape) for n, e in es.items()} for f, es in found.files.items()}, found.index

    one = {"a": ("U8", (4096,)), "b": ("U8", (4096,))}
    assert told(opened(write(tmp_path / "one", checkpoint())).headers()) == ({"model.safetensors": one}, None)
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    files, index = (
        {shards[0]: {"t0": ("U8", (4096,))}, shards[1]: {"t1": ("U8", (4096,))}},
        dict(zip(("t0", "t1"), shards, strict=True)),
    )
    assert told(opened(write(tmp_path / "two", sharded(2))).headers()) == (files, index)
    tensor = string("blk.0.attn_q.weight") + struct.pack("<IQQIQ", 2, 256, 32, 12, 0)
    odd = string("odd") + struct.pack("<IQIQ", 1, 5, 99, 0)
    start = b"GGUF" + struct.pack("<IQQ", 3, 2, 1) + string("general.architecture")
    data = start + struct.pack("<I", 8) + string("llama") + tensor + odd + bytes(8192)
    entries = {"blk.0.attn_q.weight": ("Q4_K", (32, 256)), "odd": ("type 99", (5,))}
    assert told(opened(write(tmp_path / "g", {"x.gguf": data})).headers()) == ({"model.gguf": entries}, None)


def test_headers_on_the_hub_cost_one_ranged_request_a_shard_and_are_remembered(hub: MiniHub, client: Client) -> None:
    files = sharded(3) | {"model-00003-of-00003.safetensors": safetensors("t2", size=300_000)}
    commit = hub.add("org/name", files)
    first = client.look("hf://org/name", "--headers")
    kinds = {file: list(entries) for file, entries in first["headers"][0].items()}
    assert kinds == {f"model-0000{n}-of-00003.safetensors": [f"t{n - 1}"] for n in (1, 2, 3)}
    sent = hub.sent(".safetensors")
    assert 0 < sent < 100_000
    assert client.look(f"hf://org/name@{commit}", "--headers") == first
    assert hub.sent(".safetensors") == sent
    hub.leave()
    assert client.look(f"hf://org/name@{commit}", "--headers") == first


def test_without_a_network_headers_are_not_known(hub: MiniHub, client: Client) -> None:
    commit = hub.add("org/name", checkpoint())
    client.look("hf://org/name")
    hub.leave()
    assert client.look(f"hf://org/name@{commit}", "--headers") == {"headers": None}


def test_headers_that_are_broken_are_refused(hub: MiniHub, client: Client) -> None:
    hub.add("org/name", checkpoint(**{"model.safetensors": b"<html>" * 2000}))
    assert_refused(client.look("hf://org/name", "--headers"), "org/name/model.safetensors", "header")
    hub.add("org/name", checkpoint(**{"model.safetensors": POINTER}))
    assert_refused(client.look("hf://org/name", "--headers"), "pointer of Git LFS")
