"""Downloads of large objects in parts: some ahead of the reader, each retried alone, at a watched rate."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from obstore.exceptions import BaseError

from trtstore import deadlines
from trtstore.errors import Silent
from trtstore.remote import clouds

PART = 8 << 20  # bytes: a part, up or down
AHEAD = 6  # parts in memory at a time, a blob
ATTEMPTS = 5  # of one part, each of which obstore tries more often where the server fails
BUDGET = 60.0  # seconds after which a part that broke off is not retried

_T = TypeVar("_T")
#: Is told of bytes that came.
_Tell = Callable[[int], None]


class Parts:
    """A stream of parts, some of which are always in flight; a part that fails is retried alone.

    Who reads waits for as long as `least` bytes come in each `window` of seconds. `who` is what sends them.
    """

    def __init__(
        self,
        fetch: Callable[[int, int, _Tell], list[memoryview]],
        size: int,
        who: str,
        *,
        window: float,
        least: int,
    ) -> None:
        self._fetch, self._who = fetch, who
        self._window, self._least = window, least
        self._next, self._size = 0, size
        self._came = 0
        self._stopped = False
        self._coming: deque[Future[list[memoryview]]] = deque()
        self._here: deque[memoryview] = deque()

    def skip(self, count: int, /) -> None:
        self._next = count

    def stop(self) -> None:
        """Stop reading: what is in flight ends with its next bytes."""
        self._stopped = True

    def _tell(self, count: int) -> None:
        if self._stopped:
            raise Silent("nobody waits for it any more")
        self._came += count  # a count that is lost between two threads is made good by the next

    def _ask(self) -> None:
        """For as many parts as may be on their way."""
        while self._next < self._size and len(self._coming) < AHEAD:
            start, self._next = self._next, min(self._next + PART, self._size)
            self._coming.append(deadlines.spawn(partial(self._fetch, start, self._next, self._tell)))

    def read(self, size: int, /) -> memoryview:
        """A view of a chunk, which lives for as long as somebody looks at it: a copy would cost a fifth of the time."""
        if not self._here:
            self._ask()
            if not self._coming:
                return memoryview(b"")
            try:
                part = deadlines.attend(self._coming.popleft(), lambda: self._came, self._window, self._least)
            except deadlines.Late:
                raise Silent(f"{self._who} sends less than {deadlines.RATE >> 10} KiB a second") from None
            self._here.extend(part)
            self._ask()
        view = self._here.popleft()
        if len(view) > size:
            self._here.appendleft(view[size:])
        return view[:size]


class Outgoing:
    """Chunks that a client takes at its own pace; once it is left, who still takes one is stopped."""

    def __init__(self, chunks: Iterator[bytes | memoryview]) -> None:
        self._chunks = chunks
        self._taken = self._seen = 0
        self._making = False
        self._left = False

    def __enter__(self) -> Outgoing:
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True

    def __iter__(self) -> Outgoing:
        return self

    def __next__(self) -> bytes | memoryview:
        if self._left:
            raise Silent("nobody waits for it any more")
        self._making = True
        try:
            return next(self._chunks)
        finally:
            self._making = False
            self._taken += 1

    def moved(self) -> bool:
        """Whether chunks were taken since the last call, or their maker takes the time."""
        before, self._seen = self._seen, self._taken
        return self._making or self._taken > before


def again(ask: Callable[[], _T], until: float) -> _T:
    """What `ask` returns, asked anew where the answer broke off; waits in between, longer each time, and by chance.

    Not after `until`, of the monotonic clock.
    """
    wait = 0.1
    for left in reversed(range(ATTEMPTS)):
        try:
            return ask()
        except (FileNotFoundError, deadlines.Late):
            raise
        except (BaseError, OSError) as error:
            if any(known(error) for known in clouds.FINAL):
                raise
            # If no server listens, obstore has tried for long enough already.
            if not left or time.monotonic() + wait > until or "error sending request" in str(error):
                raise
            time.sleep(wait * (0.5 + random.random()))  # noqa: S311  # so that many do not ask in step
            wait *= 2
    raise AssertionError  # the loop returns or raises
