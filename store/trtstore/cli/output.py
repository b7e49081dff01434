"""Answers on stdout, as text or as one JSON document, and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trtstore.format.record import Record
from trtstore.units import printable

SCHEMA = 1


#: Words for what a record says, a line each; the predicate is its maker's own.
Describe = Callable[[Record], Sequence[str]]


def undescribed(_record: Record) -> Sequence[str]:
    """A Describe that knows no predicate."""
    return ()


@dataclass(frozen=True)
class Output:
    """Text for people, or one JSON document.

    >>> Output(json=False).say({"stores": 1}, ["1 store"])
    1 store
    """

    json: bool
    describe: Describe = undescribed
    _warned: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def say(self, document: Mapping[str, Any], lines: Iterable[str]) -> None:
        if self.json:
            sys.stdout.writelines(_document({"schema": SCHEMA, **document}))
        else:
            sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
        sys.stdout.flush()

    def warn(self, words: str) -> None:
        """What a user should know beside the answer; each sentence is shown once."""
        if words not in self._warned:
            self._warned.add(words)
            print(printable(words), file=sys.stderr)

    def fail(self, message: str, hint: str | None, code: int) -> None:
        print(f"error: {printable(message)}", file=sys.stderr)
        if hint:
            print(f"hint: {printable(hint)}", file=sys.stderr)
        if self.json:
            self.say({"error": {"message": message, "hint": hint, "exit_code": code}}, ())


def _document(fields: Mapping[str, Any]) -> Iterator[str]:
    """JSON, a field a line; an iterator is a list of one item a line, of which never all are in memory."""
    before = "{"
    for name, value in fields.items():
        yield f"{before}{json.dumps(name)}: "
        before = ",\n"
        if not isinstance(value, Iterator):
            yield json.dumps(value)
            continue
        yield "["
        for number, item in enumerate(value):
            yield (",\n" if number else "\n") + json.dumps(item)
        yield "]"
    yield "}\n"
