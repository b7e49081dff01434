"""JSON that has one spelling: written as RFC 8785 says, read back without tolerance."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import rfc8785

from trtstore.errors import Invalid, Malformed

MAX_INTEGER = 2**53 - 1  # what each program that reads JSON can count
MAX_DEPTH = 100  # of objects and lists in one another: every Python reads, compares and writes as many
MAX_NUMBER = 400  # characters: the longest float that a program may write out in full has fewer
_MAX_WHOLE = 22  # characters of a number without a point: RFC 8785 writes whole floats below 1e21 so

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff")  # one level in, one out, as signed bytes
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_PLAIN_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9]")
_FOUR_BYTES = re.compile(rb"[\xf0-\xff]")  # what begins a character beyond U+FFFF

Json = Any  # a value that json.loads can return


def canonical(value: Json) -> bytes:
    """The canonical bytes of `value` (RFC 8785). Raises ValueError where JSON has no spelling for it."""
    try:
        return rfc8785.dumps(value)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def plain(value: Any, what: str) -> Json:
    """`value` with every mapping as a dict and every sequence as a list. Raises Invalid naming the place."""
    try:
        return _plain(value, what)
    except RecursionError:
        raise Invalid(f"{what} is nested too deeply, or holds itself") from None


def _plain(value: Any, what: str) -> Json:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise Invalid(f"{what} has the key {name!r}, and JSON's keys are text")
        return {name: _plain(inner, f"{what}.{name}") for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(inner, f"{what}[{place}]") for place, inner in enumerate(value)]
    raise Invalid(f"{what} is a {type(value).__name__}, which JSON cannot hold")


def parse(data: bytes, what: str) -> Json:
    """The value of UTF-8 JSON text. Raises Malformed.

    Refused are a name given twice, NaN, a number that no float holds or that has too many digits, half of a surrogate
    pair, and more than MAX_DEPTH objects and lists in one another. So nobody who reads, compares, prints or writes the
    value meets an error of Python's own.
    """
    return _parse(data, what, _float)


def _parse(data: bytes, what: str, parse_float: Callable[[str], float]) -> Json:
    try:
        _check_depth(data)
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=parse_float,
        )
        if _SURROGATE.search(data) is not None:
            json.dumps(value, ensure_ascii=False).encode()  # a whole pair is one character by now
    except UnicodeEncodeError:
        raise Malformed(f"{what} is not strict JSON: it holds half of a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what} is not strict JSON: {error}") from None
    return value


def _check_depth(data: bytes) -> None:
    """Raise ValueError where objects and lists are nested deeper than MAX_DEPTH; of no JSON it may say anything."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    steps = memoryview(_STRING.sub(b"", data).translate(_STEPS, _OTHERS)).cast("b")
    if max(accumulate(steps), default=0) > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def parse_canonical(data: bytes, what: str) -> Json:
    """As `parse`, and `data` must be the canonical spelling: one value, one digest. Raises Malformed."""
    floats: list[str] = []

    def parse_float(text: str) -> float:
        floats.append(text)
        return _float(text)

    value = _parse(data, what, parse_float)
    try:
        same = _is_surely_canonical(value, data, floats) or canonical(value) == data
    except ValueError as error:
        raise Malformed(f"{what} has no canonical form: {error}") from None
    if not same:
        raise Malformed(f"{what} is not canonical JSON (RFC 8785)")
    return value


def _is_surely_canonical(value: Json, data: bytes, floats: Sequence[str]) -> bool:
    """Whether the quick encoder of the standard library shows that `data` is canonical; False may mean either.

    It differs from RFC 8785 in the order of names beyond U+FFFF, which take four bytes of UTF-8, and in floats that
    one of them writes with an exponent or as a whole number. Where there is neither, the two agree, and a record is
    read four times as quickly.
    """
    if any(_PLAIN_FLOAT.fullmatch(text) is None for text in floats) or _FOUR_BYTES.search(data):
        return False
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode() == data
    except (ValueError, RecursionError):
        return False


def fields(value: Json, what: str, kinds: Mapping[str, type]) -> dict[str, Json]:
    """`value` as an object with exactly the fields of `kinds`, each of exactly that type. Raises Malformed."""
    if type(value) is not dict or value.keys() != kinds.keys():
        raise Malformed(f"{what} must be an object with the fields {', '.join(sorted(kinds))}")
    for name, kind in kinds.items():
        # `type is`, for True is an int to isinstance.
        if type(value[name]) is not kind:
            raise Malformed(f"{what}.{name} must be a {kind.__name__}")
    return value


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name is given twice in one object")
    return fields


def _integer(text: str) -> int | float:
    """RFC 8785 writes floats below 1e21 without a point; those that no int of JSON can be are read as floats."""
    if len(text) > _MAX_WHOLE:
        raise ValueError(f"a number has {len(text)} digits")
    value = int(text)
    return value if abs(value) <= MAX_INTEGER else float(value)


def _float(text: str) -> float:
    if len(text) > MAX_NUMBER:
        raise ValueError(f"a number has {len(text)} characters")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:30]} is out of range")
    return value


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is no JSON number")
