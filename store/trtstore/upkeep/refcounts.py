"""Which blobs there are and which records name them: the count behind a collection, in as few bytes as it needs."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from trtstore.disk.layout import Layout, shards


class RefCounts:
    """Blobs by number: bytes, how many records name each, whether it is on disk. (Plain loops: there are millions.)"""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.sizes = array("q")
        self.users = array("l")
        self._there = bytearray()
        self._held = bytearray()

    def name(self, blobs: Iterable[tuple[str, int]]) -> array[int]:
        """The numbers of what one record names, each counted as named once more."""
        known, numbers = self._numbers, array("l")
        for digits, size in blobs:
            number = known.get(digits)
            if number is None:
                number = known[digits] = len(self.sizes)
                self.sizes.append(size)
                self.users.append(0)
                self._there.append(0)
                self._held.append(0)
            self.users[number] += 1
            numbers.append(number)
        return numbers

    def mark(self, layout: Layout) -> Iterator[tuple[Path, os.stat_result]]:
        """Note which of the named blobs are on disk; yields the others that are there. Raises OSError."""
        for folder in (layout.blobs / shard for shard in shards(layout.blobs)):
            for name in os.listdir(folder):  # noqa: PTH208  # names are all that is wanted of most
                number = self._numbers.get(name)
                if number is not None and name.startswith(folder.name):
                    self._there[number] = 1
                    continue
                with suppress(FileNotFoundError):
                    yield folder / name, (folder / name).lstat()

    def lost(self, numbers: array[int]) -> bool:
        """Whether one of them is not on disk."""
        return not all(self._there[number] for number in numbers)

    def hold(self, numbers: array[int]) -> None:
        """Note that they stay, whatever else goes."""
        for number in numbers:
            self._held[number] = 1

    def share(self, numbers: array[int]) -> float:
        """Bytes of those that are not held, a blob that several records name in equal parts."""
        mine = (n for n in numbers if self._there[n] and not self._held[n])
        return sum(self.sizes[n] / self.users[n] for n in mine)

    def total(self) -> int:
        """Bytes on disk of all that is named."""
        there = zip(self.sizes, self._there, strict=True)
        return sum(size for size, is_there in there if is_there)

    def drop(self, numbers: array[int]) -> int:
        """Count a record out; returns the bytes of the blobs that no record names any more."""
        freed = 0
        for number in numbers:
            self.users[number] -= 1
            if not self.users[number] and self._there[number]:
                freed += self.sizes[number]
        return freed

    def unnamed(self) -> Iterator[str]:
        """The digits of what was named once, is on disk, and is named no more."""
        for digits, number in self._numbers.items():
            if not self.users[number] and self._there[number]:
                yield digits
