"""What was looked up in the world for one config, kept for the next: the points of a sweep look once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trtbuild.errors import TrtbuildError

T = TypeVar("T")


@dataclass
class Memo:
    """Answers by what was asked. An error is an answer too: nobody waits for the same network twice."""

    _answers: dict[tuple[str, str], Any] = field(default_factory=dict)

    def once(self, what: str, asked: object, look: Callable[[], T]) -> T:
        """What `look` gave when `asked` was asked first; questions are the same when their reprs are.

        Raises what `look` raised.
        """
        at = (what, repr(asked))
        if at not in self._answers:
            try:
                self._answers[at] = look()
            except TrtbuildError as error:
                self._answers[at] = error
        answer = self._answers[at]
        if isinstance(answer, TrtbuildError):
            raise copy.copy(answer)  # each has its own traceback, and may be given its own hint
        return answer  # type: ignore[no-any-return]  # `look` made it
