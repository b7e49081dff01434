"""Reads single fields of a parsed config.json; what is wrong is said by the field's name and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtbuild.errors import InputError

Config = Mapping[str, Any]  # a parsed config.json


def refuse(field: str, value: object, why: str, hint: str | None = None) -> InputError:
    """The error for a config field that this front end cannot honour."""
    return InputError(f"the model's config has {field}={value!r}: {why}", option="model.source", hint=hint)


def number(config: Config, field: str, default: float | None = None) -> float:
    """A positive number; `default` stands in for an absent or null field. Raises InputError."""
    value = config.get(field, default)
    if value is None and default is not None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise refuse(field, value, "a positive number is needed")
    return float(value)


def count(config: Config, field: str, default: int | None = None) -> int:
    """A positive whole number; `default` as in `number`. Raises InputError."""
    value = number(config, field, default)
    if value != int(value):
        raise refuse(field, value, "a whole number is needed")
    return int(value)
