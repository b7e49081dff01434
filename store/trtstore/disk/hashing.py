"""SHA-256 of files: streamed, in parallel, and of the very bytes that are copied."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from typing import TypeVar

CHUNK = 1 << 20  # bytes a read: beyond 1 MiB the hash, not the system call, is what takes the time
THREADS = 4  # what copies as it hashes: a disk rarely takes more than that at a time
HASHERS = 16  # what reads alone: a core without SHA instructions hashes half a gigabyte a second, disks give ten

_WAITING = 8  # chunks that one thread hashes behind another
_In = TypeVar("_In")
_Out = TypeVar("_Out")

#: Told the number of bytes just done, from any thread.
OnBytes = Callable[[int], None]


def ignore_bytes(_count: int) -> None:
    """An OnBytes that does nothing.

    >>> ignore_bytes(1 << 20)
    """


def hash_fd(
    source: int, expected: int, *, copy_to: int | None = None, on_bytes: OnBytes = ignore_bytes
) -> tuple[str, int]:
    """(hex SHA-256, size in bytes) of what `source` holds from its position on, copied to `copy_to` as it goes.

    One thread hashes the very buffer that this one copies, while this one reads the next. Ends soon after
    `expected` bytes, so that a file that somebody keeps writing to cannot hold the reader for ever: the caller
    compares sizes. Raises OSError of the reads and writes, and what `on_bytes` raises.
    """
    digest, size = hashlib.sha256(), 0
    length = min(CHUNK, expected + 1)
    buffers = cycle([memoryview(bytearray(length)) for _ in range(2 if expected > CHUNK else 1)])
    hashed: Future[None] | None = None
    with ThreadPoolExecutor(1) as hasher:  # starts no thread before the first `submit`
        while size <= expected and (count := os.readv(source, [view := next(buffers)])):
            earlier = hashed
            if expected > CHUNK:
                hashed = hasher.submit(digest.update, view[:count])
            else:
                digest.update(view[:count])  # a thread would cost more than it saves
            if copy_to is not None:
                _write_all(copy_to, view[:count])
            size += count
            on_bytes(count)
            if earlier is not None:
                earlier.result()  # its buffer is the next one to be read into
    return digest.hexdigest(), size


def _write_all(target: int, data: memoryview) -> None:
    while data:
        data = data[os.write(target, data) :]


class _Stopped(Exception):
    """Unwinds a thread whose siblings have failed already."""


class BackgroundHasher:
    """SHA-256 of what should have `size` bytes, hashed in another thread while the caller makes the next chunk.

    Chunks must not change meanwhile; at most `_WAITING` of them wait. One chunk alone is worth no thread. `count` is
    how many bytes came.
    """

    def __init__(self, size: int) -> None:
        self.size, self.count = size, 0
        self._digest = hashlib.sha256()
        self._alone = size <= CHUNK
        self._pool = ThreadPoolExecutor(1)  # starts no thread before the first `submit`
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> BackgroundHasher:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def update(self, data: bytes | memoryview) -> None:
        self.count += len(data)
        if self._alone:
            self._digest.update(data)
            return
        self._waiting.append(self._pool.submit(self._digest.update, data))
        if len(self._waiting) > _WAITING:
            self._waiting.popleft().result()

    def chunks(
        self, read: Callable[[int], bytes | memoryview], on_bytes: OnBytes = ignore_bytes
    ) -> Iterator[bytes | memoryview]:
        """The chunks that `read` gives, each hashed. Ends before a chunk that goes beyond `size`, but counts it."""
        while data := read(min(CHUNK, self.size - self.count + 1)):
            if self.count + len(data) > self.size:
                self.count += len(data)
                return
            self.update(data)
            yield data
            on_bytes(len(data))

    def hexdigest(self) -> str:
        while self._waiting:
            self._waiting.popleft().result()
        return self._digest.hexdigest()

    def matches(self, digits: str) -> bool:
        """Whether just `size` bytes came, with this SHA-256."""
        return self.count == self.size and self.hexdigest() == digits


def in_threads(
    work: Callable[[_In, OnBytes], _Out], items: Sequence[_In], on_bytes: OnBytes, most: int = THREADS
) -> list[_Out]:
    """`work` on each item in a few threads (`most`, or as many as there are cores), results in the order of `items`.

    The OnBytes that `work` is given serialises the calls of `on_bytes`, and ends the threads within a chunk
    once one has failed or the caller was interrupted: Ctrl-C does not wait for the hash of a 100 GB file.

    >>> in_threads(lambda item, on_bytes: item * 2, [1, 2, 3], ignore_bytes)
    [2, 4, 6]
    """
    if len(items) < 2:
        return [work(item, on_bytes) for item in items]
    stop, turn = threading.Event(), threading.Lock()

    def tell(count: int) -> None:
        if stop.is_set():
            raise _Stopped
        with turn:
            on_bytes(count)

    def guarded(item: _In) -> _Out:
        try:
            return work(item, tell)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(min(most, _cores(), len(items)) or 1) as pool:
        futures = [pool.submit(guarded, item) for item in items]
        try:
            return _results(future.result for future in futures)
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _results(waits: Iterable[Callable[[], _Out]]) -> list[_Out]:
    results: list[_Out] = []
    stopped = False
    for wait in waits:
        try:
            results.append(wait())
        except _Stopped:
            stopped = True  # the reason is that of another future, further on
    if stopped:
        raise RuntimeError("a thread stopped without a reason")
    return results


def side_by_side() -> int:
    """How many large blobs come from, or go to, elsewhere at a time: a core hashes a gigabyte a second, networks bring
    more, and each blob takes a core for its hash and others for what brings it."""
    return max(2, min(4, _cores() // 4))


def _cores() -> int:
    return len(os.sched_getaffinity(0))
