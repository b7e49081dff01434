"""What a collection removes and what it keeps, with the reason for each; nothing is changed here."""

from __future__ import annotations

import os
import stat
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Literal, NamedTuple

from trtstore import units
from trtstore.content import hints, read, trees
from trtstore.disk import locks
from trtstore.disk.layout import Layout, entries
from trtstore.environments.environment import Environment
from trtstore.environments.environment import read as read_environment
from trtstore.errors import Malformed
from trtstore.format.labels import needs
from trtstore.index import usage
from trtstore.index.index import Index
from trtstore.upkeep.catalog import Catalog, OnParsed, Summary
from trtstore.upkeep.live import protected
from trtstore.upkeep.refcounts import Ledger
from trtstore.upkeep.score import UNKNOWN_SECONDS, Worth, chance

QUARANTINE_AGE = 7 * 86_400.0  # seconds that damaged things are kept to be looked at
HINT_AGE = 90 * 86_400.0  # seconds that a hint stays which no builder takes

Kind = Literal["record", "blob", "tree", "root", "quarantine", "toolchain", "hint"]

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Decision(NamedTuple):
    """One thing that goes or stays, and why. `bytes` are those that its going frees, or that it takes.

    `path` is where it lies; None for a record and a tree, whose name says where. (There may be a hundred thousand.)
    """

    kind: Kind
    name: str
    remove: bool
    reason: str
    bytes: int
    path: Path | None = None
    labels: Mapping[str, str] = _NO_LABELS
    worth: Worth | None = None

    def place(self, layout: Layout) -> Path:
        """Where it lies."""
        if self.path is not None:
            return self.path
        return layout.record(self.name) if self.kind == "record" else layout.tree(self.name)


@dataclass
class Plan:
    """What a collection does. Bytes are those of files, before and after; `limit` is what was asked for."""

    limit: int | None
    before: int = 0
    decisions: list[Decision] = field(default_factory=list)
    #: gives the digits of the blobs of the records that go, whose bytes are counted with them
    blobs: Callable[[], Iterator[str]] = lambda: iter(())

    @property
    def removed(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.remove]

    @property
    def after(self) -> int:
        return self.before - sum(decision.bytes for decision in self.removed)

    @property
    def met(self) -> bool:
        """Whether what is left is within the limit."""
        return self.limit is None or self.after <= self.limit


class Planner:
    """One decision over a whole store. `mine` is the caller's own folder in tmp/.

    Raises Invalid where a folder of the store is a link, OSError.
    """

    def __init__(
        self, layout: Layout, index: Index, limit: int | None, grace: float, mine: Path | None = None
    ) -> None:
        layout.check()  # a record behind a link is a miss, and its blobs would be garbage
        self._layout, self._index = layout, index
        self._now = time.time()
        self._plan = Plan(limit)
        self._left = 0  # bytes that the decisions so far leave
        self._keep = protected(layout, self._now, grace, mine)
        self._ledger = Ledger()
        self._records: Counter[str] = Counter()  # tree digits -> how many usable records it has
        self._made: set[str] = set()  # the names in trees/
        self._rooted: set[str] = set()  # digits of trees whose blobs are kept without a record
        self._copies: dict[str, int] = {}  # tree digits -> copied bytes, of trees that may go
        self._idle: list[Environment] = []  # that may go

    def plan(self, on_parsed: OnParsed) -> Plan:
        """Garbage first, then copies, then records, until the limit is met."""
        catalog = Catalog(self._layout, self._index)
        named = [(summary, self._ledger.name(blobs)) for summary, blobs in catalog.named(on_parsed)]
        self._keep_rooted({summary.manifest for summary, _ in named})
        garbage = list(self._ledger.mark(self._layout))
        self._keep_rooted({summary.manifest for summary, numbers in named if not self._ledger.lost(numbers)})
        self._plan.before = self._ledger.total() + sum(status.st_size for _, status in garbage)
        usable = list(self._usable(named))
        self._unnamed(garbage)
        for root in self._keep.dead_roots:
            why = f"{root.link} leads to nothing here any more"
            self._go("root", root.name, why, 0, self._layout.roots / root.name)
        self._quarantined()
        self._folders()
        self._environments()
        self._hints()
        self._left = self._plan.after
        self._shrink(usable)
        self._plan.blobs = self._ledger.unnamed
        return self._plan

    def _go(self, kind: Kind, name: str, reason: str, size: int, path: Path | None = None) -> None:
        self._plan.decisions.append(Decision(kind, name, True, reason, size, path))
        self._left -= size

    def _stay(self, kind: Kind, name: str, reason: str, size: int, path: Path | None = None) -> None:
        self._plan.decisions.append(Decision(kind, name, False, reason, size, path))

    def _record(self, it: Summary, remove: bool, reason: str, size: int, worth: Worth | None = None) -> None:
        self._plan.decisions.append(Decision("record", it.key, remove, reason, size, None, it.labels, worth))
        self._left -= size if remove else 0

    def _keep_rooted(self, known: set[str]) -> None:
        """A root keeps its blobs too where no record of `known` trees does."""
        for digits in sorted(self._keep.trees.keys() - known - self._rooted):
            self._rooted.add(digits)
            with suppress(Malformed):
                listed = read.read_manifest(self._layout, f"sha256:{digits}")
                sizes = {entry.sha256: entry.size for entry in listed.entries}
                self._ledger.hold(self._ledger.name([(digits, len(listed.encode())), *sizes.items()]))

    def _usable(self, named: list[tuple[Summary, array[int]]]) -> Iterator[tuple[Summary, array[int]]]:
        for summary, numbers in named:
            if not summary.manifest or self._ledger.lost(numbers):
                self._record(summary, True, "unusable: a miss, whoever asks", self._ledger.drop(numbers))
                continue
            self._records[summary.manifest] += 1
            if summary.key in self._keep.keys:
                self._keep.trees.setdefault(summary.manifest, self._keep.keys[summary.key])
            yield summary, numbers

    def _unnamed(self, garbage: list[tuple[Path, os.stat_result]]) -> None:
        for path, status in garbage:
            if status.st_ctime < self._keep.horizon:
                self._go("blob", path.name, "no record names it", status.st_size, path)
            else:
                why = f"no record names it, and it was {self._keep.since}"
                self._stay("blob", path.name, why, status.st_size, path)

    def _quarantined(self) -> None:
        for path in entries(self._layout.quarantine):
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # another collector took it
            size = _size(path, copies=stat.S_ISDIR(status.st_mode))  # a tree's files are blobs' other names
            self._plan.before += size
            if self._now - status.st_ctime > QUARANTINE_AGE:
                self._go("quarantine", path.name, "it was damaged, more than a week ago", size, path)
            else:
                why = "it was damaged; kept for a week to be looked at"
                self._stay("quarantine", path.name, why, size, path)

    def _folders(self) -> None:
        """Decide upon trees that no record leads to; notes the others that hold copied bytes and may go."""
        copied = self._index.items("copied")
        for path in entries(self._layout.trees):
            self._made.add(path.name)
            known = copied.get(path.name)
            size = known if type(known) is int and known >= 0 else _size(path, copies=True)
            self._plan.before += size
            reason = self._in_use(path)
            if path.name not in self._records and reason is None:
                self._go("tree", path.name, "no record leads to it", size)
            elif reason is None and size:
                self._copies[path.name] = size

    def _in_use(self, path: Path) -> str | None:
        """Why the tree at `path` must stay; None when it may go."""
        if path.name in self._keep.trees:
            return self._keep.trees[path.name]
        try:
            status = path.lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            return None
        if status.st_mtime >= self._keep.horizon:
            return self._keep.since
        fd = trees.take(path, alone=True)
        if fd is None:
            return "it is being read"
        os.close(fd)
        return None

    def _environments(self) -> None:
        """Decide upon what is no whole environment, or in use; notes the others, which may go."""
        for path in entries(self._layout.toolchains):
            found = read_environment(path)
            size = _size(path) if found is None else found.bytes
            self._plan.before += size
            with suppress(FileNotFoundError):
                if found is not None and found.used >= self._keep.horizon:
                    self._stay("toolchain", path.name, self._keep.since, size, path)
                elif not path.is_symlink() and path.is_dir() and _held(path):
                    self._stay("toolchain", path.name, "it is in use", size, path)
                elif found is None:
                    self._go("toolchain", path.name, "it is not whole: nobody uses it", size, path)
                else:
                    self._idle.append(found)

    def _hints(self) -> None:
        for path in entries(self._layout.hints):
            with suppress(OSError):
                size, last = hints.used(path)
                self._plan.before += size
                if self._now - last > HINT_AGE:
                    self._go("hint", path.name, "no build took it for three months", size, path)
                else:
                    self._stay("hint", path.name, "it makes builds quicker", size, path)

    def _shrink_environments(self) -> None:
        limit = self._plan.limit
        for one in sorted(self._idle, key=lambda each: each.used):
            if limit is None or self._left <= limit:
                enough = "no limit was given" if limit is None else "the store is within its limit"
                self._stay("toolchain", one.name, enough, one.bytes, one.path)
            else:
                why = f"{one.title}, last used {units.ago(self._now - one.used)}: its lock can make it again"
                self._go("toolchain", one.name, why, one.bytes, one.path)

    def _shrink(self, usable: list[tuple[Summary, array[int]]]) -> None:
        limit = self._plan.limit
        self._shrink_environments()
        dropped: set[str] = set()
        for digits, size in self._copies.items():
            if limit is not None and self._left > limit:
                dropped.add(digits)
                self._go("tree", digits, "a copy that its blobs can make again in seconds", size)
        enough = "no limit was given" if limit is None else "the store is within its limit"
        for summary, numbers, worth in self._by_worth(usable):
            if limit is None or self._left <= limit:
                self._record(summary, False, enough, summary.bytes, worth)
                continue
            self._record(summary, True, "cheapest to lose", self._ledger.drop(numbers), worth)
            tree = summary.manifest
            self._records[tree] -= 1
            if not self._records[tree] and tree not in dropped and tree in self._made:
                self._go("tree", tree, "its last record goes", self._copies.get(tree, 0))

    def _by_worth(self, usable: list[tuple[Summary, array[int]]]) -> list[tuple[Summary, array[int], Worth]]:
        """What may go, the cheapest to lose first; what must stay is decided upon."""
        hits, built = usage.hits(self._index), usage.build_seconds(self._index)
        known = [seconds for s, _ in usable if (seconds := built.get(s.key, s.seconds)) is not None]
        typical = median(known) if known else UNKNOWN_SECONDS
        found = []
        for summary, numbers in list(
            self._free(usable)
        ):  # all that stays is known before anything is weighed
            seconds = built.get(summary.key, summary.seconds)
            uses, idle = hits.get(summary.key, (0,))[0], self._now - summary.used
            worth = Worth(
                seconds=typical if seconds is None else seconds,
                known=seconds is not None,
                hits=uses,
                idle=idle,
                chance=chance(uses, self._now - summary.stored, idle),
                bytes=self._ledger.share(numbers),
            )
            found.append((summary, numbers, worth))
        least: dict[str, float] = {}  # what others need is worth no less than they are, and goes after them
        for summary, _, worth in found:
            for key in needs(summary.labels):
                least[key] = max(least.get(key, 0.0), worth.density)

        def order(item: tuple[Summary, array[int], Worth]) -> tuple[float, bool, float, str]:
            summary, _, worth = item
            return (
                max(worth.density, least.get(summary.key, 0.0)),
                summary.key in least,
                summary.used,
                summary.key,
            )

        return sorted(found, key=order)

    def _free(self, usable: list[tuple[Summary, array[int]]]) -> Iterator[tuple[Summary, array[int]]]:
        """What nothing keeps; decides upon the others."""
        left = []
        for summary, numbers in sorted(
            usable, key=lambda item: not needs(item[0].labels)
        ):  # those that need others first
            reason = self._must_stay(summary)
            if reason is None:
                left.append((summary, numbers))
                continue
            for key in needs(summary.labels):
                self._keep.keys.setdefault(key, f"{summary.key[:12]} needs it")
            self._record(summary, False, reason, summary.bytes)
            self._ledger.hold(numbers)
        yield from left

    def _must_stay(self, summary: Summary) -> str | None:
        reason = self._keep.keys.get(summary.key) or self._keep.trees.get(summary.manifest)
        if reason is not None:
            return reason
        if summary.used >= self._keep.horizon:
            return self._keep.since
        return self._in_use(self._layout.tree(summary.manifest)) if summary.manifest in self._made else None


def _held(path: Path) -> bool:
    """Whether somebody uses the folder `path`. Raises FileNotFoundError and the like."""
    fd = locks.folder(path, alone=True)
    if fd is not None:
        os.close(fd)
    return fd is None


def _size(path: Path, *, copies: bool = False) -> int:
    """Bytes of the files at or below `path`; with `copies`, of those that are no other file's second name."""
    with suppress(OSError):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            return sum(_size(inner, copies=copies) for inner in entries(path))
        return 0 if copies and status.st_nlink > 1 else status.st_size
    return 0
