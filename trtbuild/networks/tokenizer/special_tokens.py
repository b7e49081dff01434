"""Which tokens begin, end and pad a text, and which ids a vocabulary has: from a checkpoint's small files alone.

Standard library only: the command line asks these questions before any weight is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.errors import InputError

#: Logical name -> what the file holds, or where it is.
Small = Mapping[str, bytes | Path]
Json = dict[str, Any]

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_GPT2 = "<|endoftext|>"
#: What a class of transformers 5.17 has where its files name nothing (`__init__` of each tokenizer).
_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "Qwen2Tokenizer": {"eos_token": _GPT2, "unk_token": _GPT2, "pad_token": _GPT2},
    "GPT2Tokenizer": {"bos_token": _GPT2, "eos_token": _GPT2, "unk_token": _GPT2},
}
#: Model types whose tokenizer transformers chooses without looking at `tokenizer_class`; None has no defaults.
_OWN_CLASS: Mapping[str, str | None] = {"qwen2": "Qwen2Tokenizer", "mistral": None}
_RESIZE = (
    "give the model a row for each token and save it again: "
    "model.resize_token_embeddings(len(tokenizer)); model.save_pretrained(FOLDER); or take the tokens out of {file}"
)


def read_object(files: Small, name: str) -> Json:
    """The JSON object in the file `name`, {} where there is no such file. Raises InputError."""
    if name not in files:
        return {}
    return untrusted.json_object(read_text(files, name), name)


def read_text(files: Small, name: str) -> str:
    """The text of the file `name`; lines end in one newline, as in Python's text mode. Raises InputError."""
    held = files[name]
    try:
        text = (held if isinstance(held, bytes) else held.read_bytes()).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{name} is not valid UTF-8", option="model.source") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def vocabulary_of(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id by tokenizer.json, added tokens included. A Unigram model lists its tokens in order of their ids."""
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocabulary, list):
        tokens = {
            entry[0]: number
            for number, entry in enumerate(vocabulary)
            if isinstance(entry, list) and entry and isinstance(entry[0], str)
        }
    else:
        tokens = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    return tokens | {token["content"]: token["id"] for token in added_of(tokenizer)}


def added_of(tokenizer: Mapping[str, Any]) -> list[Json]:
    """The entries of `added_tokens` that have a content and an id."""
    added = tokenizer.get("added_tokens")
    entries = [token for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    return [t for t in entries if isinstance(t.get("content"), str) and isinstance(t.get("id"), int)]


def texts_of(
    config: Mapping[str, Any],
    special: Mapping[str, Any],
    vocabulary: Mapping[str, int],
    model_type: object = None,
) -> dict[str, str]:
    """`bos_token`, `eos_token`, … -> its text, as transformers 5.17 has them of a tokenizer of these files.

    `config` is tokenizer_config.json, `special` special_tokens_map.json, which counts only where the former has no
    added_tokens_decoder (`_from_pretrained` in tokenization_utils_base.py). The default of a tokenizer's class
    counts where the vocabulary has that token.
    """
    named = dict(config) if "added_tokens_decoder" in config else {**config, **special}
    defaults = _DEFAULTS.get(_class_of(config, model_type) or "", {})
    texts = {}
    for name in _NAMES:
        token = named[name] if name in named else defaults.get(name)
        text = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(text, str) and text and (name in named or text in vocabulary):
            texts[name] = text
    return texts


def _class_of(config: Mapping[str, Any], model_type: object) -> str | None:
    if model_type in _OWN_CLASS:
        return _OWN_CLASS[str(model_type)]
    named = config.get("tokenizer_class")
    if named is None:
        return "Qwen2Tokenizer" if model_type == "qwen3" else None
    return str(named).removesuffix("Fast")


def ids_in(config: Mapping[str, Any], field: str, file: str) -> list[int]:
    """One token's id or several: a number, a list or nothing; below zero means none. Raises InputError."""
    value = config.get(field)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(each, bool) or not isinstance(each, int) for each in ids):
        raise InputError(
            f"{file} has {field}={value!r}: a token's number, or a list of such, is needed",
            option="model.source",
        )
    return [each for each in ids if each >= 0]


def united(*named: Sequence[int]) -> tuple[int, ...]:
    """All of these ids, each once, in the order in which they are first named."""
    return tuple(dict.fromkeys(each for ids in named for each in ids))


def no_end() -> InputError:
    """The error for a checkpoint that names nothing that ends a text."""
    return InputError(
        "the checkpoint names no end-of-text token (eos_token_id), so an answer would never end",
        option="model.source",
        hint="add eos_token_id to its config.json or generation_config.json",
    )


def check_vocabulary(
    files: Small, config: Mapping[str, Any], vocabulary: Mapping[str, int] | None = None, *, own: bool = True
) -> None:
    """Every id that a text or a setting can name has a row in the model's embedding, `vocab_size` of them.

    `files` are the small files, `config` the parsed config.json, `vocabulary` that of tokenizer.json if it was read
    already. With `own` the ids in `config` are looked at, too. A model with more rows than tokens is usual. Raises
    InputError that names the token, its id and the number of rows.
    """
    rows = _rows(config)
    if rows is None:
        return
    _check_fields(read_object(files, "generation_config.json"), "generation_config.json", rows)
    if own:
        _check_fields(config, "config.json", rows)
    if vocabulary is None:
        vocabulary = vocabulary_of(read_object(files, "tokenizer.json"))
    beyond = {token: (number, file) for token, number, file in _tokens(files, vocabulary) if number >= rows}
    if not beyond:
        return
    shown = [f"{token!r} (id {number})" for token, (number, _) in sorted(beyond.items(), key=lambda t: t[1])[:4]]
    more = f" and {len(beyond) - len(shown)} more" if len(beyond) > len(shown) else ""
    file = min(beyond.values())[1]
    raise InputError(
        f"{file} has {', '.join(shown)}{more}, and the model has {rows} rows in its embedding (vocab_size): "
        f"it cannot read a text with {'such a token' if len(beyond) > 1 else 'this token'}",
        option="model.source",
        hint=_RESIZE.format(file=file),
    )


def _check_fields(config: Mapping[str, Any], file: str, rows: int) -> None:
    for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
        for number in ids_in(config, field, file):
            if number >= rows:
                raise InputError(
                    f"{file} has {field}={number}, and the model has {rows} rows in its embedding (vocab_size): "
                    f"its last token is {rows - 1}",
                    option="model.source",
                    hint=f"correct {field} in {file}, or save the model with a row for this token",
                )


def _rows(config: Mapping[str, Any]) -> int | None:
    rows = config.get("vocab_size")
    if rows is None and isinstance(config.get("text_config"), Mapping):
        rows = config["text_config"].get("vocab_size")
    return rows if isinstance(rows, int) and not isinstance(rows, bool) else None


def _tokens(files: Small, vocabulary: Mapping[str, int]) -> Iterator[tuple[str, int, str]]:
    """(token, id, file) of whatever a reader of these files takes for a token."""
    for token, number in vocabulary.items():
        if isinstance(number, int):
            yield token, number, "tokenizer.json"
    # onnxruntime-genai and transformers add what tokenizer.json lacks of these.
    decoder = read_object(files, "tokenizer_config.json").get("added_tokens_decoder")
    if isinstance(decoder, dict):
        for number, entry in decoder.items():
            text = entry.get("content") if isinstance(entry, dict) else None
            if isinstance(text, str) and text not in vocabulary and str(number).isdecimal():
                yield text, int(number), "tokenizer_config.json"
    else:
        for text, number in read_object(files, "added_tokens.json").items():
            if text not in vocabulary and isinstance(number, int):
                yield text, number, "added_tokens.json"
