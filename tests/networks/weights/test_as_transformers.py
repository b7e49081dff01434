"""What other compilers' tools would read as something else is refused before they start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.networks.tiny_models import config, save, weights
from trtbuild.errors import InputError
from trtbuild.networks.weights.as_transformers import check_folder

PLAIN, TIED = config(), config(tie_word_embeddings=True)
WHOLE = weights(PLAIN)
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
BARE = {name.removeprefix("model."): values for name, values in WHOLE.items()}
WRAPPED = {f"_orig_mod.{name}": values for name, values in WHOLE.items()}


@pytest.mark.parametrize(
    ("settings", "tensors"),
    [
        (PLAIN, WHOLE),
        (PLAIN, BARE),
        (TIED, {name: values for name, values in WHOLE.items() if name != HEAD}),
        (TIED, WHOLE | {HEAD: WHOLE[EMBEDDING]}),
        (config("LlavaForConditionalGeneration"), {f"language_model.{n}": v for n, v in WHOLE.items()}),
        (config("GemmaForCausalLM", tie_word_embeddings=True), WHOLE),
    ],
)
@pytest.mark.parametrize("shards", [1, 2])
def test_what_transformers_reads_as_it_is_meant_is_handed_on(
    settings: dict[str, Any], tensors: dict[str, np.ndarray], shards: int, tmp_path: Path
) -> None:
    save(tmp_path, settings, tensors, shards=shards)
    check_folder(tmp_path)


@pytest.mark.parametrize(
    ("settings", "tensors", "words"),
    [
        (PLAIN, WRAPPED, ["_orig_mod.", "random numbers"]),
        (PLAIN, {f"language_model.{name}": values for name, values in WHOLE.items()}, ["language_model."]),
        (TIED, WHOLE, ["stores another lm_head.weight", "tie_word_embeddings to false"]),
        (TIED, {name: v for name, v in WHOLE.items() if name != EMBEDDING}, ["lm_head.weight alone"]),
        (PLAIN, WHOLE | {"model.layers.0.mlp.up_proj.lora_A.weight": np.ones((2, 2), np.float32)}, ["adapter"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shards", [1, 2])
def test_what_it_would_read_otherwise_is_refused(
    settings: dict[str, Any], tensors: dict[str, np.ndarray], words: list[str], shards: int, tmp_path: Path
) -> None:
    save(tmp_path, settings, tensors, shards=shards)
    with pytest.raises(InputError) as caught:
        check_folder(tmp_path)
    for word in words:
        assert word in f"{caught.value.message}\n{caught.value.hint}"


def test_a_folder_without_safetensors_is_the_tools_own_affair(tmp_path: Path) -> None:
    save(tmp_path, PLAIN, WHOLE)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    check_folder(tmp_path)


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    save(tmp_path, PLAIN, WHOLE)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(InputError, match=r"model\.safetensors is no usable safetensors file"):
        check_folder(tmp_path)
