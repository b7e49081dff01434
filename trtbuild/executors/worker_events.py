"""Reads a worker's events line by line. They are untrusted: any Python or container may have written them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO, Any

from trtbuild import untrusted
from trtbuild.errors import BuildError, InputError, TrtbuildError

Event = Mapping[str, Any]


def listen(stream: IO[str], log: IO[str], on_event: Callable[[Event], None]) -> dict[str, Any] | TrtbuildError | None:
    """Read events until the worker closes its output, and return the last result or error.

    Lines that are no events go to `log`: something printed them before the worker redirected its standard output.
    """
    answer: dict[str, Any] | TrtbuildError | None = None
    for line in stream:
        try:
            event = untrusted.parse_object(line)
            kind = event["event"]
            if kind == "result":
                answer = dict(event["facts"])
            elif kind == "error":
                error = InputError if event["kind"] == "input" else BuildError
                message, option, hint = event["message"], event["option"], event["hint"]
                if not all(text is None or isinstance(text, str) for text in (message, option, hint)):
                    raise ValueError("the fields of an error are no text")
                answer = error(str(message), option=option, hint=hint)
            elif not _is_progress(event):
                raise ValueError("it is no event")
        except (ValueError, KeyError, TypeError):
            log.write(line)
            continue
        if kind not in ("result", "error"):
            on_event(event)
    return answer


def _is_progress(event: Event) -> bool:
    """Whether an event has the fields, of the right types, that its readers rely on."""
    if event["event"] == "text":
        return isinstance(event["text"], str)
    if event["event"] != "progress":
        return isinstance(event["event"], str)
    texts, counts = (event["what"], event["unit"]), (event["done"], event["total"])
    return {*map(type, texts)} == {str} and {*map(type, counts)} <= {int, float} and min(counts) >= 0
