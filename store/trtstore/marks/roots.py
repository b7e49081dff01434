"""Links that keep an artifact alive: a symbolic link of the user's, and an entry in roots/ that names it, as in Nix.

The entry is itself a symbolic link, to the user's. A user drops a root with `rm`, and nothing else: an entry whose
link is gone, or leads elsewhere, counts for nothing.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trtstore.disk.layout import VERSION, Layout, entries
from trtstore.errors import Invalid, as_store_failures
from trtstore.format.digest import hash_bytes, is_hex


def add(layout: Layout, link: Path, tree: Path) -> None:
    """Make `link` a symbolic link to `tree`, and a root. Raises Invalid where something else has that name."""
    with as_store_failures(link):
        _check_replaceable(link)
        link = link.parent.resolve() / link.name
    entry = layout.roots / hash_bytes(os.fsencode(link))
    with as_store_failures(layout.root):
        layout.make(layout.roots)
        # Entry first: a collector that runs in between sees an entry without its link, and that is harmless.
        _lead(entry, link)
        layout.sync(layout.roots)
    with as_store_failures(link):
        _lead(link, tree)


@dataclass(frozen=True)
class Root:
    """An entry of roots/: its name, the user's link, and the digits of the tree it keeps; None where it is dead."""

    name: str
    link: Path
    tree: str | None


def found(layout: Layout) -> list[Root]:
    """Every entry, the dead ones too. Raises Invalid where roots/ is a link, OSError."""
    trees = str(Path(os.path.realpath(layout.base), layout.trees.name))
    roots = []
    for entry in entries(layout.own(layout.roots)):
        if entry.is_symlink() and is_hex(entry.name):
            with suppress(FileNotFoundError):  # it was dead, and is collected meanwhile
                link = entry.readlink()
                roots.append(Root(entry.name, link, _kept(link, trees)))
    return roots


def _kept(link: Path, trees: str) -> str | None:
    try:
        target = link.readlink()
    except OSError:
        return None
    inside = os.path.realpath(target.parent) == trees
    return target.name if inside and is_hex(target.name) else None


def _check_replaceable(link: Path) -> None:
    if "\0" in str(link):
        raise Invalid(f"{str(link)!r} is no path", "choose another name")
    if not link.parent.is_dir():
        raise Invalid(f"{link} cannot be made: there is no folder {link.parent}", f"mkdir -p {link.parent}")
    if link.is_symlink():
        _check_owner(link)
        target = link.readlink()
        # That of another store is as good: it was made by this function.
        if is_hex(target.name) and target.parts[-3:-1] == (VERSION, "trees"):
            return
        raise Invalid(
            f"{link} is a link to {target}, and no store made it",
            "choose another name",
        )
    if os.path.lexists(link):
        raise Invalid(f"{link} exists and is not a link made by a store", "choose another name, or remove it")


def _check_owner(link: Path) -> None:
    """Raises Invalid where the link is another user's, who could let it lead elsewhere later, as in /tmp."""
    if link.lstat().st_uid not in (0, os.geteuid()):
        raise Invalid(f"{link} is a link of another user's", "choose another name, in a folder of your own")


def _lead(link: Path, target: Path) -> None:
    """Make `link` lead to `target`: in one call where nothing has its name yet, which a kill cannot cut in two."""
    try:
        link.symlink_to(target)
    except FileExistsError:
        # A root that is added again, the usual case, leads there already.
        if not (link.is_symlink() and link.readlink() == target):
            _replace(link, target)
        _check_owner(link)  # somebody may have put one there since it was looked at


def _replace(link: Path, target: Path) -> None:
    temporary = link.with_name(f".{secrets.token_hex(8)}")  # short: the link's own name may be of the most bytes
    temporary.symlink_to(target)
    try:
        temporary.replace(link)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
