"""What a collector must keep, whatever it costs: roots, pins, what is built or read, and what was used lately."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from trtstore.disk import locks
from trtstore.disk.layout import Layout, entries
from trtstore.format.digest import is_hex
from trtstore.marks import pins, roots
from trtstore.marks.pending import Pending


@dataclass(frozen=True)
class Protected:
    """Reasons by digits of a tree, and by key; whatever was used after `horizon` is kept too, as `since` says."""

    trees: Mapping[str, str]
    keys: Mapping[str, str]
    horizon: float
    since: str
    dead_roots: list[roots.Root] = field(default_factory=list)

    def with_trees(self, records: Iterable[tuple[str, str]]) -> Protected:
        """With the trees, too, of those `records` (key, digits of the tree) whose key is kept."""
        trees = dict(self.trees)
        for key, digits in records:
            if key in self.keys:
                trees.setdefault(digits, self.keys[key])
        return replace(self, trees=trees)


def protected(layout: Layout, now: float, grace: float, mine: Path | None = None) -> Protected:
    """What must be kept at `now`. `mine` is the caller's own folder in tmp/. Raises OSError."""
    trees: dict[str, str] = {}
    keys: dict[str, str] = {}
    dead = []
    for root in roots.found(layout):
        if root.tree is None:
            dead.append(root)
        else:
            trees.setdefault(root.tree, f"a root: {root.link}")
    for key, pin in pins.found(layout).items():
        keys[key] = f"pinned: {pin.note}" if pin.note else "pinned"
    for key in Pending(layout).waiting():
        keys.setdefault(key, "it waits to be pushed")
    started = now
    for kind, name, since in _running(layout, mine):
        if kind == "tree":
            trees.setdefault(name, "its folder is being made")
            continue
        if kind == "build":
            keys.setdefault(name, "it is being built")
        started = min(started, since)
    if started < now - grace:
        since_words = "used since the oldest build that is still running began"
    else:
        since_words = f"used within the grace period of {_span(grace)}"
    return Protected(trees, keys, min(now - grace, started), since_words, dead)


def _running(layout: Layout, mine: Path | None) -> Iterator[tuple[str, str, float]]:
    """(build, tree or tmp, name, since when) of each lock that somebody holds."""
    for path in entries(layout.locks):
        kind, _, name = path.name.partition("-")
        if kind in ("build", "tree") and is_hex(name):
            since = _held(path)
            if since is not None:
                yield kind, name, since
    for home in entries(layout.tmp):
        since = None if home == mine else _held(home / "lock")
        if since is not None:
            yield "tmp", home.name, since


def _held(path: Path) -> float | None:
    with suppress(NotADirectoryError):  # a stray file in tmp/
        return locks.held_since(path)
    return None


def _span(seconds: float) -> str:
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = seconds / size
            return f"{count:g} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:g} seconds"
