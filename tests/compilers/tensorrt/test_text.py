"""Text to tokens and back beside an engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import tiny
from trtbuild.compilers.sampling import end_tokens
from trtbuild.compilers.text import Text
from trtbuild.errors import BuildError, InputError

TEMPLATE = (
    "{{ bos_token }}\n{% for m in messages %}\n  <{{ m.role }}>{{ m.content }}{% endfor %}\n"
    "  {%- if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.write_tokenizer(tmp_path)
    return tmp_path


def with_template(folder: Path, template: object) -> Text:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    return Text(folder)


def readable(ids: list[int]) -> str:
    return "".join(chr(token) if token < 128 else f"[{token}]" for token in ids)


def test_a_prompt_is_one_turn_of_a_chat_where_there_is_a_template(folder: Path) -> None:
    text = with_template(folder, TEMPLATE)
    assert readable(text.encode("Hi", raw=False)) == f"[{tiny.BOS}]\n  <user>Hi<assistant>"  # as transformers trims
    assert readable(text.encode("Hi", raw=True)) == "Hi"


def test_templates_lie_in_a_list_or_in_a_file_of_their_own(folder: Path) -> None:
    named = [{"name": "tools", "template": "no"}, {"name": "default", "template": TEMPLATE}]
    assert readable(with_template(folder, named).encode("a", raw=False)).endswith("<user>a<assistant>")
    (folder / "chat_template.jinja").write_text("file: {{ messages[0].content }}")
    assert readable(Text(folder).encode("a", raw=False)) == "file: a"


def test_a_base_model_continues_the_text(folder: Path) -> None:
    assert readable(Text(folder).encode("Hi", raw=False)) == "Hi"


def test_special_tokens_of_another_file_count(folder: Path) -> None:
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": {"content": "</s>"}}))
    assert readable(with_template(folder, TEMPLATE).encode("a", raw=False)).startswith(f"[{tiny.EOS}]")


def test_templates_have_what_transformers_gives_them(folder: Path) -> None:
    template = "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}"
    said = readable(with_template(folder, template).encode("<é>", raw=False))
    assert said == '{"role": "user", "content": "<[195][169]>"}'


def test_a_template_says_why_it_refuses_a_chat(folder: Path) -> None:
    text = with_template(folder, "{{ raise_exception('a system turn is needed') }}")
    with pytest.raises(BuildError, match="cannot be applied: a system turn is needed"):
        text.encode("Hi", raw=False)


def test_a_broken_template_is_told_when_the_engine_is_opened(folder: Path) -> None:
    with pytest.raises(BuildError, match="not valid Jinja"):
        with_template(folder, "{% if %}")


def test_ends_are_what_generation_config_united(folder: Path) -> None:
    assert end_tokens(folder, [2]) == {2}
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 257]}')
    assert end_tokens(folder, [2]) == {7, 257}
    (folder / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(BuildError, match="eos_token_id='</s>'"):
        end_tokens(folder, [2])


def test_a_template_cannot_reach_out(folder: Path) -> None:
    text = with_template(folder, "{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(BuildError, match="chat template"):
        text.encode("Hi", raw=False)


def test_an_empty_prompt_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        Text(folder).encode("", raw=True)


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="tokenizer"):
        Text(tmp_path)


def test_text_streams_in_whole_characters(folder: Path) -> None:
    pieces: list[str] = []
    text = Text(folder)
    take = text.stream(pieces.append)
    for token in "a é 🐍".encode():
        take(token)
    assert "".join(pieces) == "a é 🐍"
    assert pieces[-1] == "🐍"
