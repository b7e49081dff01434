"""The one parser for JSON that another program or person wrote.

It uses the standard library only: the command line, the workers and the programs that they start all read with it. It
refuses JSON that is too long, too deep or ambiguous, and numbers and strings that Python cannot print, convert or
compare. So no other module has to expect Python's own errors about them.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from trtbuild.errors import InputError, printable

Json = Any  # a value that json.loads can return

LIMIT = 64 << 20  # bytes of a small file: ten times the largest tokenizer.json that is known
MAX_DEPTH = 100  # of nested objects and lists
MAX_DIGITS = 40  # of an integer: tokenizer files have 10**30, and float() takes any of 40 digits
MAX_FLOAT = 400  # characters of a number with a point or an exponent
SHOWN = 80  # characters of an untrusted text in a message

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # a quick test: its first character is rare
# Half of a pair, or an escaped backslash before such letters; encoding the value tells them apart.
_HALF = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


class MalformedJson(ValueError):
    """The JSON must not be used. The text says why, and continues the name of the file: `is not JSON in UTF-8: …`."""


def parse(data: bytes | str, *, limit: int = LIMIT) -> Json:
    """The value of UTF-8 JSON text.

    Raises MalformedJson for more than `limit` bytes, more than MAX_DEPTH nested objects and lists, NaN and infinities,
    an integer of more than MAX_DIGITS digits, half of a surrogate pair, and a name that an object has twice.
    """
    if len(data) > limit:
        raise MalformedJson(f"has {len(data)} bytes, and at most {limit} are read")
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_once,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_float,
        )
        if _SURROGATE.search(text) is not None and _HALF.search(text) is not None:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise MalformedJson("is not JSON in UTF-8: its bytes are no such text") from None
    except UnicodeEncodeError:
        raise MalformedJson("is not JSON in UTF-8: it holds half of a surrogate pair") from None
    except RecursionError:
        raise MalformedJson(_DEEP) from None
    except MalformedJson:
        raise
    except ValueError as error:
        raise MalformedJson(f"is not JSON in UTF-8: {error}") from None
    if _deeper(value, MAX_DEPTH):
        raise MalformedJson(_DEEP)
    return value


def parse_object(data: bytes | str, *, limit: int = LIMIT) -> dict[str, Json]:
    """As `parse`, for an object. Raises MalformedJson."""
    value = parse(data, limit=limit)
    if not isinstance(value, dict):
        raise MalformedJson("holds no JSON object")
    return value


def json_object(
    data: bytes | str,
    what: str,
    *,
    option: str | None = "model.source",
    hint: str | None = None,
    limit: int = LIMIT,
) -> dict[str, Json]:
    """The JSON object in `data`, called `what` in messages. Raises InputError about `option`."""
    try:
        return parse_object(data, limit=limit)
    except MalformedJson as error:
        raise InputError(f"{what} {error}", option=option, hint=hint) from None


def read_object(
    path: Path,
    what: str | None = None,
    *,
    option: str | None = "model.source",
    hint: str | None = None,
    limit: int = LIMIT,
) -> dict[str, Json]:
    """The JSON object in the file `path`, called `what` or by its name in messages. Raises InputError."""
    called = what or path.name
    try:
        data = read_bytes(path, limit)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{called} cannot be read: {reason}", option=option, hint=hint) from None
    return json_object(data, called, option=option, hint=hint, limit=limit)


def read_bytes(path: Path, limit: int = LIMIT) -> bytes:
    """The bytes of a regular file, at most `limit`. Never waits for a pipe or a device.

    Raises OSError, and MalformedJson if it is no regular file or is longer.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # opening a device can have effects, and a socket cannot be opened
        raise MalformedJson("it is no regular file")
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise MalformedJson("it is no regular file")
        if status.st_size > limit:
            raise MalformedJson(f"it has {status.st_size} bytes, and at most {limit} are read")
        return file.read(limit)


def shown(value: object, most: int = SHOWN) -> str:
    """An untrusted value for a message: the first `most` characters of its `repr`, none of which steers a terminal."""
    text = printable(repr(value[: most + 1] if isinstance(value, str) else value))
    return text if len(text) <= most else f"{text[:most]}…"


_NESTING = frozenset((dict, list))
_DEEP = f"is nested more than {MAX_DEPTH} deep"


def _deeper(value: Json, most: int) -> bool:
    """Whether it is nested more than `most` deep. Goes level by level, without recursion."""
    level = [value]
    for _ in range(most + 1):
        level = [inner for inner in level if type(inner) in _NESTING]
        if not level:
            return False
        level = list(chain.from_iterable(map(_inner, level)))
    return True


def _inner(value: Json) -> Iterable[Json]:
    items: Iterable[Json] = value.values() if type(value) is dict else value
    return items


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise MalformedJson(f"names {shown(twice)} twice in one object")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise MalformedJson(f"holds a number of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text) if len(text) <= MAX_FLOAT else math.inf
    if not math.isfinite(value):
        raise MalformedJson(f"holds the number {shown(text, 30)}, which is out of range")
    return value


def _no_constant(name: str) -> Json:
    raise MalformedJson(f"holds {name}, which is no number of JSON")
