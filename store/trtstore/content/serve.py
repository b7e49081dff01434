"""Artifacts as they are handed out: blobs and folders whose seal is broken are read first, so none is served unseen."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trtstore.content import blobs, read, trees
from trtstore.content import verify as verification
from trtstore.content.trees import Materialised
from trtstore.disk import gate, locks, scratch
from trtstore.disk.hashing import OnBytes, in_threads
from trtstore.disk.layout import Layout
from trtstore.errors import Corrupt, Malformed, as_store_failures
from trtstore.format.digest import hex_of
from trtstore.format.manifest import Manifest
from trtstore.format.record import Record
from trtstore.index.index import Index
from trtstore.index.seals import ARTIFACT, TREE, Seals

COPIES = 3600.0  # seconds for another process that makes the same folder, from copies at the worst


@dataclass(frozen=True)
class Served:
    """Hands out the artifacts of one store, each compared with its seal."""

    layout: Layout
    index: Index
    seals: Seals

    def damage(self, record: Record, listed: Manifest) -> list[str]:
        """What is wrong with the blobs of a usable record, in words; what is damaged is quarantined.

        Only blobs whose seal is broken are read. Raises NotReadable, StoreFailure.
        """
        with as_store_failures(self.layout.root, reading=True):
            named = {**read.named_blobs(record, listed)}
            try:
                statuses = self._found(named)
                if self.seals.holds(ARTIFACT, record.key, statuses):
                    self.seals.believe(statuses)
                    return []
                wrong = self._read(named, statuses)
                if not wrong:
                    self.seal(record, named)
                    return []
            except FileNotFoundError as gone:  # collected, or quarantined by another reader
                return [f"{gone.filename} is not there any more"]
        return verification.damage(self.layout, record) or wrong

    def seal(self, record: Record, named: Mapping[str, int]) -> None:
        """Write down the seals of all blobs that the record names, where each is known to be right."""
        self.seals.settle({})
        with self.index.batch():
            self.seals.flush()
            with suppress(OSError):
                statuses = self._found(named)
                if all(self.seals.is_right(digits, status) for digits, status in statuses.items()):
                    self.seals.hold(ARTIFACT, record.key, statuses)

    def _found(self, named: Mapping[str, int]) -> dict[str, os.stat_result]:
        folder = str(self.layout.blobs)  # a Path takes thrice as long, for every blob
        return {digits: os.lstat(f"{folder}/{digits[:2]}/{digits}") for digits in named}

    def _read(self, named: Mapping[str, int], statuses: Mapping[str, os.stat_result]) -> list[str]:
        broken = [digits for digits, status in statuses.items() if not self.seals.is_right(digits, status)]

        def work(digits: str, on_bytes: OnBytes) -> str | None:
            return blobs.problem(self.layout, digits, named[digits], seals=self.seals, on_bytes=on_bytes)

        return [trouble for trouble in in_threads(work, broken, lambda _: None) if trouble is not None]

    def materialise(self, record: Record) -> Materialised:
        """As `Store.materialise`."""
        started = time.perf_counter()
        tree = self.layout.tree(hex_of(record.manifest))
        with as_store_failures(self.layout.root, reading=True):
            # No collector is between its decision and its removal while this looks, and marks the tree as used.
            with gate.looking(self.layout):
                wanted = self._usable(record)
                held = trees.hold(self.layout, tree)
            with _closing(held):
                if wrong := self.damage(record, wanted):
                    raise Corrupt(wrong[0], "build it again: what is broken counts as absent")
                present = held is not None and self._is_sound(tree, wanted)
        method: trees.Method = "present" if present else self._rebuild(record, tree, wanted)
        return Materialised(tree, method, time.perf_counter() - started)

    @contextmanager
    def reading(self, record: Record) -> Iterator[Materialised]:
        """As `Store.reading`."""
        while True:
            made = self.materialise(record)
            # A collection that has decided already is done after this; a later one sees the reader.
            with gate.looking(self.layout), as_store_failures(self.layout.root, reading=True):
                fd = trees.take(made.path, alone=False)
            if fd is not None:
                break  # else it was removed in between
            time.sleep(locks.POLL)
        try:
            yield made
        finally:
            os.close(fd)

    def _usable(self, record: Record) -> Manifest:
        try:
            return read.usable_manifest(self.layout, record)
        except Malformed as trouble:
            raise Corrupt(str(trouble), "build it again: what is broken counts as absent") from None

    def _is_sound(self, tree: Path, wanted: Manifest) -> bool:
        """Whether the tree is whole, and its copies have the right bytes: read where their seal is broken."""
        own = trees.own_files(self.layout, tree, wanted)
        if own is None or self.seals.holds(TREE, tree.name, own):
            return own is not None
        digits = {entry.path: entry.sha256 for entry in wanted.entries}
        try:
            right = all(self.seals.read(digits[path], tree / path, its.st_size) for path, its in own.items())
        except FileNotFoundError:
            return False
        if right:
            self.seals.hold(TREE, tree.name, own)
        return right

    def _rebuild(self, record: Record, tree: Path, wanted: Manifest) -> trees.Method:
        who = f"a process that makes a folder, {os.getpid()}"
        with lock(self.layout, "tree", tree.name, who=who, patience=COPIES):
            with gate.adding(self.layout):
                pass  # a collector that decided before this lock is done; a later one sees it
            with scratch.folder(self.layout) as work, as_store_failures(self.layout.root):
                held = trees.hold(self.layout, tree)
                with _closing(held):
                    if held is not None and self._is_sound(tree, wanted):
                        return "present"
                built = trees.build(self.layout, work / "tree", wanted, self.seals)
                self.layout.make(tree.parent)
                with suppress(FileNotFoundError):
                    tree.rename(work / "broken")
                (work / "tree").rename(tree)
        self.seals.settle(built.own)
        with self.index.batch():
            self.index.put("copied", tree.name, built.copied)  # which a collector counts
            self.seals.hold(TREE, tree.name, built.own)
            self.seal(record, read.named_blobs(record, wanted))
        return built.method


@contextmanager
def lock(
    layout: Layout,
    kind: str,
    name: str,
    *,
    who: str = "",
    on_wait: Callable[[locks.Holder], None] | None = None,
    patience: float = math.inf,
) -> Iterator[None]:
    """Hold the lock of a key, a record or a tree alone. Raises Busy, NotWritable, StoreFailure."""
    with as_store_failures(layout.root):
        layout.make(layout.locks)
    with locks.exclusive(layout.lock(kind, name), who=who, on_wait=on_wait, patience=patience):
        yield


@contextmanager
def _closing(fd: int | None) -> Iterator[None]:
    with ExitStack() as held:
        if fd is not None:
            held.callback(os.close, fd)
        yield
