"""The tokens that tokenizer.json puts before and after every text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtbuild.errors import InputError


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
        inside = step.get(key)
        return [inner for one in (inside if isinstance(inside, list) else []) for inner in flat(one, key)]
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
            sides[seen].extend(_special(step, piece["SpecialToken"]["id"]))
        else:
            seen = 1
    return sides


def _special(step: Mapping[str, Any], name: str) -> list[int]:
    known = step.get("special_tokens", {})
    if name not in known:
        raise InputError(
            f"tokenizer.json puts {name!r} around each text, and its post_processor does not say which token that is",
            option="model.source",
            hint="write it again: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    return list(known[name]["ids"])
