"""Keys that a collector keeps: a file in pins/ by the key's name, which says who pinned it and why."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass

from trtstore.disk.layout import Layout, entries, read_bounded
from trtstore.errors import Malformed, as_store_failures
from trtstore.format import canonical_json
from trtstore.format.digest import is_hex

MAX_NOTE = 1024  # characters


@dataclass(frozen=True)
class Pin:
    """A pinned key: a note for people, and when (seconds since the epoch)."""

    key: str
    note: str
    since: float


def add(layout: Layout, key: str, note: str) -> None:
    """Pin `key`. Raises NotWritable, NoSpace, StoreFailure."""
    text = json.dumps({"note": note[:MAX_NOTE], "since": time.time()})
    with as_store_failures(layout.root):
        layout.make(layout.pins)
        temporary = layout.pins / f".{secrets.token_hex(8)}"
        try:
            with temporary.open("x") as file:  # not through a link that somebody left
                file.write(text)
            layout.sync(temporary)
            temporary.replace(layout.pins / key)
        finally:
            temporary.unlink(missing_ok=True)
        layout.sync(layout.pins)


def remove(layout: Layout, key: str) -> bool:
    """Unpin `key`; returns whether it was pinned. Raises NotWritable, StoreFailure."""
    with as_store_failures(layout.root):
        try:
            (layout.own(layout.pins) / key).unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def found(layout: Layout) -> dict[str, Pin]:
    """The pins by key. A pin counts whatever its file holds. Raises Invalid where pins/ is a link, OSError."""
    names = [path.name for path in entries(layout.own(layout.pins))]
    return {name: _read(layout, name) for name in names if is_hex(name)}


def _read(layout: Layout, key: str) -> Pin:
    try:
        data = read_bounded(layout.pins / key, 8 * MAX_NOTE) or b""
        said = canonical_json.fields(canonical_json.parse(data, "the pin"), "the pin", {"note": str, "since": float})
    except (Malformed, OSError):
        return Pin(key, "", 0.0)
    return Pin(key, said["note"][:MAX_NOTE], said["since"])
