"""Folders and single files: what is read, what is refused before anything is hashed, and what a build notices."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sources.samples import (
    CONFIG,
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
from trtbuild.errors import BuildError, InputError
from trtbuild.sources import Source, identity, open_source


def opened(path: Path | str, digester: PlainDigester | None = None) -> Source:
    return open_source(str(path), revision=None, digester=digester or PlainDigester())


def identity_of(path: Path) -> str:
    return identity(opened(path).files())


def refusal(path: Path | str) -> InputError:
    """The error of a source that must be refused, with every word that a user would see in its message."""
    with pytest.raises(InputError) as caught:
        opened(path).files()
    assert caught.value.option is not None
    assert caught.value.option.startswith("model.source")
    return caught.value


def says(error: InputError, *words: str) -> None:
    said = f"{error.message}\n{error.hint}"
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"


def test_files_that_no_build_reads_change_nothing(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", checkpoint())
    other = write(tmp_path / "other", checkpoint(**{"NOTES": b"mine", "onnx/model.onnx": b"x"}))
    assert identity_of(plain) == identity_of(other)
    assert opened(plain).describe() == "folder"


def test_any_byte_of_any_file_changes_the_identity(tmp_path: Path) -> None:
    files = {**sharded(2), "tokenizer.model": b"t", "chat_template.jinja": b"c", "merges.txt": b"m"}
    folder = write(tmp_path / "m", files)
    seen = {identity_of(folder)}
    for name, data in files.items():
        # Within the tensors of a shard, within white space of JSON.
        other = data[:-1] + bytes([data[-1] ^ 1]) if not name.endswith(".json") else data + b" "
        (folder / name).write_bytes(other)
        seen.add(identity_of(folder))
        (folder / name).write_bytes(data)
    assert len(seen) == len(files) + 1


def test_a_renamed_gguf_is_the_same_model(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", {"Llama-3.Q4_K_M.gguf": gguf(), "config.json": b"{}"})
    renamed = write(tmp_path / "two", {"m.GGUF": gguf(), "other.gguf": gguf(architecture="phi3")})
    assert identity_of(folder) == identity_of(renamed / "m.GGUF") == identity_of(folder / "Llama-3.Q4_K_M.gguf")
    assert identity_of(folder) != identity_of(renamed / "other.gguf")
    source = opened(renamed / "m.GGUF")
    assert (source.config(), source.gguf_architecture(), source.describe()) == (None, "llama", "file")
    assert [file.path for file in source.files()] == ["model.gguf"]


def test_a_split_gguf_is_its_parts_in_order(tmp_path: Path) -> None:
    rest = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("split.no") + struct.pack("<IH", 2, 1)
    parts = {"a-00001-of-00002.gguf": gguf(), "a-00002-of-00002.gguf": rest}
    folder = write(tmp_path / "m", parts)
    source = opened(folder)
    assert [file.path for file in source.files()] == [
        "model-00001-of-00002.gguf",
        "model-00002-of-00002.gguf",
    ]
    assert source.gguf_architecture() == "llama"
    assert identity_of(folder / "a-00002-of-00002.gguf") == identity_of(folder)
    (folder / "a-00002-of-00002.gguf").unlink()
    says(refusal(folder), "1 of the 2 parts", "a-00001-of-00002.gguf", "all parts")


def test_links_are_followed_as_in_the_hub_s_cache(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", checkpoint())
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in plain.iterdir():
        (linked / path.name).symlink_to(path)
    assert identity_of(linked) == identity_of(plain)
    blob = tmp_path / "b179c952"
    blob.write_bytes(gguf())
    assert opened(blob).gguf_architecture() == "llama"


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model", checkpoint())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert opened("~/model").files()
    says(refusal("~nobody-of-that-name/model"), "nothing at ~nobody")


def test_fetch_gives_the_files_where_they_are(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", sharded(2))
    keep = tmp_path / "keep"
    keep.mkdir()
    source = opened(folder)
    names = [file.path for file in source.files()]
    assert source.fetch(keep, ignore) == {name: folder / name for name in names}
    assert list(keep.iterdir()) == []


def test_a_change_during_the_build_is_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", checkpoint())
    weights = folder / "model.safetensors"
    source = opened(folder)
    source.files()
    weights.touch()
    source.recheck()  # touched, not changed
    stat = weights.stat()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time of modification
    with pytest.raises(BuildError, match=r"model\.safetensors changed during the build"):
        source.recheck()
    with pytest.raises(BuildError):
        source.fetch(tmp_path, ignore)
    weights.unlink()
    with pytest.raises(BuildError, match="can no longer be read"):
        source.recheck()


def test_nothing_is_hashed_twice_nor_for_a_recheck(tmp_path: Path) -> None:
    digester = PlainDigester()
    source = opened(write(tmp_path / "m", checkpoint()), digester)
    source.files()
    source.files()
    source.fetch(tmp_path, ignore)
    source.recheck()
    assert len(digester.hashed) == 3
    assert digester.at_once[0] == 3  # side by side, for who can


def change(name: str, data: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return spoil


def index(value: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps(value))

    return spoil


def remove(*names: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


WHOLE = safetensors("a", "b")
HOLE = {
    "a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
    "b": {"dtype": "U8", "shape": [4], "data_offsets": [8, 12]},
}


def header(value: object, data: bytes = b"") -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (remove("config.json"), ["no config.json"]),
        (remove("model.safetensors"), ["pytorch_model.bin", "convert to safetensors: pickled weights are not read"]),
        (remove("model.safetensors", "pytorch_model.bin"), ["no weights", "model.safetensors", ".gguf"]),
        (change("model.safetensors", WHOLE[:-1]), ["model.safetensors", "truncated", "8192", "8191"]),
        (change("model.safetensors", WHOLE[:40]), ["truncated"]),
        (change("model.safetensors", b"abc"), ["truncated"]),
        (change("model.safetensors", b""), ["truncated"]),
        (change("model.safetensors", WHOLE + b"x"), ["1 bytes follow"]),
        (change("model.safetensors", b"<html>" * 100), ["does not begin with the length"]),
        (change("model.safetensors", struct.pack("<Q", 2) + b"{]"), ["not JSON"]),
        (change("model.safetensors", header([1])), ["no JSON object"]),
        (change("model.safetensors", header({"a": {"data_offsets": [0, True]}}, b"x")), ["'a' has no data_offsets"]),
        (change("model.safetensors", header(HOLE, bytes(12))), ["b has the bytes 8 to 12", "4"]),
        (change("model.safetensors", struct.pack("<Q", 90_000) + b"[" * 90_000), ["nested more than 100 deep"]),
        (index({"weight_map": {}}), ["empty weight_map"]),
        (index([]), ["holds no JSON object"]),
        (index({"weight_map": {"a": "m.safetensors"}}), ["names m.safetensors", "lacks it", "download all shards"]),
        (index({"weight_map": {"a": "../m.safetensors"}}), ["'../m.safetensors'", "beside it"]),
        (index({"weight_map": {"a": "/m.safetensors"}}), ["'/m.safetensors'"]),
        (index({"weight_map": {"a": "pytorch_model.bin"}}), ["'pytorch_model.bin'"]),
        (index({"weight_map": {"a": ["x"], "b": None, "c": 1}}), ["is no .safetensors file"]),
        (index({"weight_map": {"a": "\ud800.safetensors"}}), ["half of a surrogate pair"]),
    ],
)  # fmt: skip
def test_broken_folders(tmp_path: Path, spoil: Callable[[Path], None], words: list[str]) -> None:
    folder = write(tmp_path / "m", checkpoint())
    spoil(folder)
    error = refusal(folder)
    says(error, str(folder), *words)
    assert error.hint


def test_broken_config(tmp_path: Path) -> None:
    source = opened(write(tmp_path / "m", checkpoint() | {"config.json": b"{"}))
    with pytest.raises(InputError, match=r"config\.json is not JSON"):
        source.config()


def test_shards_without_their_index(tmp_path: Path) -> None:
    files = sharded(2)
    del files["model.safetensors.index.json"]
    says(refusal(write(tmp_path / "m", files)), "model-00001-of-00002.safetensors", "index.json")


def test_several_ggufs_are_listed(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", {"b.gguf": gguf(), "a.gguf": gguf(), "\x1b[31mc.gguf": gguf()})
    error = refusal(folder)
    says(error, "a.gguf, b.gguf", f"model.source={folder}/<file>.gguf")
    assert "\x1b" not in error.message


def test_safetensors_win_over_gguf_beside_them(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", checkpoint(**{"a.gguf": gguf()}))
    assert opened(folder).gguf_architecture() is None
    assert "model.safetensors" in {file.path for file in opened(folder).files()}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html>" * 100, ["GGUF's magic"]),
        (b"", ["truncated"]),
        (b"GGU", ["truncated"]),
        (gguf(version=1), ["version is 1"]),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), ["version is 50331648", "little-endian"]),
        (gguf()[:40], ["truncated"]),
        (gguf(architecture=None), ["lacks general.architecture"]),
        (gguf(architecture="\x1b[31m"), ["plain name"]),
        (gguf(architecture=""), ["plain name"]),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60) + b"\xff" * 200, ["key has"]),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60) + (string("k") + struct.pack("<IB", 0, 1)) * 99, ["truncated"]),
        (gguf(string("k") + struct.pack("<IIQ", 9, 9, 1)), ["unknown type 9"]),
        (gguf(string("k") + struct.pack("<I", 77)), ["unknown type 77"]),
        (gguf(string("k") + struct.pack("<IQ", 8, 2**63)), ["truncated"]),
        (gguf(string("k") + struct.pack("<IIQ", 9, 12, 2**61)), ["truncated"]),
    ],
)  # fmt: skip
def test_broken_ggufs(tmp_path: Path, data: bytes, words: list[str]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    says(refusal(path), str(path), *words)


def test_the_architecture_is_found_behind_other_metadata(tmp_path: Path) -> None:
    scalars = [string(f"k{kind}") + struct.pack("<I", kind) + bytes(size) for kind, size in
               {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}.items()]  # fmt: skip
    numbers = string("n") + struct.pack("<IIQ", 9, 5, 1000) + bytes(4000)
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(*scalars, numbers, vocabulary(100_000), architecture="qwen3", version=2))
    assert opened(path).gguf_architecture() == "qwen3"


def test_an_architecture_too_far_away_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(string("n") + struct.pack("<IIQ", 9, 0, 1 << 24) + bytes(1 << 24)))
    says(refusal(path), "first 16 MiB")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", ["empty", "hf://org/name"]),
        ("/no/such/folder", ["nothing at /no/such/folder", "model.source takes a path"]),
        ("org/name", ["nothing at org/name", "model.source=hf://org/name"]),
        ("s3://bucket/model", ["s3: is no source", "hf://org/name", "wheel:"]),
        ("https://huggingface.co/org/name", ["https: is no source", "hf://org/name"]),
        ("C:\\models\\llama", ["path of Windows"]),
        ("/dev/null", ["neither a folder nor a file"]),
        ("x" * 5000, ["name too long"]),
    ],
)
def test_other_sources(source: str, words: list[str]) -> None:
    error = refusal(source)
    says(error, *[word for word in words if word != "name too long"])
    assert "name too long" not in words or "too long" in error.message


def test_one_file_of_a_folder_is_not_a_checkpoint(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", checkpoint())
    says(refusal(folder / "model.safetensors"), "is no .gguf file", "folder")


def test_a_revision_is_for_the_hub(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_source(str(write(tmp_path / "m", checkpoint())), revision="v1", digester=PlainDigester())
    assert caught.value.option == "model.revision=v1"


def test_a_file_whose_name_looks_like_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "v2:model", {"config.json": CONFIG, "model.safetensors": safetensors("a")})
    monkeypatch.chdir(tmp_path)
    assert opened("v2:model").files()
