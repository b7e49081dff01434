"""Checkpoints are read exactly, tensor by tensor, and a broken one is an error that names what is broken."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.networks.tiny_models import config, safetensors_bytes, save, save_gguf, weights
from trtbuild.errors import InputError
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.gguf.config import config_from_gguf
from trtbuild.networks.weights import naming
from trtbuild.networks.weights.checkpoint import Checkpoint
from trtbuild.networks.weights.layout import check
from trtbuild.sources import open_source

SETTINGS = config()
TENSORS = weights(SETTINGS)
UP = "model.layers.0.mlp.up_proj.weight"


def refused(files: dict[str, Path]) -> InputError:
    with pytest.raises(InputError) as caught:
        checkpoint = Checkpoint.open(files)
        check(checkpoint, parse(checkpoint.config))
    assert caught.value.option == "model.source"
    return caught.value


# Reading


@pytest.mark.parametrize("shards", [1, 3])
def test_safetensors_are_read_as_written(shards: int, tmp_path: Path):
    checkpoint = Checkpoint.open(save(tmp_path, SETTINGS, TENSORS, shards=shards))
    assert checkpoint.names() == sorted(TENSORS)
    assert checkpoint.metadata is None
    for name, values in TENSORS.items():
        assert checkpoint.shape(name) == values.shape
        np.testing.assert_array_equal(checkpoint.read(name), values)


def test_bfloat16_is_widened_exactly_infinities_and_subnormals_included(tmp_path: Path):
    bits = np.arange(65536, dtype=np.uint32) << 16
    every = bits.view(np.float32).reshape(256, 256)  # each bfloat16 there is
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes({"every": every}, "BF16"))
    files = {path.name: path for path in tmp_path.iterdir()}
    read = Checkpoint.open(files).read("every")
    np.testing.assert_array_equal(read.view(np.uint32), every.view(np.uint32))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_gguf_types_are_read_as_gguf_wrote_them(kind: str, tmp_path: Path):
    settings = config(hidden_size=64, intermediate_size=128)
    tensors = weights(settings)
    checkpoint = Checkpoint.open(save_gguf(tmp_path / "model.gguf", settings, tensors, kind))
    number = gguf.GGMLQuantizationType[kind]
    for name, values in tensors.items():
        wanted = values
        if values.ndim == 2 and kind != "F32":
            wanted = gguf.quants.dequantize(gguf.quants.quantize(values, number), number)
        # Rows are quantized one by one, so llama.cpp's permutation of them commutes with it.
        np.testing.assert_array_equal(checkpoint.read(name), wanted.reshape(values.shape))


def q4_k(block: bytes) -> list[float]:
    """One block of 256, as ggml's block_q4_K describes it: 8 groups of 32 with 6-bit scales and minima."""
    scale, least = struct.unpack("<2e", block[:4])
    packed, nibbles = block[4:16], block[16:]
    values = []
    for group in range(8):
        if group < 4:
            s, m = packed[group] & 63, packed[group + 4] & 63
        else:
            s = packed[group + 4] & 15 | packed[group - 4] >> 6 << 4
            m = packed[group + 4] >> 4 | packed[group] >> 6 << 4
        for i in range(32):
            byte = nibbles[group // 2 * 32 + i]
            values.append(scale * s * (byte >> 4 if group % 2 else byte & 15) - least * m)
    return values


def q6_k(block: bytes) -> list[float]:
    """One block of 256, as ggml's block_q6_K describes it: 16 groups of 16 with 8-bit scales."""
    low, high, scales = block[:128], block[128:192], struct.unpack("<16b", block[192:208])
    (scale,) = struct.unpack("<e", block[208:])
    values = []
    for i in range(256):
        half, quarter, at = i // 128, i % 128 // 32, i % 32
        nibble = low[half * 64 + quarter % 2 * 32 + at] >> (4 if quarter > 1 else 0) & 15
        number = nibble | (high[half * 32 + at] >> 2 * quarter & 3) << 4
        values.append(scale * scales[i // 16] * (number - 32))
    return values


@pytest.mark.parametrize("kind, decode, scales", [("Q4_K", q4_k, (0, 2)), ("Q6_K", q6_k, (208,))])
def test_k_quants_are_read_as_ggml_defines_them(kind: str, decode, scales: tuple[int, ...], tmp_path: Path):
    number = gguf.GGMLQuantizationType[kind]
    width = gguf.GGML_QUANT_SIZES[number][1]
    random = np.random.default_rng(1)
    packed = random.integers(0, 256, (96, width), dtype=np.uint8)
    for at in scales:  # random bytes as a float16 scale could be a NaN
        packed[:, at : at + 2] = random.uniform(0.01, 0.1, (96, 1)).astype("<f2").view(np.uint8)
    settings = config(hidden_size=256, num_hidden_layers=1)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    for add, value in (
        (writer.add_context_length, 128),
        (writer.add_embedding_length, 256),
        (writer.add_feed_forward_length, 96),
        (writer.add_block_count, 1),
        (writer.add_head_count, 4),
        (writer.add_vocab_size, settings["vocab_size"]),
        (writer.add_layer_norm_rms_eps, 1e-5),
    ):
        add(value)
    writer.add_tensor("token_embd.weight", packed, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = Checkpoint.open({"model.gguf": tmp_path / "model.gguf"}).read("model.embed_tokens.weight")
    np.testing.assert_allclose(read, [decode(row.tobytes()) for row in packed], rtol=1e-6, atol=1e-6)


def test_a_split_gguf_is_one_checkpoint_and_a_missing_part_is_named(tmp_path: Path):
    parts = {}
    names = list(TENSORS)
    for part in range(2):
        chosen = {name: TENSORS[name] for name in names[part::2]}
        path = tmp_path / f"model-0000{part + 1}-of-00002.gguf"
        parts |= save_gguf(path, SETTINGS, chosen, split=(part, 2, len(names)))
    checkpoint = Checkpoint.open(parts)
    check(checkpoint, parse(checkpoint.config))
    for name, values in TENSORS.items():
        np.testing.assert_array_equal(checkpoint.read(name), values)
    del parts["model-00002-of-00002.gguf"]
    assert "one of 2 parts, and 1 are there" in refused(parts).message


# A plan knows the same from headers


class NoDigester:
    """Headers are read without hashing anything."""

    def file_digests(self, paths: Sequence[Path]) -> list[str]:
        raise AssertionError(paths)


@pytest.mark.parametrize(
    "kind", ["one", "shards", "gguf", "bare", "head", "doubled", "missing", "quantized", "adapter", "strange"]
)
def test_a_plan_settles_from_headers_what_the_step_settles_or_refuses_it_in_the_same_words(kind: str, tmp_path: Path):
    settings, tensors, shards = config(tie_word_embeddings=kind in ("bare", "head")), dict(TENSORS), 1
    if kind == "gguf":
        save_gguf(tmp_path / "model.gguf", SETTINGS, TENSORS)
    elif kind == "shards":
        shards = 3
    elif kind == "bare":
        tensors = {name.removeprefix("model."): values for name, values in TENSORS.items()}
    elif kind == "missing":
        del tensors[UP]
    elif kind != "one":
        more = {"doubled": f"_orig_mod.{UP}", "quantized": f"{UP}_scale", "adapter": "q.lora_A.weight"}
        name = more.get(kind, "model.other.weight" if kind == "strange" else "lm_head.weight")
        tensors[name] = np.ones((96, 64), np.float32)
    if kind != "gguf":
        save(tmp_path, settings, tensors, shards=shards)
    source = open_source(str(tmp_path), revision=None, digester=NoDigester())
    found, described, header = source.headers(), source.config(), source.gguf_header()
    assert found is not None
    if header is not None:
        described = config_from_gguf(header.metadata, header.tensors)
    assert described is not None
    files = {path.name: path for path in tmp_path.iterdir()}
    try:
        checkpoint = Checkpoint.open(files)
        wanted = check(checkpoint, parse(checkpoint.config))
    except InputError as refusal:
        with pytest.raises(InputError) as caught:
            settled = naming.settle(found.files, found.index, described)
            check(settled, parse(settled.config(described)))
        assert (caught.value.message, caught.value.hint) == (refusal.message, refusal.hint)
        assert kind in ("doubled", "missing", "quantized", "adapter", "strange")
        return
    settled = naming.settle(found.files, found.index, described)
    assert check(settled, parse(settled.config(described))) == wanted
    assert settled.config(described)["tie_word_embeddings"] == checkpoint.config["tie_word_embeddings"]
    assert {name: (place.file, place.name, place.kind) for name, place in settled.tensors.items()} == {
        name: (each.file, each.name, each.kind) for name, each in checkpoint.stored.items()
    }


# What is broken is named


def test_a_missing_tensor_is_named(tmp_path: Path):
    files = save(tmp_path, SETTINGS, {k: v for k, v in TENSORS.items() if k != UP})
    assert f"lacks the tensor {UP}" in refused(files).message


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path):
    files = save(tmp_path, SETTINGS, TENSORS | {UP: TENSORS[UP][:-1]})
    message = refused(files).message
    assert UP in message
    assert "[95, 64]" in message
    assert "[96, 64]" in message


def test_a_tensor_that_the_network_would_leave_out_is_named(tmp_path: Path):
    extra = "model.layers.1.self_attn.q_proj.bias"
    files = save(tmp_path, SETTINGS, TENSORS | {extra: np.zeros(64, np.float32)})
    assert f"holds {extra}" in refused(files).message


def test_known_leftovers_are_no_error(tmp_path: Path):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    checkpoint = Checkpoint.open(save(tmp_path, SETTINGS, TENSORS | {name: np.ones(8, np.float32)}))
    assert set(check(checkpoint, parse(checkpoint.config))) == set(TENSORS)
    assert list(checkpoint.ignored) == [name]


@pytest.mark.parametrize("suffix", ["safetensors", "gguf"])
def test_every_truncation_is_an_error_that_names_the_file(suffix: str, tmp_path: Path):
    if suffix == "gguf":
        files = save_gguf(tmp_path / "model.gguf", SETTINGS, TENSORS)
    else:
        files = save(tmp_path, SETTINGS, TENSORS)
    path = files[f"model.{suffix}"]
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    lengths = [0, 3, 7, 8, 20, 23, 24, 25, len(whole) - 1, *rng.integers(0, len(whole), 40).tolist()]
    for length in lengths:
        path.write_bytes(whole[:length])
        assert f"model.{suffix}" in refused(files).message


@pytest.mark.parametrize("suffix", ["safetensors", "gguf"])
def test_a_damaged_header_is_an_error_or_reads_the_same_names(suffix: str, tmp_path: Path):
    """Any single byte of the header may flip: no crash, no endless loop, no other exception."""
    if suffix == "gguf":
        files = save_gguf(tmp_path / "model.gguf", SETTINGS, TENSORS)
    else:
        files = save(tmp_path, SETTINGS, TENSORS)
    path = files[f"model.{suffix}"]
    whole = path.read_bytes()
    refusals = 0
    for at in range(0, 2000, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            checkpoint = Checkpoint.open(files)
            check(checkpoint, parse(checkpoint.config))
        except InputError:
            refusals += 1
    assert refusals > 100


@pytest.mark.parametrize(
    "entry, what",
    [
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}, "do not fit F32"),
        ({"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}, "as F8_E4M3: supported are"),
        ({"dtype": "F32", "shape": [4]}, "malformed"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}, "next free one"),
    ],
)
def test_a_wrong_safetensors_entry_is_explained(entry: dict, what: str, tmp_path: Path):
    text = json.dumps({"odd": entry}).encode()
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    message = refused({path.name: path for path in tmp_path.iterdir()}).message
    assert "odd" in message
    assert what in message


def test_a_gguf_type_that_nothing_here_dequantizes_is_named(tmp_path: Path):
    files = save_gguf(tmp_path / "model.gguf", SETTINGS, TENSORS)
    whole = files["model.gguf"].read_bytes()
    name = b"blk.0.ffn_up.weight"
    at = whole.index(name) + len(name) + 4 + 2 * 8
    assert struct.unpack_from("<I", whole, at) == (0,)  # F32
    files["model.gguf"].write_bytes(whole[:at] + struct.pack("<I", 27) + whole[at + 4 :])  # I64
    assert "blk.0.ffn_up.weight as I64" in refused(files).message


def test_what_is_missing_from_a_folder_is_named(tmp_path: Path):
    files = save(tmp_path, SETTINGS, TENSORS, shards=2)
    shard = "model-00002-of-00002.safetensors"
    assert f"names {shard}" in refused({k: v for k, v in files.items() if k != shard}).message
    assert "no config.json" in refused({k: v for k, v in files.items() if k != "config.json"}).message
    assert "neither .safetensors nor .gguf" in refused({"config.json": files["config.json"]}).message
    no_index = {k: v for k, v in files.items() if not k.endswith("index.json")}
    assert "several weight files" in refused(no_index).message
    files["config.json"].write_text("{")
    assert "config.json is not JSON" in refused(files).message


def test_an_index_that_lies_is_named(tmp_path: Path):
    files = save(tmp_path, SETTINGS, TENSORS, shards=2)
    index = tmp_path / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": places | {"ghost": "model-00001-of-00002.safetensors"}}))
    assert "says that it holds ghost" in refused(files).message


def test_two_unrelated_gguf_files_are_refused(tmp_path: Path):
    files = save_gguf(tmp_path / "a.gguf", SETTINGS, TENSORS)
    files |= save_gguf(tmp_path / "b.gguf", SETTINGS, TENSORS)
    assert "several weight files (a.gguf, b.gguf)" in refused(files).message
