"""A GGUF file may hold a value of any type under any key: one error names the key, the value and what is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Tokenizer

from tests.networks import tiny_models
from tests.support import tiny
from trtbuild.errors import InputError
from trtbuild.networks.gguf import types as gguf_types
from trtbuild.networks.gguf.config import config_from_gguf
from trtbuild.networks.tokenizer import gguf as gguf_tokenizer
from trtbuild.networks.weights.checkpoint import Checkpoint

TOKENS = [*tiny.byte_characters(), "<s>", "</s>"]
METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.context_length": 128,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.block_count": 2,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": [2, 2],
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "llama-bpe",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [1] * 256 + [3, 3],
    "tokenizer.ggml.merges": [],
    "tokenizer.ggml.bos_token_id": 256,
    "tokenizer.ggml.eos_token_id": 257,
}
WRONG: list[tuple[str, Any]] = [
    ("llama.attention.head_count", 0),
    ("llama.attention.head_count", ["a", "b"]),
    ("llama.attention.head_count", True),
    ("llama.attention.head_count_kv", [2.0, 2.0]),
    ("llama.context_length", "big"),
    ("llama.attention.key_length", "x"),
    ("llama.attention.layer_norm_rms_epsilon", "x"),
    ("llama.attention.layer_norm_rms_epsilon", [1e-5, 1e-5]),
    ("llama.attention.layer_norm_rms_epsilon", 3.5e38),
    ("llama.rope.freq_base", float("nan")),
    ("llama.rope.scaling.type", 4),
    ("general.architecture", 5),
    ("split.count", "x"),
    ("tokenizer.ggml.tokens", [1, 2]),
    ("tokenizer.ggml.tokens", 5),
    ("tokenizer.ggml.token_type", 1),
    ("tokenizer.ggml.merges", [1]),
    ("tokenizer.ggml.eos_token_id", [257]),
    ("tokenizer.ggml.bos_token_id", 256.0),
    ("tokenizer.ggml.add_bos_token", "false"),
    ("tokenizer.ggml.scores", 5),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{key}={value}" for key, value in WRONG])
def test_a_value_of_another_type_is_named(key: str, value: Any) -> None:
    with pytest.raises(InputError) as failure:
        gguf_types.check(METADATA | {key: value})
    assert f"the GGUF file has {key}={value!r}: " in failure.value.message
    assert "is needed" in failure.value.message


def test_what_converters_write_is_taken() -> None:
    gguf_types.check(METADATA)
    # A header that was read for its sizes alone has ranges in place of long lists.
    gguf_types.check(METADATA | {"tokenizer.ggml.tokens": range(258), "tokenizer.ggml.merges": range(9)})
    assert config_from_gguf(METADATA)["num_key_value_heads"] == 2


@pytest.mark.parametrize("number", [-1, 0xFFFFFFFF])
def test_minus_one_is_no_token(number: int) -> None:
    made = gguf_tokenizer.convert(METADATA | {"tokenizer.ggml.bos_token_id": number})
    assert "bos_token" not in made.config


def test_divisors_of_another_number_are_named(tmp_path: Path) -> None:
    settings = tiny_models.config(vocab_size=len(TOKENS) + 1)
    tensors = tiny_models.weights(settings)
    tokens = [*TOKENS, "ab"]
    factors = tiny_models.np.ones(3, tiny_models.np.float32)
    files = tiny_models.save_gguf(tmp_path / "m.gguf", settings, tensors, rope_factors=factors, tokens=tokens)
    with pytest.raises(InputError, match=r"rope_freqs\.weight of the shape \[3\].* 8 frequencies"):
        Checkpoint.open(files)


@pytest.mark.parametrize(("pre", "composed"), [("qwen2", True), ("qwen35", True), ("llama-bpe", False)])
def test_accents_are_composed_as_in_the_models_own_file(pre: str, composed: bool) -> None:
    made = gguf_tokenizer.convert(METADATA | {"tokenizer.ggml.pre": pre})
    read = Tokenizer.from_str(json.dumps(made.tokenizer))
    ids = [read.encode(text, add_special_tokens=False).ids for text in ("e\u0301", "\u00e9")]
    assert (ids[0] == ids[1]) == composed


def test_a_mark_of_the_template_that_is_an_ordinary_token_is_named() -> None:
    """Its text would be cut into pieces, and no answer would end at it."""
    tokens, template = [*TOKENS, "<|im_end|>"], "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    types = METADATA["tokenizer.ggml.token_type"]
    fields = METADATA | {"tokenizer.ggml.tokens": tokens, "tokenizer.chat_template": template}
    gguf_tokenizer.convert(fields | {"tokenizer.ggml.token_type": [*types, 3]})
    with pytest.raises(InputError, match=r"writes '<\|im_end\|>'.*ordinary one"):
        gguf_tokenizer.convert(fields | {"tokenizer.ggml.token_type": [*types, 1]})


def test_merges_that_make_no_token() -> None:
    """Of two characters they change nothing; others could, and are refused."""
    made = gguf_tokenizer.convert(METADATA | {"tokenizer.ggml.merges": ["a b"]})
    assert made.tokenizer["model"]["merges"] == []
    for merges in (["a b", "ab c"], ["a bc"], ["a"]):
        with pytest.raises(InputError, match="and has no such token"):
            gguf_tokenizer.convert(METADATA | {"tokenizer.ggml.merges": merges})


def test_the_names_are_those_of_the_format() -> None:
    """By gguf's own list of keys; older files say `rope.scale_linear`."""
    groups = [vars(group).values() for group in vars(gguf.Keys).values() if isinstance(group, type)]
    known = {key.replace("{arch}", "*") for group in groups for key in group if isinstance(key, str)}
    assert set(gguf_types._RULES) - known == {"*.rope.scale_linear"}
