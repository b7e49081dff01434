"""Whether the tokenizer.json beside a GGUF is of the same model: each of its ids must be the token of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trtbuild.errors import InputError

_HINT = "put the tokenizer.json of the very model beside the GGUF that this was converted from"


def check(tokenizer: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Raises InputError for the first id at which tokenizer.json has another token than the GGUF's list.

    A GGUF without a list has nothing to be compared with. Tokens that the list alone has (padding) are no difference.
    """
    tokens: Sequence[str] = metadata.get("tokenizer.ggml.tokens") or ()
    if not tokens:
        return
    for number, text in sorted(_vocabulary(tokenizer)):
        if not 0 <= number < len(tokens):
            raise InputError(
                f"tokenizer.json has the token {text!r} with the id {number}, and the GGUF beside it has "
                f"{len(tokens)} tokens",
                option="model.source",
                hint=_HINT,
            )
        if tokens[number] != text:
            raise InputError(
                f"tokenizer.json has {text!r} as token {number}, and the GGUF beside it has {tokens[number]!r}",
                option="model.source",
                hint=_HINT,
            )


def _vocabulary(tokenizer: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """(id, text) of all tokens of a tokenizer.json: a mapping, or Unigram's list of [text, score]."""
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield from ((number, text) for text, number in vocabulary.items() if type(number) is int)
    elif isinstance(vocabulary, list):
        yield from ((number, str(each[0])) for number, each in enumerate(vocabulary) if isinstance(each, list) and each)
    for added in tokenizer.get("added_tokens") or ():
        if isinstance(added, dict) and type(added.get("id")) is int:
            yield added["id"], str(added.get("content"))
