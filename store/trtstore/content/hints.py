"""Hints: files that make a build quicker and do not change its result, such as a compiler's timing cache.

`hints/<key>/<sha256>` holds one, by the digest of its bytes; the key says what it is good for (a GPU, a driver, a
release) and is its maker's. Unlike an artifact, a hint is replaced: a builder takes all that are there, and leaves one
that holds what it learnt beside what they knew. So two that build at once lose nothing, and no lock is needed. A hint
that is lost or damaged costs time and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trtstore.content import blobs
from trtstore.disk import gate, scratch
from trtstore.disk.layout import Layout, entries, read_bounded
from trtstore.errors import as_store_failures
from trtstore.format.digest import checked_key, hash_bytes, is_hex

MAX_BYTES = 256 << 20  # of one; a larger file is not kept
MAX_FILES = 16  # of a key, that are given out: the newest


class Hints:
    """The hints of one store."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def take(self, key: str, into: Path, most: int = MAX_FILES) -> list[Path]:
        """Copies of the hints of `key` in the folder `into`, which is made where there are any; newest first.

        `most` is how many of them the taker can join. Each has the bytes that its name says; a damaged one is removed.
        They count as used. Raises Invalid for a malformed key, NotReadable, StoreFailure.
        """
        place = self._layout.hints / checked_key(key)
        with as_store_failures(self._layout.root, reading=True):
            hints = [path for path in entries(self._layout.own(place)) if is_hex(path.name)]
            hints.sort(key=_used, reverse=True)
            copies = []
            for path in hints[:most]:
                data = read_bounded(path, MAX_BYTES)
                if data is None or hash_bytes(data) != path.name:
                    with suppress(OSError):
                        path.unlink()
                    continue
                with suppress(OSError):  # a store that is only read
                    os.utime(path)
                into.mkdir(exist_ok=True)
                copy = into / path.name
                copy.write_bytes(data)
                copies.append(copy)
        return copies

    def leave(self, key: str, hint: Path, instead_of: Iterable[str]) -> None:
        """Keep the file `hint` for `key`, and remove those by the names `instead_of`, whose content it holds too.

        A file that is empty or too large is not kept, and nothing is removed. Raises Invalid for what is no key,
        NoSpace, NotWritable, StoreFailure.
        """
        place = self._layout.hints / checked_key(key)
        data = read_bounded(hint, MAX_BYTES)
        if not data:
            return
        name = hash_bytes(data)
        with scratch.folder(self._layout) as work, as_store_failures(self._layout.root):
            staged = blobs.stage_bytes(self._layout, data, work / name)
            with gate.adding(self._layout):
                self._layout.make(place)
                staged.path.replace(place / name)
                os.utime(place / name)
            for old in instead_of:
                if is_hex(old) and old != name:
                    (place / old).unlink(missing_ok=True)
            self._layout.sync(place)


def used(folder: Path) -> tuple[int, float]:
    """Bytes of a key's hints, and when one was last used, in seconds since the epoch. Raises OSError."""
    statuses = [path.lstat() for path in entries(folder)]
    last = max((status.st_mtime for status in statuses), default=folder.lstat().st_mtime)
    return sum(status.st_size for status in statuses), last


def _used(path: Path) -> float:
    with suppress(OSError):
        return path.lstat().st_mtime
    return 0.0
