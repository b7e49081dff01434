"""What a checkpoint's small files say of chats: the template, the ends of answers, and ids that no row belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from trtbuild.errors import InputError
from trtbuild.networks.chat import template
from trtbuild.networks.tokenizer.special_tokens import check_vocabulary

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
CONFIG = tiny.config()


def files(folder: Path, config: dict[str, Any] | None = None, **others: Any) -> dict[str, bytes | Path]:
    """A tiny tokenizer's files, `config` in its tokenizer_config.json, and others by name (dots as __)."""
    tiny.write_tokenizer(folder)
    given = json.loads((folder / "tokenizer_config.json").read_text()) | (config or {})
    small: dict[str, bytes | Path] = {"tokenizer.json": folder / "tokenizer.json"}
    small["tokenizer_config.json"] = json.dumps({k: v for k, v in given.items() if v is not ...}).encode()
    for name, content in others.items():
        text = content if isinstance(content, str) else json.dumps(content)
        small[name.replace("__", ".")] = text.encode()
    return small


def added(folder: Path, *tokens: tuple[str, int]) -> bytes:
    tiny.write_tokenizer(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"] += [{"id": number, "content": text, "special": True} for text, number in tokens]
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "value",
    [
        TURNS,
        [{"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": TURNS}],
        {"default": TURNS, "rag": "{{ 1 }}"},
    ],
    ids=["text", "list", "by name"],
)
def test_a_template_is_the_default_of_what_tokenizer_config_has(value: object, tmp_path: Path) -> None:
    assert template.template_of(files(tmp_path, {"chat_template": value})) == TURNS


def test_a_file_of_its_own_goes_before_tokenizer_config(tmp_path: Path) -> None:
    small = files(tmp_path, {"chat_template": "{{ 'old' }}"}, chat_template__jinja="{{ 'new' }}\r\n")
    assert template.template_of(small) == "{{ 'new' }}\n"
    assert template.template_of({**small, "additional_chat_templates/rag.jinja": b"{{ 'rag' }}"}) == "{{ 'new' }}\n"


def test_templates_in_a_folder_need_a_default(tmp_path: Path) -> None:
    rag = {**files(tmp_path), "additional_chat_templates/rag.jinja": b"{{ 'rag' }}"}
    with pytest.raises(InputError, match="are named rag, and none is named default"):
        template.template_of(rag)
    assert template.template_of({**rag, "additional_chat_templates/default.jinja": TURNS.encode()}) == TURNS


def test_a_base_model_has_no_template(tmp_path: Path) -> None:
    assert template.template_of(files(tmp_path)) is None
    assert template.template_of(files(tmp_path, {"chat_template": None})) is None


@pytest.mark.parametrize(
    ("small", "message"),
    [
        ({"config": {"chat_template": " \n"}}, "tokenizer_config.json is empty"),
        ({"chat_template__jinja": ""}, "chat_template.jinja is empty"),
        ({"config": {"chat_template": "chat_template.jinja"}}, "holds no Jinja"),
        ({"chat_template__jinja": {"chat_template": TURNS}}, "holds JSON, and not a template"),
        ({"chat_template__json": {"chat_template": TURNS}}, "is in chat_template.json, where processors"),
        (
            {"generation_config__json": {"chat_template": TURNS}},
            "is in generation_config.json, where nothing",
        ),
        ({"config": {"chat_template": [{"name": "rag", "template": TURNS}]}}, "none is named default"),
        ({"config": {"chat_template": [TURNS]}}, "an entry of the list has no name"),
        ({"config": {"chat_template": [{"name": "default"}]}}, "the one named default is no text"),
        ({"config": {"chat_template": 7}}, "it is 7, and not a text"),
    ],
)
def test_a_template_that_no_chat_could_use_is_refused(small: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as refused:
        template.check(files(tmp_path, **small), CONFIG)
    assert refused.value.option == "model.source"
    assert refused.value.hint


def test_a_processors_template_beside_the_tokenizers_is_left_alone(tmp_path: Path) -> None:
    small = files(tmp_path, {"chat_template": TURNS}, chat_template__json={"chat_template": "{{ 1 }}"})
    assert template.template_of(small) == TURNS


def test_a_gguf_names_its_templates_by_key(tmp_path: Path) -> None:
    named = {"tokenizer.chat_template.rag": "{{ 1 }}", "tokenizer.chat_template.default": "{{ 2 }}"}
    assert template.template_of({}, {"tokenizer.chat_template": TURNS, **named}) == TURNS
    assert template.template_of({}, named) == "{{ 2 }}"
    assert template.template_of(files(tmp_path, {"chat_template": TURNS}), named) == TURNS
    with pytest.raises(InputError, match="are named rag, and none is named default"):
        template.template_of({}, {"tokenizer.chat_template.rag": "{{ 1 }}"})


def test_answers_end_at_whatever_any_file_names(tmp_path: Path) -> None:
    small = files(tmp_path, generation_config__json={"eos_token_id": [7, 9], "pad_token_id": 3})
    settled = template.settle(small, CONFIG | {"eos_token_id": [8, 7], "bos_token_id": None})
    assert settled.ends == (7, 9, 8, tiny.EOS)
    assert (settled.bos, settled.pad) == (tiny.BOS, 3)
    assert settled.special == {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def test_special_tokens_map_counts_where_tokenizer_config_lists_no_added_tokens(tmp_path: Path) -> None:
    mapped = {"eos_token": {"content": "<pad>", "lstrip": False}}
    settled = template.settle(files(tmp_path, special_tokens_map__json=mapped), CONFIG)
    assert (settled.special["eos_token"], settled.ends) == ("<pad>", (tiny.EOS, 258))
    listed = files(tmp_path, {"added_tokens_decoder": {}}, special_tokens_map__json=mapped)
    assert template.settle(listed, CONFIG).ends == (tiny.EOS,)


def gguf(**fields: Any) -> dict[str, Any]:
    tokens = ["a", "<s>", "</s>", "<|eot_id|>", "<|im_end|>", "<|eot_id|>"]
    metadata = {"tokens": tokens, "token_type": [1, 3, 3, 3, 1, 3], "eos_token_id": 2, **fields}
    return {f"tokenizer.ggml.{name}": value for name, value in metadata.items()}


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({}, [2, 3]),  # <|im_end|> is an ordinary token there, and the second <|eot_id|> is never met
        ({"eot_token_id": 4, "eom_token_id": 0}, [2, 4, 0, 3]),
        ({"token_type": None}, [2, 3, 4]),
        ({"eos_token_id": None, "tokens": ["a", "b"], "token_type": [1, 1], "eot_token_id": 1}, [1]),
        ({"eot_token_id": 0xFFFFFFFF}, [2, 3]),
    ],
)
def test_a_gguf_ends_answers_as_llama_cpp_does(fields: dict[str, Any], ends: list[int]) -> None:
    assert template.gguf_ends(gguf(**fields)) == ends
    template.check({}, {"vocab_size": 6}, gguf(**fields))


def test_a_gguf_whose_end_is_no_token_is_refused() -> None:
    with pytest.raises(InputError, match=r"tokenizer.ggml.eot_token_id=6, and the model has 6 tokens"):
        template.check({}, {"vocab_size": 6}, gguf(eot_token_id=6))


def test_tokens_beyond_the_models_rows_are_refused_by_name(tmp_path: Path) -> None:
    extra = [(f"<x{n}>", tiny.VOCAB + n) for n in range(6)]
    small = files(tmp_path) | {"tokenizer.json": added(tmp_path, *extra)}
    with pytest.raises(InputError, match=r"'<x0>' \(id 259\).* and 2 more, .* 259 rows") as refused:
        check_vocabulary(small, CONFIG)
    assert "resize_token_embeddings" in str(refused.value.hint)
    check_vocabulary(small, CONFIG | {"vocab_size": 265})
    check_vocabulary(files(tmp_path), CONFIG | {"vocab_size": 5000})  # more rows than tokens


def test_ordinary_tokens_beyond_the_rows_are_refused_too() -> None:
    unigram = {"model": {"type": "Unigram", "vocab": [["<unk>", 0], ["a", -1], ["b", -2]]}}
    for model in (unigram, {"model": {"type": "BPE", "vocab": {"<unk>": 0, "a": 1, "b": 2}}}):
        with pytest.raises(InputError, match=r"'b' \(id 2\)"):
            check_vocabulary({"tokenizer.json": json.dumps(model).encode()}, {"vocab_size": 2})


def test_tokens_that_tokenizer_config_adds_are_looked_at(tmp_path: Path) -> None:
    entries = {"300": {"content": "<new>"}, "900": {"content": "</s>"}}  # the second one is 257 already
    with pytest.raises(InputError, match=r"tokenizer_config.json has '<new>' \(id 300\)"):
        check_vocabulary(files(tmp_path, {"added_tokens_decoder": entries}), CONFIG)
    with pytest.raises(InputError, match=r"added_tokens.json has '\[PAD\]' \(id 259\)"):
        check_vocabulary(files(tmp_path, added_tokens__json={"[PAD]": 259, "</s>": 1}), CONFIG)


@pytest.mark.parametrize(
    ("generation", "config", "message"),
    [
        ({"eos_token_id": [2, 259]}, {}, "generation_config.json has eos_token_id=259"),
        ({}, {"pad_token_id": 260}, "config.json has pad_token_id=260"),
        ({"bos_token_id": 300}, {}, "generation_config.json has bos_token_id=300"),
        ({"eos_token_id": "</s>"}, {}, "generation_config.json has eos_token_id='</s>'"),
    ],
)
def test_ids_that_the_model_lacks_are_refused_by_field(
    generation: dict[str, Any], config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    small = files(tmp_path, generation_config__json=generation)
    with pytest.raises(InputError, match=message):
        template.check(small, CONFIG | config)


def test_minus_one_names_no_token(tmp_path: Path) -> None:
    settled = template.settle(files(tmp_path), CONFIG | {"pad_token_id": -1})
    assert settled.pad == 258


def test_an_end_that_the_tokenizer_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"names the eos_token '<\|im_end\|>', and tokenizer.json has no such"):
        template.check(files(tmp_path, {"eos_token": "<|im_end|>"}), CONFIG)
    template.check(files(tmp_path, {"pad_token": "[PAD]"}), CONFIG)  # no text has it


@pytest.mark.parametrize(
    "broken", ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json"]
)
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff{}", b"[" * 100_000])
def test_files_that_are_no_json_are_refused_by_name(broken: str, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=broken.replace(".", r"\.")):
        template.check(files(tmp_path) | {broken: content}, CONFIG)
