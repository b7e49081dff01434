"""The tokens that tokenizer.json puts before and after every text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def around(content: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """The ids before and after a text by the post-processor in `content` (tokenizer.json), which decides alone.

    transformers 5 passes over `add_bos_token` and `add_eos_token` of tokenizer_config.json where there is a
    tokenizer.json (PreTrainedTokenizerBase._from_pretrained in tokenization_utils_base.py). The kinds are those of
    tokenizers/src/processors; the first of a Sequence stands nearest to the text.
    """
    before: list[int] = []
    after: list[int] = []
    for step in flat(content.get("post_processor"), "processors"):
        first, last = _ids(step)
        before, after = first + before, after + last
    return before, after


def flat(step: Any, key: str) -> list[Mapping[str, Any]]:
    """The steps of a Sequence within Sequences, in order; `key` is what such a Sequence calls them."""
    if not isinstance(step, dict):
        return []
    if step.get("type") == "Sequence":
        return [inner for one in step.get(key, []) for inner in flat(one, key)]
    return [step]


def _ids(step: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    if step.get("type") in ("BertProcessing", "RobertaProcessing"):
        return [int(step["cls"][1])], [int(step["sep"][1])]
    if step.get("type") != "TemplateProcessing":
        return [], []
    sides: tuple[list[int], list[int]] = ([], [])
    seen = 0
    for piece in step.get("single", []):
        if "SpecialToken" in piece:
            sides[seen].extend(step["special_tokens"][piece["SpecialToken"]["id"]]["ids"])
        else:
            seen = 1
    return sides
