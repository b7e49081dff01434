"""The decisions of a collection: what goes and what stays, with the reason for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from trtstore.disk.layout import Layout
from trtstore.upkeep.score import Worth

Kind = Literal["record", "blob", "tree", "root", "quarantine", "toolchain", "hint"]

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Decision(NamedTuple):
    """One thing that goes or stays, and why. `bytes` are those that its removal frees, or that it takes.

    `path` is where it lies; None for a record and a tree, whose name says it. (There may be a hundred thousand.)
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

    @property
    def freed(self) -> int:
        """Bytes that this decision frees."""
        return self.bytes if self.remove else 0


@dataclass(frozen=True)
class EvictionPlan:
    """What a collection does. Bytes are those of files, `before` and `after`; `limit` is the given one, or None.

    `blobs` gives the digits of the blobs of the records that go, whose bytes are counted with them.
    """

    limit: int | None
    before: int = 0
    decisions: tuple[Decision, ...] = ()
    blobs: Callable[[], Iterator[str]] = lambda: iter(())

    @property
    def removed(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.remove]

    @property
    def after(self) -> int:
        return self.before - sum(decision.freed for decision in self.decisions)

    @property
    def met(self) -> bool:
        """Whether what is left is within the limit."""
        return self.limit is None or self.after <= self.limit
