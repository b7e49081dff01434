"""What the network step writes of chats: one template and all ends, which all readers understand alike."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.networks.test_step import run_step
from tests.support import tiny
from tests.support.chat_templates import ALIKE, SEARCHED, TRIMMED, UNKNOWN
from trtbuild.errors import InputError
from trtbuild.networks.chat import files as chat_files
from trtbuild.networks.chat import template as chat
from trtbuild.networks.chat import trial
from trtbuild.networks.chat.render import Chat, ChatError, spelt_out, without_searches
from trtbuild.networks.chat.trial import CHATS, Rendered, try_out
from trtbuild.networks.genai import config as genai_config
from trtbuild.networks.tokenizer import convert, genai_text
from trtbuild.networks.weights.checkpoint import Checkpoint

CHATML = ALIKE["one line"]
NAMED = [{"name": "default", "template": CHATML}, {"name": "rag", "template": "{{ 1 }}"}]
CONFIG = tiny.config()


def folder(at: Path, config: dict[str, Any] | None = None, *tokens: str, **others: object) -> Path:
    """A folder with a tiny tokenizer, its tokenizer_config.json changed, `tokens` added, and others by name."""
    at.mkdir(exist_ok=True)
    tiny.write_tokenizer(at)
    given = json.loads((at / "tokenizer_config.json").read_text()) | (config or {})
    (at / "tokenizer_config.json").write_text(json.dumps(given))
    content = json.loads((at / "tokenizer.json").read_text())
    added = [
        {"id": tiny.VOCAB + n, "content": t, "special": True, "single_word": False, "normalized": False}
        | {"lstrip": False, "rstrip": False}
        for n, t in enumerate(tokens)
    ]
    (at / "tokenizer.json").write_text(json.dumps(content | {"added_tokens": content["added_tokens"] + added}))
    for name, held in others.items():
        text = held if isinstance(held, str) else json.dumps(held)
        (at / name.replace("__", ".")).write_text(text)
    return at


def write(at: Path, config: dict[str, Any] = CONFIG, **options: Any) -> chat_files.Written:
    """As after the tokenizer was copied: the checkpoint's files and the folder written to have the same bytes."""
    files = {path.name: path.read_bytes() for path in at.iterdir()}
    return chat_files.write(files, config, None, at, **options)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    "given",
    [
        {"config": {"chat_template": NAMED}},
        {"config": {"chat_template": "{{ 'old' }}"}, "chat_template__jinja": CHATML},
        {"chat_template__jinja": CHATML, "chat_template__json": {"chat_template": "{{ 1 }}"}},
    ],
    ids=["a list", "a file and a text", "two files"],
)
def test_one_template_is_left_and_it_is_a_text(given: dict[str, Any], tmp_path: Path) -> None:
    at = folder(tmp_path / "m", given.pop("config", None), **given)
    assert write(at).settled.template == CHATML
    assert read(at / "tokenizer_config.json")["chat_template"] == CHATML
    assert {path.name for path in at.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}


def test_a_folder_that_says_all_of_it_already_keeps_its_bytes(tmp_path: Path) -> None:
    at = folder(tmp_path / "m", {"chat_template": CHATML}, generation_config__json={"eos_token_id": [tiny.EOS, 9]})
    before = {path.name: path.read_bytes() for path in at.iterdir()}
    assert write(at, CONFIG | {"eos_token_id": 9}, genai=True).facts == {}
    assert {path.name: path.read_bytes() for path in at.iterdir()} == before


def test_ends_are_united_where_every_reader_looks(tmp_path: Path) -> None:
    at = folder(tmp_path / "m", {"chat_template": CHATML}, "<|im_end|>", "<|im_end|>x")
    settled = write(at, CONFIG | {"eos_token_id": 9}).settled
    assert settled.ends == (9, tiny.EOS, tiny.VOCAB)  # config.json's, the tokenizer's, the template's
    assert read(at / "generation_config.json") == {
        "bos_token_id": tiny.BOS,
        "eos_token_id": [9, tiny.EOS, tiny.VOCAB],
    }


def test_what_else_generation_config_says_stays(tmp_path: Path) -> None:
    at = folder(tmp_path / "m", generation_config__json={"top_k": 20, "eos_token_id": 9, "temperature": 0.6})
    write(at)
    assert read(at / "generation_config.json") == {
        "top_k": 20,
        "eos_token_id": [9, tiny.EOS],
        "temperature": 0.6,
    }


def test_an_end_is_assumed_only_where_none_is_named(tmp_path: Path) -> None:
    silent = CONFIG | {"eos_token_id": None}
    assert write(folder(tmp_path / "a"), silent, assumed=[2]).settled.ends == (tiny.EOS,)
    assert write(folder(tmp_path / "b", {"eos_token": None}), silent, assumed=[2]).settled.ends == (2,)


def test_special_tokens_of_another_file_reach_onnxruntime_genai(tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    mapped = {"eos_token": {"content": "<pad>"}, "bos_token": "<s>"}
    at = folder(tmp_path / "m", {"chat_template": template, "bos_token": None}, special_tokens_map__json=mapped)
    write(at, genai=True)
    with genai_text.opened(at) as convert:
        messages = json.dumps([{"role": "user", "content": "Hi"}])
        assert convert.apply_chat_template(messages=messages) == "<s>Hi<pad>"


@pytest.mark.parametrize("name", ALIKE)
def test_templates_that_onnxruntime_genai_renders_alike_are_left_alone(name: str, tmp_path: Path) -> None:
    at = folder(tmp_path / "m", {"chat_template": ALIKE[name]})
    written = write(at, genai=True)
    assert (written.settled.template, written.facts) == (ALIKE[name], {})


REWRITTEN = {**TRIMMED, **SEARCHED}


@pytest.mark.parametrize("name", REWRITTEN)
def test_a_template_is_said_so_that_onnxruntime_genai_renders_it(name: str, tmp_path: Path) -> None:
    at = folder(tmp_path / "m", {"chat_template": REWRITTEN[name]})
    written = write(at, genai=True)
    assert "rewritten" in written.facts["chat_template"]
    special = written.settled.special
    given, now = (
        Chat(REWRITTEN[name], special),
        Chat(read(at / "tokenizer_config.json")["chat_template"], special),
    )
    with genai_text.opened(at) as convert:
        for messages in CHATS.values():
            text = given.render(messages)
            assert now.render(messages) == text
            assert convert.apply_chat_template(messages=json.dumps(messages)) == text


@pytest.mark.parametrize("template", [*ALIKE.values(), *TRIMMED.values()])
def test_a_template_spelt_out_means_the_same_to_jinja(template: str) -> None:
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    given, other = Chat(template, special), Chat(spelt_out(template) or "", special)
    for messages in CHATS.values():
        for prompt in (True, False):
            texts = []
            for each in (given, other):
                try:
                    texts.append(each.render(messages, add_generation_prompt=prompt))
                except ChatError as error:
                    texts.append(f"failed: {error}")
            assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% if '</a>' in m.content %}", "{% if (m.content.split('</a>')|length > 1) %}"),
        ('{% if "<a>" not  in m["content"] %}', '{% if (m["content"].split("<a>")|length == 1) %}'),
        ("{% if '<a>' in messages[-1].content %}", "{% if (messages[-1].content.split('<a>')|length > 1) %}"),
        ("{% if 'role' in m %}", "{% if 'role' in m %}"),
        ("{% for m in messages %}", "{% for m in messages %}"),
        ("{% if '<a>' in m.content.lower() %}", "{% if '<a>' in m.content.lower() %}"),
    ],
)
def test_a_tag_is_looked_for_by_splitting(template: str, said: str) -> None:
    assert without_searches(template) == said


def test_a_text_that_onnxruntime_genai_renders_otherwise_is_refused(tmp_path: Path) -> None:
    """A search that is not said by splitting: the answer's thoughts would stay in the prompt."""
    searched = "{% if '</think>' in m.content.strip() %}thought{% else %}{{ m.content }}{% endif %}"
    at = folder(tmp_path / "m", {"chat_template": f"{{% for m in messages %}}{searched}{{% endfor %}}"})
    with pytest.raises(InputError, match="thought over") as refused:
        write(at, genai=True)
    assert "by Jinja" in refused.value.message


def test_raw_text_is_not_spelt_out() -> None:
    assert spelt_out("{% raw %}{{ x }}{% endraw %}{{ messages }}") is None


def test_a_template_that_onnxruntime_genai_cannot_render_is_refused(tmp_path: Path) -> None:
    at = folder(tmp_path / "m", {"chat_template": UNKNOWN["capitalized"]})
    with pytest.raises(InputError, match=r"does not render .* for one user turn .* it fails") as refused:
        write(at, genai=True)
    assert "aot_inductor" in str(refused.value.hint)
    assert write(at).settled.template == UNKNOWN["capitalized"]  # for compilers that render with Jinja


def test_a_chat_at_which_it_fails_is_in_the_record(tmp_path: Path) -> None:
    at = folder(tmp_path / "m", {"chat_template": UNKNOWN["replaced in system turns"]})
    failing = write(at, genai=True).facts["chats_not_rendered"]
    assert set(failing) == {
        f"a system and {turns} {prompt} the beginning of an answer"
        for turns in ("a user turn", "two user turns")
        for prompt in ("and", "without")
    }
    assert all("replace" in reason for reason in failing.values())


def test_a_template_that_is_rendered_otherwise_is_refused_with_both_texts(tmp_path: Path) -> None:
    # it knows of no pad_token
    template = "{% for m in messages %}<{{ m.content }}>{{ pad_token }}{% endfor %}"
    at = folder(tmp_path / "m", {"chat_template": template})
    with pytest.raises(InputError, match=r"for one user turn .* they differ: .* >', and .* ><pad>' by Jinja"):
        write(at, genai=True)


def test_what_jinja_refuses_and_onnxruntime_genai_renders_is_a_difference() -> None:
    rendered = Rendered("two user turns", True, None, "roles must alternate", "text", None)
    assert not rendered.equal
    assert Rendered("two user turns", True, None, "roles", None, "roles at row 3").equal


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}", r"not valid Jinja: .*endfor.*\(line 1\)"),
        ("{{ messages | no_such }}", "not valid Jinja: .*no_such"),
        ("{{ raise_exception('no users here') }}", "does not render one user turn .*: no users here"),
        ("{{ messages[0].content + 1 }}", "does not render one user turn .*: TypeError"),
        ("{{ messages.append(1) }}", "does not render one user turn .*: access to attribute 'append'"),
        (
            "{{ messages.__class__.__mro__ }}",
            "does not render one user turn .*: access to attribute '__class__'",
        ),
        ("{{ range(10**9) | list }}", "does not render one user turn .*: OverflowError"),
        ("{{ 'ab' * 9000000 }}", "more than 16777216 characters"),
    ],
)
def test_a_template_that_is_not_usable_is_told_by_its_error(template: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        write(folder(tmp_path / "m", {"chat_template": template}))


def test_a_template_that_runs_for_ever_is_stopped() -> None:
    template = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(InputError, match="takes more than 1 seconds"):
        try_out(template, {}, seconds=1)


def test_an_error_that_a_template_raises_is_told_in_part() -> None:
    tried = try_out("{{ raise_exception('ab' * 4000000) }}", {})
    assert all(each.error is not None and 100 < len(each.error) < 5000 for each in tried.rendered)


def test_a_template_sees_no_variable_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step may be given secrets by name: what renders a stranger's template is not."""
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    assert "HF_TOKEN" not in trial._environment()
    assert "PATH" in trial._environment()


@pytest.mark.parametrize(
    "template",
    [
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'].getcwd() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ ''|attr('__class__') }}{{ (''|attr('__class__')).mro() }}",
        "{{ '{0.__class__.__mro__}'.format('') }}{{ '%s' % messages.__class__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.getcwd() }}",
        "{{ joiner.__call__.__func__.__globals__ }}",
        "{{ '%999999999999d' % 1 }}",
    ],
)
def test_a_template_gets_at_nothing_and_ends(template: str) -> None:
    """By Jinja's sandbox: what cannot be had is an error, or no text."""
    tried = try_out(template, {}, seconds=10)
    for each in tried.rendered:
        assert each.error is not None or "class" not in (each.text or "")


@pytest.mark.parametrize("template", ["{{ 9 ** (9 ** 9) }}", "{{ ('a' * 30 + 'b') | urlize * 99999999 }}"])
def test_one_operation_that_takes_for_ever_is_stopped_or_refused(template: str) -> None:
    with suppress(InputError):
        tried = try_out(template, {}, seconds=1)
        assert all(each.error is not None for each in tried.rendered)


def test_a_template_that_asks_for_all_memory_fails() -> None:
    tried = try_out("{% set x = 'a' * 10**11 %}{{ messages }}", {})
    assert {each.error for each in tried.rendered} == {"MemoryError: MemoryError"}


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("<user>q<bot>It scatters 7f3a.<|im_end|>\n", [1]),
        ("It scatters 7f3a.<|im_end|>x", [2]),  # the longest token
        ("It scatters 7f3a.\n<|im_end|>", []),
        ("It scatters 7f3a.", []),
        ("<|im_end|>", []),
        (None, []),
    ],
)
def test_the_end_of_a_turn_is_the_token_right_after_the_answer(text: str | None, ends: list[int]) -> None:
    added = [
        {"content": "<|im_end|>", "id": 1},
        {"content": "<|im_end|>x", "id": 2},
        {"content": "", "id": 3},
    ]
    rendered = [
        Rendered("an answered turn", True, "It scatters 7f3a.<|im_end|>x", None),
        Rendered("an answered turn", False, text, None),
    ]
    assert chat_files.end_of_turn(rendered, {"added_tokens": added}) == ends


def metadata(**fields: Any) -> dict[str, Any]:
    """A GGUF's tokenizer, as files of Llama 3 Instruct have it: chats end with another token than texts."""
    tokens = [*tiny.byte_characters(), "<|begin|>", "<|end_of_text|>", "<|turn|>"]
    own = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "merges": [],
        "bos_token_id": 256,
        "eos_token_id": 257,
    }
    own |= {"token_type": [1] * 256 + [3] * 3, "eot_token_id": 258}
    template = "{% for m in messages %}{{ m.content }}<|end_of_text|>{% endfor %}"
    return {
        "general.architecture": "llama",
        "tokenizer.chat_template": template,
        "tokenizer.chat_template.tool_use": "{{ 1 }}",
        **{f"tokenizer.ggml.{name}": value for name, value in own.items()},
        **fields,
    }


@pytest.mark.parametrize("eot", [258, None], ids=["by its key", "by the template"])
def test_a_gguf_ends_a_text_and_a_turn(eot: int | None, tmp_path: Path) -> None:
    fields = metadata(**{"tokenizer.ggml.eot_token_id": eot})
    if eot is None:
        fields["tokenizer.chat_template"] = "{% for m in messages %}{{ m.content }}<|turn|>{% endfor %}"
    convert.write(Checkpoint({}, fields, {}, {}, {}), tmp_path)
    written = chat_files.write({}, {"eos_token_id": 257, "vocab_size": 259}, fields, tmp_path, genai=True)
    assert written.settled.ends == (257, 258)
    assert read(tmp_path / "generation_config.json")["eos_token_id"] == [257, 258]
    assert read(tmp_path / "tokenizer_config.json")["chat_template"] == fields["tokenizer.chat_template"]


def test_another_tools_genai_config_gets_the_same_tokens(tmp_path: Path) -> None:
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": {"eos_token_id": 2, "type": "phi3"}, "x": 1}))
    genai_config.put_tokens(tmp_path, chat.ChatSettings(None, {}, (2, 7), None, 3))
    model = {"eos_token_id": [2, 7], "type": "phi3", "pad_token_id": 3}
    assert read(tmp_path / "genai_config.json") == {"model": model, "x": 1}


def test_the_network_step_writes_one_template_and_all_ends(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model", eos_token_id=9, vocab_size=tiny.VOCAB + 1)
    folder(model, {"chat_template": NAMED}, "<|im_end|>")
    code, events, log = run_step(model, tmp_path / "out", network__operators="fused")
    assert code == 0, log
    assert "chats_not_rendered" not in events[-1]["facts"]
    assert read(tmp_path / "out/tokenizer_config.json")["chat_template"] == CHATML
    ends = [9, tiny.EOS, tiny.VOCAB]
    assert read(tmp_path / "out/genai_config.json")["model"]["eos_token_id"] == ends
    assert read(tmp_path / "out/generation_config.json")["eos_token_id"] == ends


def test_the_network_step_refuses_a_template_that_the_runtime_cannot_render(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model")
    folder(model, chat_template__jinja=UNKNOWN["capitalized"])
    code, events, _ = run_step(model, tmp_path / "out", network__operators="fused")
    assert code != 0
    assert (events[-1]["kind"], events[-1]["option"]) == ("input", "model.source")
    assert not (tmp_path / "out/model.onnx").exists()
    code, _, log = run_step(model, tmp_path / "standard", network__operators="standard")
    assert code == 0, log
