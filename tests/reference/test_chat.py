"""Chats against transformers: the same text of each template, the same special tokens, the same ends of answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.chat_templates import ALIKE, TRIMMED, UNKNOWN
from trtbuild.compilers.text import Text
from trtbuild.networks.chat import files as chat_files
from trtbuild.networks.chat import template
from trtbuild.networks.chat.render import Chat, ChatError
from trtbuild.networks.chat.trial import CHATS

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.reference

TEMPLATES = ALIKE | TRIMMED | UNKNOWN
BOTH = {"bos_token": "<s>", "eos_token": "</s>"}


def saved(folder: Path, model: str = "Llama", **named: Any) -> Path:
    """A tiny tokenizer whose tokenizer_config.json is `named`, beside a config.json."""
    folder.mkdir(exist_ok=True)
    tiny.write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(tiny.config(f"{model}ForCausalLM")))
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def settled(folder: Path) -> template.ChatSettings:
    files = {path.name: path for path in folder.iterdir() if path.is_file()}
    return template.settle(files, json.loads((folder / "config.json").read_text()))


def rendered(tokenizer: Any, messages: Any, prompt: bool) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))
    except Exception:  # noqa: BLE001 - whatever it is, we have to fail, too
        return "failed"


@pytest.mark.parametrize("name", TEMPLATES)
def test_chats_are_rendered_as_transformers_does(name: str, tmp_path: Path) -> None:
    special = BOTH | {"pad_token": "<pad>"}
    folder = saved(tmp_path, tokenizer_class="PreTrainedTokenizerFast", chat_template=TEMPLATES[name], **special)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = Chat(TEMPLATES[name], settled(folder).special)
    for messages in CHATS.values():
        for prompt in (True, False):
            try:
                text = ours.render(messages, add_generation_prompt=prompt)
            except ChatError:
                text = "failed"
            assert text == rendered(theirs, [dict(m) for m in messages], prompt)


@pytest.mark.parametrize("model", ["Llama", "Mistral", "Qwen2", "Qwen3"])
@pytest.mark.parametrize(
    "named",
    [
        {"bos_token": "<s>", "eos_token": {"content": "</s>", "__type": "AddedToken"}, "pad_token": "<pad>"},
        {"bos_token": None, "eos_token": "</s>", "unk_token": None, "pad_token": None},
        {},
    ],
    ids=["all", "some", "none"],
)
@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "LlamaTokenizerFast", None])
def test_special_tokens_are_those_of_transformers(
    model: str, kind: str | None, named: dict[str, Any], tmp_path: Path
) -> None:
    folder = saved(tmp_path, model, **({"tokenizer_class": kind} if kind else {}), **named)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    known = {k: v for k, v in theirs.special_tokens_map.items() if k in named or v in vocabulary}
    assert settled(folder).special == known


@pytest.mark.parametrize("decoder", [True, False], ids=["with added tokens", "without"])
def test_special_tokens_map_counts_as_it_does_in_transformers(decoder: bool, tmp_path: Path) -> None:
    listed = {"added_tokens_decoder": {"256": {"content": "<s>", "special": True}}} if decoder else {}
    folder = saved(tmp_path, tokenizer_class="PreTrainedTokenizerFast", eos_token="</s>", **listed)  # noqa: S106
    mapped = {"eos_token": {"content": "<pad>", "lstrip": False, "normalized": False, "rstrip": False}}
    (folder / "special_tokens_map.json").write_text(json.dumps({**mapped, "bos_token": "<s>"}))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert settled(folder).special == theirs.special_tokens_map


@pytest.mark.parametrize(
    "beside",
    [
        {"chat_template.jinja": "file {{ messages[0].content }}\r\n"},
        {"chat_template.jinja": "{{ 1 }}", "additional_chat_templates/rag.jinja": "{{ 2 }}"},
        {"additional_chat_templates/default.jinja": "{{ 3 }}"},
        {"chat_template.json": json.dumps({"chat_template": "{{ 4 }}"})},
        {},
    ],
)
@pytest.mark.parametrize(
    "own", ["{{ 'own' }}", [{"name": "default", "template": "{{ 'd' }}"}, {"name": "x", "template": "x"}]]
)
def test_the_template_is_the_one_that_transformers_takes(beside: dict[str, str], own: object, tmp_path: Path) -> None:
    folder = saved(tmp_path, tokenizer_class="PreTrainedTokenizerFast", chat_template=own)
    for name, text in beside.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text.encode())
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    theirs = transformers.AutoTokenizer.from_pretrained(folder).get_chat_template()
    assert template.template_of(files) == theirs


@pytest.mark.parametrize("name", ["one line", *TRIMMED])
def test_a_folder_of_ours_is_read_alike_by_transformers_and_trtbuild(name: str, tmp_path: Path) -> None:
    config = tiny.config(eos_token_id=9)
    folder = saved(tmp_path / "a", tokenizer_class="PreTrainedTokenizerFast", **BOTH)
    (folder / "chat_template.jinja").write_text(TEMPLATES[name])
    before = transformers.AutoTokenizer.from_pretrained(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    written = chat_files.write(files, config, None, folder, genai=True)
    after = transformers.AutoTokenizer.from_pretrained(folder)
    assert not (folder / "chat_template.jinja").exists()
    for messages in CHATS.values():
        for prompt in (True, False):
            chats = [dict(m) for m in messages]
            assert rendered(after, chats, prompt) == rendered(before, chats, prompt)
    said = [{"role": "user", "content": "Hi"}]
    ids = after.apply_chat_template(said, add_generation_prompt=True)["input_ids"]
    assert Text(folder).encode("Hi", raw=False) == list(ids)
    ends = transformers.GenerationConfig.from_pretrained(folder).eos_token_id
    assert tuple(ends) == written.settled.ends == (9, tiny.EOS)
