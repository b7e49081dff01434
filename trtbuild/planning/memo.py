"""Remembers what was looked up for one config, so that the points of a sweep look once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trtbuild.errors import TrtbuildError

T = TypeVar("T")


@dataclass
class Memo:
    """Answers by question. An error is an answer, too: a sweep does not wait twice for the same network failure."""

    _answers: dict[tuple[str, str], Any] = field(default_factory=dict)

    def once(self, what: str, question: object, look: Callable[[], T]) -> T:
        """The answer of `look` when the question first came; two questions are equal if their reprs are.

        Raises what `look` raised.
        """
        at = (what, repr(question))
        if at not in self._answers:
            try:
                self._answers[at] = look()
            except TrtbuildError as error:
                self._answers[at] = error
        answer = self._answers[at]
        if isinstance(answer, TrtbuildError):
            raise copy.copy(answer)  # each has its own traceback, and may be given its own hint
        return answer  # type: ignore[no-any-return]  # `look` made it
