"""What a worker says, read line by line: any Python or container may have written it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO, Any

from trtbuild import untrusted
from trtbuild.errors import BuildError, InputError, TrtbuildError

Event = Mapping[str, Any]


def listen(
    stream: IO[str], log: IO[str], on_event: Callable[[Event], None]
) -> dict[str, Any] | TrtbuildError | None:
    """Read events until the worker closes its output; the last result or error is the answer."""
    answer: dict[str, Any] | TrtbuildError | None = None
    for line in stream:
        try:
            event = untrusted.parse_object(line)
            kind = event["event"]
            if kind == "result":
                answer = dict(event["facts"])
            elif kind == "error":
                error = InputError if event["kind"] == "input" else BuildError
                said = (event["message"], event["option"], event["hint"])
                if not all(each is None or isinstance(each, str) for each in said):
                    raise ValueError("an error's words are no text")
                answer = error(str(said[0]), option=said[1], hint=said[2])
            elif not _is_progress(event):
                raise ValueError("it is no event")
        except (ValueError, KeyError, TypeError):
            log.write(line)  # not of the protocol: something printed before the worker took its stdout away
            continue
        if kind not in ("result", "error"):
            on_event(event)
    return answer


def _is_progress(event: Event) -> bool:
    """Whether an event, which any Python or container may have written, is what the others are told."""
    if event["event"] == "text":
        return isinstance(event["text"], str)
    if event["event"] != "progress":
        return isinstance(event["event"], str)
    texts, counts = (event["what"], event["unit"]), (event["done"], event["total"])
    return {*map(type, texts)} == {str} and {*map(type, counts)} <= {int, float} and min(counts) >= 0
