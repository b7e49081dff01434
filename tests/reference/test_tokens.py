"""tokenizer.json says what transformers' AutoTokenizer gives, and an engine's tokenizer gives the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.support import vocabularies
from tests.support.vocabularies import SPACE
from trtbuild.errors import InputError
from trtbuild.networks.tokenizer import convert, pre_tokenizers, tokens
from trtbuild.networks.tokenizer.texts import TEXTS

pytestmark = pytest.mark.reference
transformers = pytest.importorskip("transformers")

Json = dict[str, Any]
_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(name: str) -> Json:
    regexes = pre_tokenizers.PRE_TOKENIZERS[name].regexes
    steps: list[Json] = [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False} for regex in regexes
    ]
    return {"type": "Sequence", "pretokenizers": [*steps, _BYTES]}


def beginning(*, end: bool = False) -> Json:
    text: Json = {"Sequence": {"id": "A", "type_id": 0}}
    around = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ("<s>", "</s>")]
    return {
        "type": "TemplateProcessing",
        "single": [around[0], text, *around[1 : 1 + end]],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (("<s>", 1), ("</s>", 2))
        },
    }


BYTE_LEVEL: dict[str, tuple[str, str, Json]] = {
    # model_type, tokenizer_class, what differs in tokenizer.json
    "Llama 3": (
        "llama",
        "PreTrainedTokenizerFast",
        {"pre_tokenizer": split("llama3"), "post_processor": beginning()},
    ),
    "Llama 3 with an end": (
        "llama",
        "PreTrainedTokenizerFast",
        {"pre_tokenizer": split("llama3"), "post_processor": beginning(end=True)},
    ),
    "Qwen 2": ("qwen2", "Qwen2Tokenizer", {"pre_tokenizer": split("qwen2"), "normalizer": {"type": "NFC"}}),
    "Qwen 3": (
        "qwen3",
        "Qwen2TokenizerFast",
        {"pre_tokenizer": split("qwen2"), "normalizer": {"type": "NFC"}},
    ),
    "SmolLM": ("llama", "PreTrainedTokenizerFast", {"pre_tokenizer": split("smollm")}),
    "DeepSeek": (
        "mistral",
        "LlamaTokenizerFast",
        {"pre_tokenizer": split("deepseek-v3"), "post_processor": _BYTES},
    ),
}


def write(folder: Path, content: Json, model_type: str, name: str, **config: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 2000}))
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    settings = {"tokenizer_class": name, "clean_up_tokenization_spaces": False, **_NAMES, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def differing(folder: Path) -> list[str]:
    """The texts of which AutoTokenizer makes other tokens than `tokenizers` does with the file."""
    auto = transformers.AutoTokenizer.from_pretrained(str(folder))
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [
        text
        for text in TEXTS
        for special in (True, False)
        if auto(text, add_special_tokens=special).input_ids != plain.encode(text, add_special_tokens=special).ids
    ]


@pytest.mark.parametrize("claimed", [{}, {"add_bos_token": True}, {"add_bos_token": False, "add_eos_token": True}])
@pytest.mark.parametrize("kind", BYTE_LEVEL)
def test_byte_level(kind: str, claimed: Json, tmp_path: Path) -> None:
    """What tokenizer_config.json claims of BOS and EOS counts for nothing beside a tokenizer.json."""
    model_type, name, changes = BYTE_LEVEL[kind]
    content = vocabularies.byte_level() | changes
    write(tmp_path, content, model_type, name, **claimed)
    assert differing(tmp_path) == []
    original = (tmp_path / "tokenizer.json").read_bytes()
    convert.rewrite(tmp_path)
    if kind == "DeepSeek":
        with pytest.raises(InputError, match="marks beside blanks"):
            tokens.check(tmp_path, original)
    else:
        assert tokens.check(tmp_path, original) > len(TEXTS)


@pytest.mark.parametrize("model_type", ["llama", "mistral"])
def test_what_transformers_5_saves_of_sentence_piece(model_type: str, tmp_path: Path) -> None:
    """Metaspace before the first piece alone, which `text_normalizer` does for onnxruntime-genai."""
    model = vocabularies.sentence_piece()["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    made = transformers.LlamaTokenizer(vocab=model["vocab"], merges=merges, **_NAMES)
    made.save_pretrained(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 2000}))
    original = (tmp_path / "tokenizer.json").read_bytes()
    assert json.loads(original)["pre_tokenizer"]["prepend_scheme"] == "first"
    assert differing(tmp_path) == []
    convert.rewrite(tmp_path)
    assert tokens.check(tmp_path, original) > len(TEXTS)


def test_llama_2s_own_file_is_followed_where_transformers_rebuilds_it(tmp_path: Path) -> None:
    """transformers 5 makes Metaspace of Llama 2's Prepend, and so one space fewer of a text that begins with one.

    The model was trained, and transformers 4 read it, as the file says; it is what `tokenizers` reads.
    """
    write(tmp_path, vocabularies.sentence_piece() | {"post_processor": beginning()}, "llama", "LlamaTokenizer")
    different = differing(tmp_path)
    assert different
    assert all(text.startswith((" ", SPACE)) for text in different)
    original = (tmp_path / "tokenizer.json").read_bytes()
    convert.rewrite(tmp_path)
    assert tokens.check(tmp_path, original) > len(TEXTS)


def test_smollms_own_file_is_followed_where_transformers_rebuilds_it(tmp_path: Path) -> None:
    """Its class is GPT2Tokenizer, of which transformers 5 makes GPT-2's splits: numbers are no longer cut apart."""
    write(tmp_path, vocabularies.byte_level() | {"pre_tokenizer": split("smollm")}, "llama", "GPT2Tokenizer")
    different = differing(tmp_path)
    assert different
    assert all(any(letter.isnumeric() for letter in text) for text in different)
    original = (tmp_path / "tokenizer.json").read_bytes()
    convert.rewrite(tmp_path)
    assert tokens.check(tmp_path, original) > len(TEXTS)
