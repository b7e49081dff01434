"""The types that GGUF metadata must have, by key: a file may hold a value of any type under any name.

Types are those of the GGUF specification (ggml/docs/gguf.md). Standard library only. A header's long arrays may stand
as ranges of their length: then what is in them is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from trtbuild.errors import InputError

_LARGEST = 3.4e38  # of float32, as which most numbers are stored


def check(metadata: Mapping[str, Any]) -> None:
    """Raises InputError for the first key whose value has another type than it must have."""
    name = str(metadata.get("general.architecture"))
    for key, value in metadata.items():
        rule = _RULES.get(f"*{key.removeprefix(name)}" if key.startswith(f"{name}.") else key)
        if rule is not None and value is not None and not rule[0](value):
            raise InputError(
                f"the GGUF file has {key}={_shown(value)}: {rule[1]} is needed",
                option="model.source",
                hint="convert the model again with a current llama.cpp",
            )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _counts(value: object) -> bool:
    """A count, or one for each layer."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and 0 not in values and all(map(_whole, values))


def _id(value: object) -> bool:
    """A token's number; -1 is none."""
    return value == -1 or _whole(value)


def _number(value: object) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value) and abs(value) < _LARGEST  # type: ignore[arg-type]


def _list_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, range) or (isinstance(value, list) and all(map(fits, value)))


def _text(value: object) -> bool:
    return isinstance(value, str)


def _flag(value: object) -> bool:
    return isinstance(value, bool)


_COUNT = (_counts, "a whole number above 0")
_NUMBER = (_number, "a number")
_ID = (_id, "a token's number")
_SWITCH = (_flag, "true or false")
_TEXT = (_text, "a text")
_TEXTS = (_list_of(_text), "a list of texts")
_RULES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "general.architecture": _TEXT,
    "split.count": (_whole, "a whole number"),
    **{
        f"*.{key}": _COUNT
        for key in (
            "context_length",
            "embedding_length",
            "feed_forward_length",
            "block_count",
            "vocab_size",
            "attention.head_count",
            "attention.head_count_kv",
            "attention.key_length",
            "attention.value_length",
            "rope.dimension_count",
            "rope.scaling.original_context_length",
        )
    },
    **{
        f"*.{key}": _NUMBER
        for key in (
            "attention.layer_norm_rms_epsilon",
            "rope.freq_base",
            "rope.scale_linear",
            "rope.scaling.factor",
            "rope.scaling.attn_factor",
            "rope.scaling.yarn_attn_factor",
            "rope.scaling.yarn_ext_factor",
            "rope.scaling.yarn_beta_fast",
            "rope.scaling.yarn_beta_slow",
        )
    },
    "*.rope.scaling.type": _TEXT,
    "tokenizer.ggml.model": _TEXT,
    "tokenizer.ggml.pre": _TEXT,
    "tokenizer.ggml.tokens": _TEXTS,
    "tokenizer.ggml.merges": _TEXTS,
    "tokenizer.ggml.token_type": (_list_of(_whole), "a list of whole numbers"),
    "tokenizer.ggml.scores": (_list_of(_number), "a list of numbers"),
    **{
        f"tokenizer.ggml.{name}_token_id": _ID
        for name in ("bos", "eos", "eot", "eom", "unknown", "padding", "seperator", "mask")
    },
    **{f"tokenizer.ggml.add_{name}": _SWITCH for name in ("bos_token", "eos_token", "space_prefix")},
}
