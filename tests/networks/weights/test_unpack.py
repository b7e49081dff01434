"""A GGUF unpacked: the folder that transformers would have written, for tools that read no GGUF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from tests.networks.tiny_models import bfloat16, config, save_gguf, weights
from tests.support import tiny
from trtbuild.errors import InputError
from trtbuild.networks import unpack
from trtbuild.worker import Reporter, StepRequest

TOKENS = ["<unk>", "<s>", "</s>", *tiny.byte_characters(), "ab"]


def unpacked(tmp_path: Path, dtype: str, extra: dict[str, Any] | None = None, **changes: Any) -> tuple[Path, dict]:
    settings = config(vocab_size=len(TOKENS), **changes)
    tensors = weights(settings)
    files = save_gguf(tmp_path / "model.gguf", settings, tensors, tokens=TOKENS, extra=extra)
    out = tmp_path / "out"
    out.mkdir()
    request = StepRequest("unpack", {"model.dtype": dtype}, files, {}, {}, None)
    with (tmp_path / "events").open("w") as events:
        facts = unpack.run(request, out, Reporter(events))
    assert facts["tensors"] == len(tensors)
    return out, tensors


def test_the_weights_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    out, tensors = unpacked(tmp_path, "float32")
    found = load_file(out / "model.safetensors")
    assert set(found) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(found[name], values)


def test_half_precision(tmp_path: Path) -> None:
    out, tensors = unpacked(tmp_path, "float16")
    found = load_file(out / "model.safetensors")
    for name, values in tensors.items():
        np.testing.assert_array_equal(found[name], values.astype(np.float16))
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "float16"


def test_bfloat16(tmp_path: Path) -> None:
    """numpy's reader knows no bfloat16: the bytes are looked at."""
    out, tensors = unpacked(tmp_path, "bfloat16")
    data = (out / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    for name, values in tensors.items():
        assert header[name]["dtype"] == "BF16"
        start, end = header[name]["data_offsets"]
        raw = np.frombuffer(data[8 + length + start : 8 + length + end], dtype="<u2")
        wide = (raw.astype("<u4") << 16).view("<f4").reshape(values.shape)
        assert np.all(np.abs(wide - values) <= np.abs(values - bfloat16(values)) + 2**-8 * np.abs(values))


def test_the_rotation_is_told_as_transformers_4_and_5_ask_for_it(tmp_path: Path) -> None:
    """4.57 reads rope_theta alone, and takes 10000 where it is not there: SmolLM2 has 100000."""
    out, _ = unpacked(tmp_path, "float16")
    said = json.loads((out / "config.json").read_text())
    assert said["rope_theta"] == 1000.0
    assert said["rope_parameters"]["rope_theta"] == 1000.0
    assert said["rope_scaling"] is None
    assert said["architectures"] == ["LlamaForCausalLM"]


def test_a_scaled_rotation(tmp_path: Path) -> None:
    scaling = {"rope.scaling.type": "linear", "rope.scaling.factor": 3.0}
    out, _ = unpacked(tmp_path, "float16", extra=scaling)
    said = json.loads((out / "config.json").read_text())
    assert said["rope_scaling"] == {"rope_type": "linear", "factor": 3.0}


def test_a_rotation_that_cannot_be_told_is_refused(tmp_path: Path) -> None:
    settings = config(vocab_size=len(TOKENS))
    factors = np.linspace(1, 8, settings["head_dim"] // 2)
    files = save_gguf(tmp_path / "m.gguf", settings, weights(settings), tokens=TOKENS, rope_factors=factors)
    request = StepRequest("unpack", {"model.dtype": "float16"}, files, {}, {}, None)
    with (tmp_path / "events").open("w") as events, pytest.raises(InputError, match=r"rope_freqs\.weight"):
        unpack.run(request, tmp_path, Reporter(events))


def test_the_tokenizer_comes_along(tmp_path: Path) -> None:
    out, _ = unpacked(tmp_path, "float16")
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode("Why is the sky blue?").ids) == "Why is the sky blue?"


def test_what_is_no_gguf_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    files = {path.name: path for path in tiny_llama.iterdir()}
    with (tmp_path / "events").open("w") as events, pytest.raises(InputError, match="is no GGUF"):
        unpack.run(StepRequest("unpack", {"model.dtype": "float16"}, files, {}, {}, None), tmp_path, Reporter(events))
