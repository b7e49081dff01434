"""Reads single fields of a parsed config.json; what is wrong is said by the field's name and value.

As strict as transformers 5's config classes: `"true"` is no bool, 64.0 is no count, and null is no default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtbuild.errors import InputError

Config = Mapping[str, Any]  # a parsed config.json
MOST_LAYERS = 4096
#: The angles that `rope.cos_sin` is exact for end there: a frequency is at most 1.
MOST_POSITIONS = 1_600_000
_SHOWN = 120  # characters of a value: a list has one for each layer, or frequency
_LARGEST = 1e300  # a whole number in JSON may be too large for a float


def refuse(field: str, value: object, why: str, hint: str | None = None) -> InputError:
    """The error for a config field that this front end cannot honour."""
    shown = repr(value)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}…"
    return InputError(f"the model's config has {field}={shown}: {why}", option="model.source", hint=hint)


def is_number(value: object) -> bool:
    """JSON's true and false are no numbers, although Python says so."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(config: Config, field: str, default: float | None = None) -> float:
    """A positive number; `default` stands in for an absent field. Raises InputError, for null too."""
    value = config.get(field, default)
    if not is_number(value) or not 0 < value < _LARGEST:
        raise refuse(field, value, "a positive number is needed")
    return float(value)


def count(config: Config, field: str, default: int | None = None) -> int:
    """A positive whole number; `default` as in `number`. Raises InputError, also for 64.0."""
    value = config.get(field, default)
    if not isinstance(value, int):
        number(config, field, default)
        raise refuse(field, value, "a whole number is needed, without a decimal point")
    return int(number(config, field, default))


def flag(config: Config, field: str, default: bool) -> bool:
    """true or false; `default` stands in for an absent field. Raises InputError, for null and 0 too."""
    value = config.get(field, default)
    if not isinstance(value, bool):
        raise refuse(field, value, "true or false is needed")
    return value


def layers_of(config: Config, default: int | None = None) -> int:
    """`num_hidden_layers`, which lists are made of. Raises InputError for more than any decoder has."""
    layers = count(config, "num_hidden_layers", default)
    if layers > MOST_LAYERS:
        raise refuse("num_hidden_layers", layers, f"no decoder has more than {MOST_LAYERS} layers")
    return layers
