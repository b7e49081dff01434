"""Which tokens begin, end and pad a text, from the files of a tokenizer and of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trtbuild.errors import InputError


def vocabulary_of(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id by tokenizer.json, added tokens included; of a Unigram model, whose tokens are a list, only those."""
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    tokens = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    return tokens | {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}


def special_of(tokenizer: Mapping[str, Any], vocabulary: Mapping[str, int]) -> dict[str, int | None]:
    """The ids of `bos`, `eos` and `pad` by tokenizer_config.json, None where it names none."""
    special = {}
    for name in ("bos", "eos", "pad"):
        token = tokenizer.get(f"{name}_token")
        special[name] = vocabulary.get(str(token["content"] if isinstance(token, dict) else token))
    return special


def named_ends(generation: Mapping[str, Any], own: Sequence[int], special: int | None) -> list[int]:
    """What ends a text by generation_config.json, else the model's `own`, else the tokenizer's `special`.

    Raises InputError where none is named.
    """
    said = generation.get("eos_token_id")
    found = list(own) if said is None else said if isinstance(said, list) else [said]
    if found:
        return found
    if special is None:
        raise InputError(
            "the checkpoint names no end-of-text token (eos_token_id), so an answer would never end",
            option="model.source",
            hint="add eos_token_id to its config.json or generation_config.json",
        )
    return [special]


def ends_of_answers(named: Sequence[int], special: int | None) -> list[int]:
    """An answer ends with the tokenizer's EOS, too, and first.

    Chat models end a turn with it, while config.json often names <|endoftext|> alone.
    """
    return list(named) if special is None or special in named else [special, *named]
