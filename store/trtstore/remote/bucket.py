"""A bucket as the place of a team store: obstore, its errors as ours, large objects in parts both ways."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from trtstore import deadlines
from trtstore.deadlines import PATIENCE, RATE, Late
from trtstore.errors import Corrupt, NotReadable, NotWritable, Silent, StoreFailure, Unreachable
from trtstore.remote import clouds
from trtstore.remote.objects import ObjectInfo, Stat
from trtstore.remote.parts import AHEAD, BUDGET, PART, Outgoing, Parts, again
from trtstore.transfer.protocols import Readable

MOST_PARTS = 9000  # S3 and Google take 10 000, Azure 50 000
RETRIES = 4
BACKOFF = {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5)}
CONNECT = timedelta(seconds=5)
SILENCE = timedelta(seconds=30)  # without a byte
#: Of one request. Its waiter has a deadline or a rate of its own: this ends requests without a waiter.
LONGEST = timedelta(hours=1)
PIECE = 128 << 10  # bytes that come before it is seen that they come
#: Bytes a second of an upload: only a part that is there whole is seen, and some are on their way.
UPLOAD_RATE = 4 * RATE
KEPT = 3  # attempts at an object that the place stores wrong
SUM_PROBE = "v1/probe-checksum"
WRONG_SUM = "A" * 43 + "="  # the SHA-256 of nothing that anybody knows

_T = TypeVar("_T")


class Bucket:
    """The objects below `url`; see `objects.Objects`. Credentials and endpoint are those of the environment."""

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        self._url = url.rstrip("/")
        self._patience = patience
        self._cloud = clouds.of(url)
        self._endpoint = self._cloud.another(os.environ)
        self._turn = threading.Lock()
        self._compares: bool | None = None if self._cloud is clouds.CLOUDS["s3"] else False
        if self._compares is None and clouds.is_amazon(self._endpoint):
            self._compares = True  # as its documentation says
        self._store = self._opened({"read_timeout": SILENCE})

    def _opened(self, limits: dict[str, Any], *, retries: int = RETRIES, checksum: str | None = None) -> Any:
        options: dict[str, Any] = {"connect_timeout": CONNECT, "timeout": LONGEST, **limits}
        if urlsplit(self._endpoint).scheme == "http":
            options["allow_http"] = True  # as the endpoint says
        # obstore itself looks at one of the two variables of S3, and at all of the others.
        config = {} if checksum is None else {"checksum_algorithm": checksum}
        if self._endpoint and self._cloud is clouds.CLOUDS["s3"]:
            config["endpoint"] = self._endpoint
        opened: Any = from_url  # whose overloads want the scheme to be known here
        retrying = {"backoff": BACKOFF, "max_retries": retries, "retry_timeout": timedelta(seconds=30)}
        with self._asking():
            return opened(self._url, config=config or None, client_options=options, retry_config=retrying)

    @cached_property
    def _once(self) -> Any:
        """For what must not be repeated unseen."""
        return self._opened({}, retries=0)

    @cached_property
    def _writing(self) -> Any:
        """For what is put there. It sends a part for as long as that takes: no limit is one of silence."""
        return self._opened({}, checksum="SHA256" if self.compares() else None)

    def __str__(self) -> str:
        return self._url

    def _until(self, size: int = 0) -> float:
        """The moment until which an answer of `size` bytes is waited for, all its attempts together."""
        return time.monotonic() + self._patience + size / RATE

    def read(self, name: str, limit: int) -> bytes | None:
        began = self._until()

        def ask() -> bytes | None:
            try:
                answer = deadlines.within(began, lambda: obstore.get(self._store, name))
            except FileNotFoundError as error:
                if clouds.is_missing(error):
                    raise
                return None
            size = answer.meta["size"]
            if size > limit:
                raise Corrupt(f"{name} of {self} has {size} bytes, and may have {limit}")
            return deadlines.within(began + size / RATE, lambda: bytes(answer.bytes()))

        with self._asking():
            return again(ask, began)

    def create(self, name: str, data: bytes) -> bool:
        failed, until = 0, self._until(len(data))

        def ask() -> bool:
            nonlocal failed
            failed += 1
            try:
                self._put(name, data, until, mode="create")
            except AlreadyExistsError:
                # An answer that was lost makes the second attempt find what the first one made.
                return failed > 1 and self.read(name, len(data)) == data
            return True

        with self._asking(writing=True):
            made = again(ask, until)
        if made:
            self._keep(name, data)
        return made

    def replace(self, name: str, data: bytes) -> None:
        until = self._until(len(data))
        with self._asking(writing=True):
            again(lambda: self._put(name, data, until), until)
        self._keep(name, data)

    def _put(self, name: str, data: bytes, until: float, **how: Any) -> None:
        store = self._writing
        deadlines.within(until, lambda: obstore.put(store, name, data, use_multipart=False, **how))

    def _keep(self, name: str, data: bytes) -> None:
        """See to it that what was just put there is what is there. Raises NotWritable."""
        if self.compares():
            return
        for left in reversed(range(KEPT)):
            if self._holds(name, data):
                return
            if left:
                until = self._until(len(data))
                with self._asking(writing=True):
                    again(partial(self._put, name, data, until), until)
        raise NotWritable(
            f"{self} stores other bytes of {name} than were sent, {KEPT} times",
            "something on the way to it, or in it, changes them",
        )

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name, len(data)) == data
        except Corrupt:  # longer
            return False

    def compares(self) -> bool:
        with self._turn:
            if self._compares is None:
                with self._asking(writing=True):
                    self._compares = self._refuses_wrong_sums()
            return self._compares

    def _refuses_wrong_sums(self) -> bool:
        """Whether an object, and a part of one, is refused whose checksum is another's.

        Not signed, as obstore would send the right one: who refuses it for that is not known to compare.
        """
        until = self._until()
        wrong = self._opened({"default_headers": {"x-amz-checksum-sha256": WRONG_SUM}})
        for multipart in (False, True):
            data: Any = iter((b"probe",)) if multipart else b"probe"
            put = partial(obstore.put, wrong, SUM_PROBE, data, use_multipart=multipart)
            try:
                deadlines.within(until, put)
            except Late:
                raise
            except (BaseError, OSError) as error:
                if not clouds.is_wrong_sum(error):
                    return False
            else:
                return False
        return True

    def size(self, name: str) -> int | None:
        status = self.stat(name)
        return None if status is None else status.size

    def stat(self, name: str) -> Stat | None:
        until = self._until()
        with self._asking():
            try:
                meta = again(lambda: deadlines.within(until, lambda: obstore.head(self._store, name)), until)
            except FileNotFoundError:
                return None  # a bucket that is not there answers so, too: `read` and `listed` tell
        modified = meta["last_modified"].timestamp()
        return Stat(name, meta["size"], modified, f"{meta['e_tag']}:{modified}")

    def listed(self, prefix: str) -> Iterator[ObjectInfo]:
        def ask() -> list[Any]:
            objects: list[Any] = []
            pages = iter(obstore.list(self._store, prefix))
            while (page := deadlines.within(self._until(), lambda: next(pages, None))) is not None:
                objects.extend(page)
            return objects

        with self._asking():
            objects = again(ask, deadlines.at(self._until() + BUDGET))
        for one in objects:
            yield ObjectInfo(one["path"], one["size"], one["last_modified"].timestamp())

    def delete(self, name: str) -> None:
        """One that is not known to have been done is repeated only where the object is still the same."""
        before = self.stat(name)
        if before is None:
            return

        def ask() -> None:
            try:
                deadlines.within(until, lambda: obstore.delete(self._once, name))
            except FileNotFoundError:
                return
            except (BaseError, OSError) as error:
                if clouds.is_refused(error) or self.stat(name) == before:
                    raise

        until = self._until()
        with self._asking(writing=True):
            again(ask, until)

    @contextmanager
    def open(self, name: str, size: int) -> Iterator[Readable]:
        # What is on its way has to be there before it is seen that anything comes.
        parts = Parts(
            lambda start, end, tell: self._part(name, start, end, tell),
            size,
            str(self),
            window=self._patience + AHEAD * PIECE / RATE,
            least=int(self._patience * RATE),
        )
        try:
            yield parts
        finally:
            parts.stop()

    def _part(self, name: str, start: int, end: int, tell: Callable[[int], None]) -> list[memoryview]:
        def ask() -> list[memoryview]:
            answer = obstore.get(self._store, name, options={"range": (start, end)})
            # As it comes: to put a part together would take time.
            chunks, came = [], 0
            for chunk in answer.stream(PIECE):
                chunks.append(memoryview(chunk))
                came += len(chunks[-1])
                tell(len(chunks[-1]))
            if came != end - start:
                raise ConnectionError(f"{came} of {end - start} bytes came")
            return chunks

        with self._asking():
            try:
                return again(ask, time.monotonic() + BUDGET)
            except FileNotFoundError:
                raise Corrupt(f"{name} is not in {self}") from None

    def upload(self, name: str, chunks: Iterator[bytes | memoryview], size: int) -> None:
        # What `chunks` raises passes through obstore, which then aborts the multipart upload.
        part = max(PART, -(-size // MOST_PARTS))
        store = self._writing
        silent, allowed = 0.0, min((AHEAD + 1) * part, size) / UPLOAD_RATE
        with self._asking(writing=True), Outgoing(chunks) as sent:
            how: dict[str, Any] = {"chunk_size": part, "max_concurrency": AHEAD, "use_multipart": True}
            going = deadlines.spawn(lambda: obstore.put(store, name, sent, **how))
            while not deadlines.ended(going, self._patience):
                silent = 0.0 if sent.moved() else silent + self._patience
                if silent > allowed:
                    raise Late("it takes no more bytes")
                if silent:
                    self.stat(name)  # who does not answer that either is gone
            going.result()

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
        if clouds.is_skewed(error):
            return Unreachable(
                f"{self} refuses what this machine signs: the clock here and the server's differ ({said})",
                "set this machine's clock (timedatectl set-ntp true)",
            )
        if clouds.is_refused(error):
            refusal: type[StoreFailure] = NotWritable if writing else NotReadable
            return refusal(
                f"{self} refuses to be {'written to' if writing else 'read'}: {said}",
                "check the credentials in the environment, and what they may do",
            )
        if isinstance(error, Late):
            return Silent(f"{self} cannot be asked: {said}")
        hint = cloud.credentials if clouds.are_unusable(error) else None
        return Unreachable(f"{self} cannot be asked: {said}", hint)
