"""Fetches the small blobs that will be needed next side by side, since each waits for the network."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

from trtstore.deadlines import Pool
from trtstore.remote.remote import SMALL, WORKERS, Remote, blob_name

MAX_BYTES = 64 << 20  # in memory at a time, of one artifact


class Prefetch:
    """Blobs in flight, by digits. Those that are not taken are dropped when the next artifact begins."""

    def __init__(self) -> None:
        self._coming: dict[str, Future[bytes | None]] = {}

    def begin(self, remote: Remote, wanted: Mapping[str, int]) -> None:
        """Ask for the small ones of `wanted` (digits -> bytes)."""
        self._coming = {}
        small, left = [], MAX_BYTES
        for digits, size in wanted.items():
            if size <= min(SMALL, left):
                small.append((digits, size))
                left -= size
        if len(small) > 1:
            pool = Pool(WORKERS, "trtstore-prefetch")
            for digits, size in small:
                self._coming[digits] = pool.submit(remote.objects.read, blob_name(digits), size)
            pool.shutdown(wait=False)  # which ends its threads when all is there

    def take(self, digits: str) -> bytes | None:
        """The bytes, once; None if the blob was not prefetched, or is not there. Raises what reading it raised."""
        coming = self._coming.pop(digits, None)
        return None if coming is None else coming.result()
