"""How long a place elsewhere is waited for: a lookup has one deadline, and bytes have a rate that they must keep up.

The clients of such places block, and none of their own limits is one of the whole: each try, each byte that comes
starts them anew. So they are called in threads that are left alone when the time is over, and keep no process alive.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

PATIENCE = 20.0  # seconds: the default of store.patience
RATE = 64 << 10  # bytes a second: what is slower counts as silent

_T = TypeVar("_T")
_end: contextvars.ContextVar[float | None] = contextvars.ContextVar("end", default=None)


class Late(TimeoutError):
    """The time is over, and the answer is not there."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """All that is asked in the body, and in its `Pool`s, has to be answered until then. Of several the first counts.

    >>> with deadline(5.0):
    ...     team.lookup("cd" * 32)
    """
    token = _end.set(at(time.monotonic() + seconds))
    try:
        yield
    finally:
        _end.reset(token)


def at(moment: float) -> float:
    """`moment` of the monotonic clock, or that of the deadline, whichever comes first."""
    end = _end.get()
    return moment if end is None else min(moment, end)


class Pool(ThreadPoolExecutor):
    """Threads for which the deadline of who submits to them counts."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        return super().submit(contextvars.copy_context().run, fn, *args, **kwargs)


def spawn(call: Callable[[], _T]) -> Future[_T]:
    """What `call` will return, from a thread that keeps no process alive."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is taken
            future.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
    return future


def within(moment: float, call: Callable[[], _T]) -> _T:
    """What `call` returns, until `moment` or the deadline. Raises Late, and then `call` goes on by itself."""
    left = at(moment) - time.monotonic()
    if left <= 0:
        raise Late("it does not answer in time")
    going = spawn(call)
    if not ended(going, left):
        raise Late("it does not answer in time")
    return going.result()


def ended(going: Future[_T], seconds: float) -> bool:
    """Whether `going` has come to its end, for which it is given so long."""
    wait([going], seconds)
    return going.done()


def attend(going: Future[_T], progress: Callable[[], int], window: float, least: int) -> _T:
    """What `going` comes to, for as long as `progress`, a count of bytes, grows by `least` in each `window` of seconds.

    Raises Late.
    """
    before = progress()
    while not ended(going, window):
        now = progress()
        if now - before < least:
            raise Late(f"{now - before} bytes came within {window:.0f} s")
        before = now
    return going.result()
