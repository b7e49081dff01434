"""Whether the small files of a tokenizer agree on its added tokens: tokenizer.json counts, and readers add the rest.

transformers adds what tokenizer_config.json, special_tokens_map.json or added_tokens.json name and tokenizer.json lacks
under ids that it makes up (`_from_pretrained` in tokenization_utils_base.py, 5.17), and takes the switches of each
token from `added_tokens_decoder`. An engine reads such tokens as plain text. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks.tokenizer.special_tokens import Small, added_of, read_object

_CONFIG, _MAP, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
_SWITCHES = ("lstrip", "rstrip", "single_word", "normalized")
_SAVE = (
    "write all of the tokenizer's files again: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER); then see "
    "that the model has a row for each token"
)


def check(files: Small, tokenizer: Mapping[str, Any], vocabulary: Mapping[str, int]) -> None:
    """Raises InputError for the first token on which the files disagree.

    `tokenizer` is the content of tokenizer.json, which takes long to parse, and `vocabulary` what it holds.
    """
    known = _known(tokenizer)
    config = read_object(files, _CONFIG)
    for text, where in _named(files, config):
        if text not in vocabulary:
            raise _refuse(f"{where} names the token {text!r}, and tokenizer.json has no such token")
    for number, entry in _decoder(config):
        text = entry["content"]
        if text not in vocabulary:
            raise _refuse(f"{_CONFIG} adds the token {text!r}, and tokenizer.json has no such token")
        if vocabulary[text] != number:
            raise _refuse(f"{_CONFIG} has {text!r} as token {number}, and tokenizer.json as {vocabulary[text]}")
        for switch in _SWITCHES:
            ours, theirs = known.get(text, {}).get(switch), entry.get(switch)
            if isinstance(ours, bool) and isinstance(theirs, bool) and ours != theirs:
                raise _refuse(
                    f"{_CONFIG} has {switch}={str(theirs).lower()} for the token {text!r}, and tokenizer.json "
                    f"{str(ours).lower()}"
                )


def _known(tokenizer: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Text -> entry of tokenizer.json's added tokens."""
    known: dict[str, Mapping[str, Any]] = {}
    for entry in added_of(tokenizer):
        text = entry["content"]
        if known.setdefault(text, entry)["id"] != entry["id"]:
            raise _refuse(f"tokenizer.json has the token {text!r} twice, as {known[text]['id']} and {entry['id']}")
    return known


def _decoder(config: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    decoder = config.get("added_tokens_decoder")
    for number, entry in decoder.items() if isinstance(decoder, dict) else ():
        if not str(number).isdecimal() or not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise _refuse(f"{_CONFIG} has an entry in added_tokens_decoder that is none: {number!r}")
        yield int(number), entry


def _named(files: Small, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(text, file) of the tokens that are named beside those for beginning, ending and filling."""
    for name, held in ((_CONFIG, config), (_MAP, read_object(files, _MAP))):
        for field in ("additional_special_tokens", "extra_special_tokens"):
            value = held.get(field)
            entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            for entry in entries:
                text = entry.get("content") if isinstance(entry, dict) else entry
                if isinstance(text, str):
                    yield text, name
    yield from ((text, _ADDED) for text in read_object(files, _ADDED))


def _refuse(message: str) -> InputError:
    return InputError(message, option="model.source", hint=_SAVE)
