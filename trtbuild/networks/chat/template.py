"""How a model is spoken to: its chat template, the tokens around a text and the ends of answers, settled once.

Every reader of an engine's folder then finds the same: `files` writes what is settled here. Standard library only:
the command line calls `check` on a checkpoint's small files before any weight is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtbuild import untrusted
from trtbuild.errors import InputError
from trtbuild.networks.chat import generation
from trtbuild.networks.tokenizer import added_tokens
from trtbuild.networks.tokenizer.special_tokens import (
    Small,
    check_vocabulary,
    ids_in,
    read_object,
    read_text,
    texts_of,
    united,
    vocabulary_of,
)

TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_FOLDER = "additional_chat_templates/"
PROCESSOR_FILE = "chat_template.json"
_CONFIG, _GENERATION = "tokenizer_config.json", "generation_config.json"
_GGUF = "tokenizer.chat_template"
#: Files whose `chat_template` nothing reads.
_MISPLACED = ("config.json", _GENERATION, "special_tokens_map.json")
_PLACE = f"write it to {TEMPLATE_FILE}, or as `chat_template` to {_CONFIG}"

#: Tokens that end an answer of a GGUF by their text (`special_eog_ids` in llama.cpp's src/llama-vocab.cpp).
#: Left out are those of tool calls and of code to fill in, and </s>, which a file names by its id.
GGUF_ENDS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<|end_of_text|>",
    "<end_of_utterance>",
)
_GGUF_END_KEYS = ("eos", "eot", "eom")
_GGUF_IDS = ("bos", *_GGUF_END_KEYS, "unknown", "padding")
_GGUF_NONE = 0xFFFFFFFF  # -1 as the file's unsigned number
_GGUF_CONTROL, _GGUF_USER_DEFINED = 3, 4  # gguf.TokenType

Metadata = Mapping[str, Any]


@dataclass(frozen=True)
class ChatSettings:
    """What one checkpoint says, after all its files were heard.

    `template` is Jinja (None: a base model, which continues a text). `special` maps `bos_token`, `eos_token`, … to
    their texts, as the template sees them. `ends` are the ids that end an answer. `bos` and `pad` are ids, or None.
    """

    template: str | None
    special: Mapping[str, str]
    ends: tuple[int, ...]
    bos: int | None
    pad: int | None


def check(files: Small, config: Mapping[str, Any], metadata: Metadata | None = None) -> None:
    """Refuse what the small files alone show to be wrong.

    `files` are a checkpoint's small files, `config` is its parsed config.json (or the one made of a GGUF's metadata)
    and `metadata` those of a GGUF. Raises InputError for a template that is misplaced, empty or lacks a default, for an
    id that the model has no row for, and for a beginning or an end that the tokenizer lacks.
    """
    template_of(files, metadata)
    generation.search(read_object(files, _GENERATION))
    tokenizer = read_object(files, "tokenizer.json")
    vocabulary = vocabulary_of(tokenizer)
    if metadata is not None:
        _check_gguf(metadata, config)
    check_vocabulary(files, config, vocabulary, own=metadata is None)
    if "tokenizer.json" in files:
        added_tokens.check(files, tokenizer, vocabulary)
        _check_special(files, config, vocabulary)


def settle(files: Small, config: Mapping[str, Any], metadata: Metadata | None = None) -> ChatSettings:
    """The template, the special tokens and the ends. Arguments and errors are those of `check`.

    `files` hold tokenizer.json and tokenizer_config.json. `ends` are, in this order: generation_config.json's,
    config.json's, the tokenizer's and a GGUF's own; the token that the template writes after an answer is added by
    `files`, which renders it. Nothing named at all leaves `ends` empty.
    """
    vocabulary = vocabulary_of(read_object(files, "tokenizer.json"))
    special = texts_of(
        read_object(files, _CONFIG),
        read_object(files, "special_tokens_map.json"),
        vocabulary,
        config.get("model_type"),
    )
    said = read_object(files, _GENERATION)
    tokens = {name: vocabulary.get(special.get(f"{name}_token", "")) for name in ("bos", "eos", "pad")}
    ends = united(
        ids_in(said, "eos_token_id", _GENERATION),
        ids_in(config, "eos_token_id", "config.json"),
        [] if tokens["eos"] is None else [tokens["eos"]],
        gguf_ends(metadata) if metadata is not None else [],
    )

    def one(name: str) -> int | None:
        field = f"{name}_token_id"
        named = [*ids_in(said, field, _GENERATION), *ids_in(config, field, "config.json")]
        return named[0] if named else tokens[name]

    return ChatSettings(template_of(files, metadata), special, ends, one("bos"), one("pad"))


def gguf_ends(metadata: Metadata) -> list[int]:
    """The ids that end an answer by a GGUF's metadata: eos, eot and eom, and what llama.cpp knows by its text."""
    tokens: Sequence[str] = metadata.get("tokenizer.ggml.tokens") or ()
    types: Sequence[int] = metadata.get("tokenizer.ggml.token_type") or ()
    named = [metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind in _GGUF_END_KEYS]
    first = {text: number for number, text in reversed(list(enumerate(tokens)))}
    spelt = [first[text] for text in GGUF_ENDS if text in first]
    if len(types) == len(tokens):  # an ordinary token of that spelling is never what a template writes
        spelt = [number for number in spelt if types[number] in (_GGUF_CONTROL, _GGUF_USER_DEFINED)]
    ids = [each for each in named if isinstance(each, int) and (not tokens or 0 <= each < len(tokens))]
    return list(united(ids, spelt))


def template_of(files: Small, metadata: Metadata | None = None) -> str | None:
    """The template of a chat without tools, as transformers 5.17 chooses it; None where there is none.

    chat_template.jinja goes before tokenizer_config.json's `chat_template`, which is a text or several by name; of
    several, `default` is taken (`_from_pretrained` and `get_chat_template` in tokenization_utils_base.py). A GGUF's own
    comes last. Raises InputError for one that is empty, misplaced, or without a default.
    """
    text = _in_files(files)
    if text is None and metadata is not None:
        text = _in_gguf(metadata)
    if text is None:
        _refuse_misplaced(files)
        return None
    template, where = text
    if not template.strip():
        raise InputError(
            f"the chat template in {where} is empty: every chat would be an empty prompt",
            option="model.source",
            hint=f"put the model's own template there, or take {where} away for a model that only continues text",
        )
    if "{{" not in template and "{%" not in template:
        raise InputError(
            f"the chat template in {where} holds no Jinja, so every chat would be the same text: {template[:60]!r}",
            option="model.source",
            hint=f"put the model's own template there: {_PLACE}",
        )
    return template.replace("\r\n", "\n").replace("\r", "\n")  # as Jinja reads it; onnxruntime-genai would keep them


def _in_files(files: Small) -> tuple[str, str] | None:
    """(template, where it is)."""
    beside = {
        name.removeprefix(TEMPLATE_FOLDER).removesuffix(".jinja"): read_text(files, name)
        for name in sorted(files)
        if name.startswith(TEMPLATE_FOLDER) and name.endswith(".jinja")
    }
    if TEMPLATE_FILE in files:
        text = read_text(files, TEMPLATE_FILE)
        _refuse_json(text)
        return beside.get("default", text), TEMPLATE_FILE
    if beside:
        return _default(beside, TEMPLATE_FOLDER), TEMPLATE_FOLDER
    return _value(read_object(files, _CONFIG).get("chat_template"), _CONFIG)


def _value(value: object, where: str) -> tuple[str, str] | None:
    """`chat_template` as JSON may hold it: a text, a list of {name, template}, or templates by name."""
    if value is None or isinstance(value, str):
        return None if value is None else (value, where)
    named = value
    if isinstance(value, list):
        if not all(isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in value):
            raise _refuse(where, "an entry of the list has no name")
        named = {each["name"]: each.get("template") for each in value}
    if not isinstance(named, Mapping):
        raise _refuse(where, f"it is {value!r}, and not a text")
    if not named:
        return None
    return _default(named, where), where


def _default(named: Mapping[str, Any], where: str) -> str:
    if "default" not in named:
        names = ", ".join(sorted(map(str, named)))
        raise InputError(
            f"the chat templates in {where} are named {names}, and none is named default",
            option="model.source",
            hint=f"name the one for plain chats default, or {_PLACE}",
        )
    if not isinstance(named["default"], str):
        raise _refuse(where, "the one named default is no text")
    return named["default"]


def _in_gguf(metadata: Metadata) -> tuple[str, str] | None:
    if metadata.get(_GGUF) is not None:
        return _value(metadata[_GGUF], _GGUF)
    named = {key.removeprefix(f"{_GGUF}."): value for key, value in metadata.items() if key.startswith(f"{_GGUF}.")}
    return (_default(named, f"{_GGUF}.<name>"), f"{_GGUF}.default") if named else None


def _refuse(where: str, why: str) -> InputError:
    return InputError(f"the chat_template in {where} cannot be read: {why}", option="model.source", hint=_PLACE)


def _refuse_json(text: str) -> None:
    """A JSON file that was renamed would be repeated word by word."""
    if not text.lstrip().startswith("{"):
        return
    try:
        held = untrusted.parse(text)
    except untrusted.MalformedJson:
        return
    if isinstance(held, dict) and "chat_template" in held:
        raise InputError(
            f"{TEMPLATE_FILE} holds JSON, and not a template",
            option="model.source",
            hint=f"write the text of its `chat_template` alone to {TEMPLATE_FILE}",
        )


def _refuse_misplaced(files: Small) -> None:
    """A template where no tokenizer reads it means that chats were wanted, and would come out as plain text."""
    for name in (PROCESSOR_FILE, *_MISPLACED):
        if name in files and b"chat_template" in _bytes(files, name) and read_object(files, name).get("chat_template"):
            reads = "processors of images alone read" if name == PROCESSOR_FILE else "nothing reads"
            raise InputError(
                f"the chat template is in {name}, where {reads} it",
                option="model.source",
                hint=_PLACE,
            )


def _bytes(files: Small, name: str) -> bytes:
    held = files[name]
    return held if isinstance(held, bytes) else held.read_bytes()


def _check_gguf(metadata: Metadata, config: Mapping[str, Any]) -> None:
    rows = config.get("vocab_size")
    for kind in _GGUF_IDS:
        key = f"tokenizer.ggml.{kind}_token_id"
        number = metadata.get(key)
        if isinstance(number, int) and isinstance(rows, int) and rows <= number < _GGUF_NONE:
            raise InputError(
                f"the GGUF file has {key}={number}, and the model has {rows} tokens",
                option="model.source",
                hint="convert the model again, with the tokenizer that belongs to it",
            )


def _check_special(files: Small, config: Mapping[str, Any], vocabulary: Mapping[str, int]) -> None:
    """transformers adds a bos or eos that the vocabulary lacks as a token of its own, which the model never saw."""
    given = read_object(files, _CONFIG)
    special = texts_of(given, read_object(files, "special_tokens_map.json"), vocabulary, config.get("model_type"))
    for name in ("bos_token", "eos_token"):
        text = special.get(name)
        if text is not None and text not in vocabulary:
            raise InputError(
                f"{_CONFIG} names the {name} {text!r}, and tokenizer.json has no such token",
                option="model.source",
                hint=f"name a token of tokenizer.json as {name}, or add it there with an id that the model has",
            )
