"""A bucket as the place of a team store: obstore, its errors as ours, large objects in parts both ways."""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from trtstore import clouds
from trtstore.digest import CHUNK
from trtstore.errors import Corrupt, NotReadable, NotWritable, StoreFailure, Unreachable
from trtstore.listed import Listed
from trtstore.protocols import Readable

PART = 8 << 20  # bytes: a part, up or down
AHEAD = 6  # parts in memory at a time, a blob
MOST_PARTS = 9000  # S3 and Google take 10 000, Azure 50 000
ATTEMPTS = 5  # of one part, each of which obstore tries RETRIES times more where the server fails
RETRIES = 4
BUDGET = 60.0  # seconds that one part may take with all its attempts
PATIENCE = {"backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5)}}
#: A place that does not answer is told within this: a build goes on without it.
CONNECT = timedelta(seconds=5)
SILENCE = timedelta(seconds=30)  # without a byte

_T = TypeVar("_T")


class Bucket:
    """The objects below `url`; see `objects.Objects`. Credentials and endpoint are those of the environment."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._cloud = clouds.of(url)
        endpoint = self._cloud.another(os.environ)
        options: dict[str, Any] = {
            "connect_timeout": CONNECT,
            "read_timeout": SILENCE,
            "timeout": "5 minutes",
        }
        if urlsplit(endpoint).scheme == "http":
            options["allow_http"] = True  # whoever set the endpoint chose so
        # obstore itself looks at one of the two variables of S3, and at all of the others.
        config = {"endpoint": endpoint} if endpoint and self._cloud is clouds.CLOUDS["s3"] else {}
        opened: Any = from_url  # whose overloads want the scheme to be known here
        with self._asking():
            self._store = opened(
                self._url,
                config=config or None,
                client_options=options,
                retry_config={**PATIENCE, "max_retries": RETRIES, "retry_timeout": timedelta(seconds=30)},
            )

    def __str__(self) -> str:
        return self._url

    def read(self, name: str, limit: int) -> bytes | None:
        def ask() -> bytes | None:
            try:
                found = obstore.get(self._store, name)
            except FileNotFoundError as error:
                if clouds.is_missing(error):
                    raise
                return None
            if found.meta["size"] > limit:
                raise Corrupt(f"{name} of {self} has {found.meta['size']} bytes, and may have {limit}")
            return bytes(found.bytes())

        with self._asking():
            return _again(ask)

    def create(self, name: str, data: bytes) -> bool:
        failed = 0

        def ask() -> bool:
            nonlocal failed
            failed += 1
            try:
                obstore.put(self._store, name, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                # An answer that was lost makes the second attempt find what the first one made.
                return failed > 1 and self.read(name, len(data)) == data
            return True

        with self._asking(writing=True):
            return _again(ask)

    def replace(self, name: str, data: bytes) -> None:
        with self._asking(writing=True):
            _again(lambda: obstore.put(self._store, name, data, use_multipart=False))

    def size(self, name: str) -> int | None:
        with self._asking():
            try:
                return int(_again(lambda: obstore.head(self._store, name))["size"])
            except FileNotFoundError:
                return None  # a bucket that is not there answers so, too: `read` and `listed` tell

    def listed(self, prefix: str) -> Iterator[Listed]:
        with self._asking():
            found = _again(lambda: [one for page in obstore.list(self._store, prefix) for one in page])
        for one in found:
            yield Listed(one["path"], one["size"], one["last_modified"].timestamp())

    def delete(self, name: str) -> None:
        with self._asking(writing=True):
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return

    @contextmanager
    def open(self, name: str, size: int) -> Iterator[Readable]:
        pool = ThreadPoolExecutor(min(AHEAD, max(1, -(-size // PART))), "trtstore-get")
        try:
            yield _Parts(pool, lambda start, end: self._part(name, start, end), size)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _part(self, name: str, start: int, end: int) -> list[memoryview]:
        def ask() -> list[memoryview]:
            answer = obstore.get(self._store, name, options={"range": (start, end)})
            # As it comes: to put a part together would take time.
            chunks = [memoryview(chunk) for chunk in answer.stream(CHUNK)]
            if (came := sum(map(len, chunks))) != end - start:
                raise ConnectionError(f"{came} of {end - start} bytes came")
            return chunks

        with self._asking():
            try:
                return _again(ask)
            except FileNotFoundError:
                raise Corrupt(f"{name} is not in {self}") from None

    def upload(self, name: str, chunks: Iterator[bytes | memoryview], size: int) -> None:
        # What `chunks` raises passes through obstore, which then aborts the multipart upload.
        part = max(PART, -(-size // MOST_PARTS))
        with self._asking(writing=True):
            obstore.put(self._store, name, chunks, chunk_size=part, max_concurrency=AHEAD, use_multipart=True)

    @contextmanager
    def _asking(self, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            raise self._failure(error, writing) from None

    def _failure(self, error: Exception, writing: bool) -> StoreFailure:
        cloud, said = self._cloud, clouds.reason(error)
        if clouds.is_missing(error):
            return Unreachable(f"there is no {cloud.bucket} for {self}", "make it, or check the URL")
        if clouds.has_no_credentials(error):
            return Unreachable(
                f"{self} cannot be asked: the environment has no credentials, nor has this machine",
                cloud.credentials,
            )
        if clouds.is_refused(error):
            refusal: type[StoreFailure] = NotWritable if writing else NotReadable
            return refusal(
                f"{self} refuses to be {'written to' if writing else 'read'}: {said}",
                "check the credentials in the environment, and what they may do",
            )
        hint = cloud.credentials if clouds.are_unusable(error) else None
        return Unreachable(f"{self} cannot be asked: {said}", hint)


class _Parts:
    """A stream of parts, of which some are always on their way; a part that fails is asked for again, alone."""

    def __init__(
        self, pool: ThreadPoolExecutor, fetch: Callable[[int, int], list[memoryview]], size: int
    ) -> None:
        self._pool, self._fetch = pool, fetch
        self._next, self._size = 0, size
        self._coming: deque[Future[list[memoryview]]] = deque()
        self._here: deque[memoryview] = deque()

    def skip(self, count: int, /) -> None:
        self._next = count

    def _ask(self) -> None:
        """For as many parts as may be on their way."""
        while self._next < self._size and len(self._coming) < AHEAD:
            start, self._next = self._next, min(self._next + PART, self._size)
            self._coming.append(self._pool.submit(self._fetch, start, self._next))

    def read(self, size: int, /) -> memoryview:
        """A view of a chunk, which lives for as long as somebody looks at it: a copy would cost a fifth of the time."""
        if not self._here:
            self._ask()
            if not self._coming:
                return memoryview(b"")
            self._here.extend(self._coming.popleft().result())
            self._ask()
        view = self._here.popleft()
        if len(view) > size:
            self._here.appendleft(view[size:])
        return view[:size]


def _again(ask: Callable[[], _T]) -> _T:
    """What `ask` returns, asked anew where the answer broke off; waits in between, longer each time, and by chance."""
    started, wait = time.monotonic(), 0.1
    for left in reversed(range(ATTEMPTS)):
        try:
            return ask()
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:
            if clouds.is_refused(error) or clouds.has_no_credentials(error) or clouds.is_missing(error):
                raise
            # Where nobody listens obstore has tried for long enough already.
            if not left or time.monotonic() - started > BUDGET or "error sending request" in str(error):
                raise
            time.sleep(wait * (0.5 + random.random()))  # noqa: S311  # so that many do not ask in step
            wait *= 2
    raise AssertionError  # the loop returns or raises
