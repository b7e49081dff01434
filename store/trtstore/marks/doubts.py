"""Artifacts that came here on less than the word of a key that is trusted for everything: a file in doubts/ by the key.

    {"from":"engines.tar","schema":1,"scopes":[],"since":1780000000}

Without scopes no trusted key signed it: a user accepted it all the same. It is never signed anew from here. With
scopes, keys signed it that are trusted for such labels alone. It is used for these, and only a key with such a scope
signs it. The same goes for what is built from it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from trtstore.disk.layout import Layout, entries, read_bounded, write_small
from trtstore.errors import Malformed, as_store_failures
from trtstore.format import canonical_json
from trtstore.format.digest import is_hex
from trtstore.format.envelope import MAX_VALUE
from trtstore.format.trust import Scope, Trusted, holds
from trtstore.units import shown

MAX_BYTES = 1 << 20
MAX_SCOPES = 16
BUILT_FROM = ", from which it was built)"


@dataclass(frozen=True)
class Doubt:
    """Where an artifact came from, in words, and the scopes of its signers; empty if there are none.

    >>> Doubt("a bundle from a partner").unsigned
    True
    """

    origin: str
    scopes: tuple[Scope, ...] = ()

    @property
    def unsigned(self) -> bool:
        """Whether no trusted key signed it."""
        return not self.scopes

    def admits(self, labels: Mapping[str, str]) -> bool:
        """Whether an artifact with these labels may be used without a note."""
        return any(holds(scope, labels) for scope in self.scopes)

    def lets_sign(self, lines: Sequence[Trusted]) -> bool:
        """Whether a key that is trusted by these lines may sign the artifact: for no wider scope than its signers'."""
        known = [one.scope for one in lines]
        return bool(known) and all(scope in self.scopes for scope in known)

    def passed_on(self, other: Doubt | None, name: str) -> Doubt:
        """What is to be remembered against what was built from this artifact, the step `name`, and of `other`."""
        origin = self.origin
        if BUILT_FROM not in origin:
            origin = f"{origin} ({name}{BUILT_FROM}"
        if other is None:
            return Doubt(origin, self.scopes)
        return Doubt(origin, tuple(scope for scope in self.scopes if scope in other.scopes))

    def __str__(self) -> str:
        if self.unsigned:
            return f"came unsigned from {self.origin}"
        only = " or ".join(
            " ".join(f"{label}={','.join(some)}" for label, some in sorted(scope.items())) for scope in self.scopes
        )
        return f"came from {self.origin}, signed for {only} alone"


def gives_way(there: Doubt | None, new: Doubt | None) -> bool:
    """Whether an artifact of which `there` is known gives way to one of which `new` is: to a better or another word."""
    if there is None or new is None:
        return there is not None
    return not new.unsigned and new.scopes != there.scopes


def mark(layout: Layout, key: str, doubt: Doubt) -> None:
    """Write down that `key` is doubted, before its record is there. Raises NotWritable, StoreFailure."""
    said = {
        "schema": 1,
        "from": doubt.origin[:MAX_VALUE],
        "since": int(time.time()),
        "scopes": [{label: list(some) for label, some in scope.items()} for scope in doubt.scopes],
    }
    data = canonical_json.canonical(said)
    if len(data) > MAX_BYTES:
        data = canonical_json.canonical({**said, "scopes": []})  # which admits less
    with as_store_failures(layout.root):
        write_small(layout, layout.doubts / key, data)


def clear(layout: Layout, key: str) -> None:
    """Remove the doubt about `key`. Raises NotWritable, StoreFailure."""
    with as_store_failures(layout.root), suppress(FileNotFoundError, NotADirectoryError):
        (layout.own(layout.doubts) / key).unlink()


def found(layout: Layout) -> set[str]:
    """The keys that are doubted. Raises Invalid where their folder is a link, OSError."""
    return {path.name for path in entries(layout.own(layout.doubts)) if is_hex(path.name)}


def of(layout: Layout, key: str) -> Doubt | None:
    """What is doubted of `key`, or None. A file that does not parse is a doubt all the same. Raises OSError."""
    place = layout.doubts / key
    try:
        place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        data = read_bounded(layout.own(layout.doubts) / key, MAX_BYTES)
        if data is None:
            raise Malformed("the doubt cannot be read")
        return _parse(data)
    except Malformed:
        return Doubt("somewhere: what was written down of it cannot be read")


def _parse(data: bytes) -> Doubt:
    said = canonical_json.fields(
        canonical_json.parse(data, "the doubt"),
        "the doubt",
        {"schema": int, "from": str, "since": int, "scopes": list},
    )
    if said["schema"] != 1 or len(said["scopes"]) > MAX_SCOPES:
        raise Malformed("the doubt is of another schema")
    return Doubt(shown(said["from"])[:MAX_VALUE], scopes(said["scopes"]))


def scopes(items: Sequence[object]) -> tuple[Scope, ...]:
    """Scopes that were written down. Raises Malformed."""
    return tuple(_scope(one) for one in items)


def _scope(one: object) -> Scope:
    if not isinstance(one, dict):
        raise Malformed("a scope is no object")
    for some in one.values():
        if not isinstance(some, list) or not all(isinstance(pattern, str) for pattern in some):
            raise Malformed("a scope's patterns are no texts")
    return {label: tuple(some) for label, some in one.items()}
