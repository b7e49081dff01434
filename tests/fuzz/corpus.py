"""Values that no program expects, as text of JSON, and whole files of the kind: the data of the tests of readers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

DEEP = 90  # levels that every parser of ours still takes

#: Those that strict and canonical JSON can hold: a record with one of them is a record.
LAWFUL = {
    "null": "null",
    "true": "true",
    "a list": "[]",
    "an object": "{}",
    "no text": '""',
    "a text": '"7"',
    "zero": "0",
    "minus one": "-1",
    "the largest integer": "9007199254740991",
    "the largest float": "1.7976931348623157e+308",
    "the smallest float": "5e-324",
    "below zero and large": "-1e+300",
    "a nest": "[" * DEEP + "]" * DEEP,
    "objects in one another": '{"a":' * DEEP + "1" + "}" * DEEP,
    "a list of all kinds": '[null,true,1,"1",[],{}]',
    "an escape sequence": '"\\u001b[2J\\u001b]0;x\\u0007"',
    "text from right to left": '"\u202egnp.exe"',
    "a NUL": '"a\\u0000b"',
    "a path that leads out": '"../../../../etc/passwd"',
    "a long text": '"' + "x" * 50_000 + '"',
    "lines": '"a\\nerror: forged\\r"',
    "other digits": '"١٢٣"',
}
#: Those that are refused wherever they stand.
UNLAWFUL = {
    "an integer of 400 digits": "1" + "0" * 400,
    "an integer of 5000 digits": "9" * 5000,
    "minus 400 digits": "-1" + "0" * 400,
    "a float beyond all": "1e999",
    "a float of 400 digits": "1" + "0" * 400 + ".5",
    "NaN": "NaN",
    "infinity": "-Infinity",
    "half of a pair": '"\\ud800"',
    "the other half": '"x\\udfff"',
    "a deep nest": "[" * 5000 + "]" * 5000,
    "deep objects": '{"a":' * 5000 + "1" + "}" * 5000,
    "a name twice": '{"a":1,"a":2}',
    "a name that is half of a pair": '{"\\udc00":1}',
}
VALUES = {**LAWFUL, **UNLAWFUL}

#: Good bytes -> a file in whose place nobody would expect it.
FILES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "a byte order mark": lambda good: b"\xef\xbb\xbf" + good,
    "UTF-16": lambda good: good.decode("utf-8", "replace").encode("utf-16"),
    "no UTF-8": lambda good: b"\xff\xfe\xfd" + good,
    "half": lambda good: good[: len(good) // 2],
    "twice": lambda good: good + good,
    "zeros": lambda good: bytes(len(good)),
    "a NUL behind": lambda good: good + b"\0",
    "only brackets": lambda _: b"[" * 200_000,
    "a number alone": lambda _: b"1" + b"0" * 400,
    "null": lambda _: b"null",
    "a list": lambda _: b"[]",
    "a text": lambda _: b'"x"',
    "an object": lambda _: b"{}",
}
_HERE = "\0here\0"


def spoilt(good: Any, values: dict[str, str] | None = None) -> Iterator[tuple[str, bytes]]:
    """(what was done, JSON) with each field of the document `good` in turn another value, gone, or named otherwise."""
    for place, change in _places(good, "it"):
        for name, text in (VALUES if values is None else values).items():
            yield f"{place} is {name}", _text(change(_HERE)).replace(json.dumps(_HERE), text).encode()


def _text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False)


def _places(value: Any, place: str) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Every place in `value`, and what puts another value there."""
    yield place, lambda other: other
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        for below, change in _places(inner, f"{place}.{name}"):
            yield below, _within(value, name, change)


def _within(outer: Any, name: Any, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def put(other: Any) -> Any:
        copy = outer.copy()
        copy[name] = change(other)
        return copy

    return put
