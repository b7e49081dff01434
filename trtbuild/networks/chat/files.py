"""Writes what `template` settled into a folder with a tokenizer, in the one way that all its readers understand alike.

tokenizer_config.json    one `chat_template`, a text, and the special tokens that count; no other file has a template
generation_config.json   `eos_token_id` with all ends of answers

So transformers, vLLM, onnxruntime-genai (which reads neither lists nor special_tokens_map.json) and trtbuild's own
`Text` make the same prompt of a chat, and end answers at the same tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks.chat import template
from trtbuild.networks.chat.template import ChatSettings
from trtbuild.networks.chat.trial import ANSWER, Rendered, try_out
from trtbuild.networks.tokenizer.special_tokens import Small, added_of, ids_in, read_object, united

_TOKENIZER, _CONFIG, _GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
_ONE_TURN, _ANSWERED = "one user turn", "an answered turn"  # of CHATS
_SHOWN = 60  # characters of a text that an error shows


@dataclass(frozen=True)
class Written:
    """What was settled, and what a record says of it: only what is unusual."""

    settled: ChatSettings
    facts: Mapping[str, Any]


def write(
    files: Small,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any] | None,
    out: Path,
    *,
    genai: bool = False,
    assumed: Sequence[int] = (),
    keep: bool = False,
) -> Written:
    """Settle a checkpoint's chats in the folder `out`, which has its tokenizer and config files already.

    `files`, `config` and `metadata` are as for `template.check`. With `genai` the folder is for onnxruntime-genai,
    whose rendering of some chats is compared with Jinja's. `assumed` ends answers where nothing is named. With `keep`
    the ends alone are written: templates stay, for transformers, which knows those for tools by their names.
    Raises InputError for a template that cannot be used, or that onnxruntime-genai renders otherwise. A chat at which
    it fails is a fact for the record, as a user is told of it there and then; one user turn it has to render.
    """
    settled = template.settle(_beside(files, out), config, metadata)
    if not keep:
        _write_template(settled, out)
    facts: dict[str, Any] = {}
    if settled.template is not None:
        tried = try_out(settled.template, settled.special, out if genai else None)
        if not keep:
            _check(tried.rendered, genai=genai)
        if tried.template != settled.template:
            settled = replace(settled, template=tried.template)
            _write_template(settled, out)
            facts["chat_template"] = "rewritten for onnxruntime-genai, with the same meaning to Jinja"
        if genai and (failing := [each for each in tried.rendered if not each.equal]):
            facts["chats_not_rendered"] = {_described(each): each.engine_error for each in failing}
        turn = end_of_turn(tried.rendered, read_object({_TOKENIZER: out / _TOKENIZER}, _TOKENIZER))
        settled = replace(settled, ends=united(settled.ends, turn))
    settled = replace(settled, ends=settled.ends or tuple(assumed))
    _write_ends(settled, config, out)
    return Written(settled, facts)


def end_of_turn(rendered: Sequence[Rendered], tokenizer: Mapping[str, Any]) -> list[int]:
    """The token that a template writes right after an answer, if it is one of the tokenizer's added tokens."""
    text = next((r.text for r in rendered if r.chat == _ANSWERED and not r.prompt), None) or ""
    _, marker, after = text.rpartition(ANSWER)
    fitting = [token for token in added_of(tokenizer) if token["content"] and after.startswith(token["content"])]
    if not marker or not fitting:
        return []
    return [int(max(fitting, key=lambda token: len(token["content"]))["id"])]


def _beside(files: Small, out: Path) -> Small:
    """The checkpoint's small files, and the tokenizer that was written of them."""
    made = {name: out / name for name in (_CONFIG,) if (out / name).is_file()}
    return {**made, **files, _TOKENIZER: out / _TOKENIZER}


def _write_template(settled: ChatSettings, out: Path) -> None:
    given = read_object({_CONFIG: out / _CONFIG}, _CONFIG)
    wanted = {name: held for name, held in given.items() if name != "chat_template"}
    for name, text in settled.special.items():
        if _text(given.get(name)) != text:
            wanted[name] = text
    if settled.template is not None:
        wanted["chat_template"] = settled.template
    for other in (template.TEMPLATE_FILE, template.PROCESSOR_FILE):
        (out / other).unlink(missing_ok=True)
    if wanted != given:
        _write_json(out / _CONFIG, wanted)


def _text(token: object) -> object:
    return token.get("content") if isinstance(token, Mapping) else token


def _write_ends(settled: ChatSettings, config: Mapping[str, Any], out: Path) -> None:
    """Left as it is where it names the same ends already, in whatever order."""
    path = out / _GENERATION
    given = read_object({_GENERATION: path}, _GENERATION) if path.is_file() else None
    named = ids_in(config if given is None else given, "eos_token_id", _GENERATION)
    if set(named) == set(settled.ends):
        return
    if given is None:  # what transformers makes of a config where there is no such file
        given = {name: config[name] for name in ("bos_token_id", "pad_token_id") if config.get(name) is not None}
    ends = list(settled.ends)
    _write_json(path, {**given, "eos_token_id": ends[0] if len(ends) == 1 else ends})


def _check(rendered: Sequence[Rendered], *, genai: bool) -> None:
    for each in rendered:
        if each.chat == _ONE_TURN and each.text is None:
            raise InputError(
                f"the model's chat template does not render {_described(each)}: {each.error}",
                option="model.source",
                hint="mend the template; transformers' apply_chat_template tries one out",
            )
    wrong = [each for each in rendered if genai and not each.equal]
    silent = (each for each in wrong if each.engine_text is not None or each.chat == _ONE_TURN)
    if (other := next(silent, None)) is not None:
        raise InputError(
            f"onnxruntime-genai does not render the model's chat template as Jinja does, for {_described(other)}: "
            + _difference(other),
            option="model.source",
            hint="compiler=aot_inductor and compiler=tensorrt render it with Jinja; or write the template in simpler "
            "words that mean the same",
        )


def _described(each: Rendered) -> str:
    return f"{each.chat} {'and' if each.prompt else 'without'} the beginning of an answer"


def _difference(each: Rendered) -> str:
    if each.engine_text is None:
        return f"it fails ({each.engine_error})"
    if each.text is None:
        return f"it writes {each.engine_text[:_SHOWN]!r}, and Jinja fails ({each.error})"
    pairs = enumerate(zip(each.text, each.engine_text, strict=False))
    at = next((at for at, (a, b) in pairs if a != b), min(len(each.text), len(each.engine_text)))
    begin = max(0, at - _SHOWN // 3)
    texts = [text[begin : begin + _SHOWN] for text in (each.engine_text, each.text)]
    return f"from character {at} on they differ: {texts[0]!r}, and {texts[1]!r} by Jinja"


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
