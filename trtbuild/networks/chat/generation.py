"""How answers are searched for by generation_config.json, in onnxruntime-genai's terms; checked by name and value.

Fields are those of transformers' GenerationConfig. Standard library only: the command line checks them when planning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trtbuild.errors import InputError


@dataclass(frozen=True)
class _Field:
    default: Any
    fits: Callable[[Any], bool]
    needed: str


def _number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31


_FIELDS: Mapping[str, _Field] = {
    "diversity_penalty": _Field(0.0, _number, "a number"),
    "do_sample": _Field(False, lambda value: isinstance(value, bool), "true or false"),
    "length_penalty": _Field(1.0, _number, "a number"),
    "no_repeat_ngram_size": _Field(0, lambda value: _whole(value) and value >= 0, "a whole number"),
    "num_beams": _Field(1, lambda value: _whole(value) and value > 0, "a whole number above 0"),
    "num_return_sequences": _Field(1, lambda value: _whole(value) and value > 0, "a whole number above 0"),
    "repetition_penalty": _Field(1.0, lambda value: _number(value) and value > 0, "a number above 0"),
    "temperature": _Field(1.0, lambda value: _number(value) and value >= 0, "a number of at least 0"),
    "top_k": _Field(50, _whole, "a whole number"),
    "top_p": _Field(1.0, lambda value: _number(value) and 0 <= value <= 1, "a number from 0 to 1"),
}


def search(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a parsed generation_config.json, with transformers' defaults for what it lacks. Raises InputError.

    `top_k` below 0 means off, as 0 does; an engine gives one answer, however many are asked for.
    """
    options = {}
    for name, field in _FIELDS.items():
        value = generation.get(name)
        if value is not None and not field.fits(value):
            raise InputError(
                f"generation_config.json has {name}={value!r}: {field.needed} is needed",
                option="model.source",
                hint=f"mend {name} in generation_config.json, or take it away",
            )
        options[name] = field.default if value is None else value
    return options | {"top_k": max(options["top_k"], 0), "num_return_sequences": 1}
