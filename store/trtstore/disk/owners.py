"""Who may write to a store's folders: this user and root, and a group if the user says so."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal

from trtstore.disk.layout import Layout
from trtstore.errors import Exposed, Invalid

#: The variable that says with whom a store is shared, if no option does.
VARIABLE = "TRTSTORE_SHARED_WITH"
SharedWith = Literal["nobody", "group"]


def shared_with(named: str | None = None) -> SharedWith:
    """`named`, else $TRTSTORE_SHARED_WITH, else "nobody". Raises Invalid for another word."""
    choice = named or os.environ.get(VARIABLE) or "nobody"
    if choice == "group":
        return "group"
    if choice == "nobody":
        return "nobody"
    raise Invalid(f"{choice!r} is nobody to share a store with", f"{VARIABLE} is nobody or group")


def check(layout: Layout) -> None:
    """Raises Exposed where others may write to the store, or swap it for another one. OSError where one cannot look.

    A look at each folder above the root and at each kind of folder below it, whatever the store's size.
    """
    root = _status(layout.root)
    trusted = {0, os.geteuid()}
    if root is not None:
        if layout.shared and not _is_member(root.st_gid):
            raise Exposed(
                f"{layout.root} is shared with the group {_group(root.st_gid)}, which this user is not in",
                f"sudo usermod -aG {_group(root.st_gid)} {_user(os.geteuid())}    # and log in again",
            )
        for folder in _folders(layout):
            _check(layout, folder, None if layout.shared else trusted, root.st_gid if layout.shared else None)
        if layout.shared:
            trusted.add(root.st_uid)
    _check_above(layout, trusted)


def owns(layout: Layout, key: str, tell: Callable[[str], None]) -> bool:
    """Whether the record of `key`, if it is there, belongs to this user or root; another user's is noted.

    Blobs have names that tell their bytes, and need no such look. Raises Exposed where others may put a record there,
    OSError.
    """
    place, trusted = layout.record(key), {0, os.geteuid()}
    if layout.shared:
        return True
    _check(layout, place.parent, trusted, None)
    status = _status(place)
    if status is None or status.st_uid in trusted:
        return True
    tell(f"{place} is taken as absent: it belongs to {_user(status.st_uid)}")
    return False


def check_other(layout: Layout) -> None:
    """As `check`, for a store that is only read: the user named it, so its writers are trusted.

    Raises Exposed where everybody may.
    """
    for folder in _folders(layout):
        status = _status(folder)
        if status is not None and status.st_mode & stat.S_IWOTH and not stat.S_ISLNK(status.st_mode):
            raise Exposed(
                f"everybody may write to {folder}, so nothing says whose artifacts the store {layout.root} has",
                f"its owner mends that: chmod -R o-w {shlex.quote(str(layout.root))}",
            )


def _folders(layout: Layout) -> Iterator[Path]:
    yield from (layout.base, layout.blobs.parent, layout.blobs, layout.records, layout.trees)
    yield from (layout.roots, layout.pins, layout.pending, layout.revoked, layout.quarantine, layout.locks)
    yield from (layout.tmp, layout.partial, layout.toolchains, layout.hints, layout.doubts, layout.teams)


def _check(layout: Layout, folder: Path, trusted: set[int] | None, group: int | None) -> None:
    status = _status(folder, follow=folder == layout.base)
    if status is None or stat.S_ISLNK(status.st_mode):
        return  # a link is refused where it is used
    root = shlex.quote(str(layout.root))
    if trusted is not None and status.st_uid not in trusted:
        raise Exposed(
            f"{folder} belongs to {_user(status.st_uid)}, who could put anything into this store",
            "keep a store of your own, store.root=PATH; where you trust what is in this one, read it: "
            f"store.also=[{root}]",
        )
    others = bool(status.st_mode & stat.S_IWOTH)
    by_group = bool(status.st_mode & stat.S_IWGRP) and status.st_gid != group and not _is_private(status.st_gid)
    if others or by_group:
        who = "everybody" if others else f"the group {_group(status.st_gid)}"
        right = "o-w" if group is not None else "go-w"
        share = "" if group is not None or others else "    # or share it with that group: store.shared_with=group"
        raise Exposed(
            f"{who} may write to {folder}, and could put anything into this store",
            f"chmod -R {right} {root}{share}; then `trtstore verify`, where somebody may have written to it",
        )


def _check_above(layout: Layout, trusted: set[int]) -> None:
    """Raises Exposed where another user may rename a folder on the way to v1, and so swap the store for another.

    With the sticky bit nobody renames what is another's. What is not there yet somebody else may make first: who makes
    a folder of the store sees that (`Layout.make`).
    """
    inner = _status(layout.base)
    root = Path(os.path.realpath(layout.root))
    for folder in (root, *root.parents):
        status = _status(folder)
        if status is None or not stat.S_ISDIR(status.st_mode):
            continue
        where = "the store's folder" if folder == root else f"a folder above the store {layout.root}"
        if status.st_uid not in trusted:
            raise Exposed(
                f"{folder}, {where}, belongs to {_user(status.st_uid)}, who could put another store there",
                f"keep the store elsewhere, store.root=PATH, or read it as well: store.also=[{layout.root}]",
            )
        everybody = bool(status.st_mode & stat.S_IWOTH)
        group = bool(status.st_mode & stat.S_IWGRP) and not _is_private(status.st_gid)
        if layout.shared and folder == root:
            group = False
        sticky = bool(status.st_mode & stat.S_ISVTX) and (inner is None or inner.st_uid in trusted)
        if (everybody or group) and not sticky:
            who = "everybody" if everybody else f"the group {_group(status.st_gid)}"
            share = "" if everybody or folder != root else ", or share it with that group: store.shared_with=group"
            raise Exposed(
                f"{who} may write to {folder}, {where}, and could put another store there",
                f"chmod {'o' if layout.shared else 'go'}-w {shlex.quote(str(folder))}    "
                f"# or keep the store elsewhere, store.root=PATH{share}",
            )
        inner = status


def _status(path: Path, *, follow: bool = True) -> os.stat_result | None:
    try:
        return path.stat() if follow else path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None  # the reason is reported where it is used


def _is_member(gid: int) -> bool:
    return os.geteuid() == 0 or gid == os.getegid() or gid in os.getgroups()


def _is_private(gid: int) -> bool:
    """Whether this user is the only member of a group: many systems give each user one, and a umask that trusts it."""
    try:
        group = grp.getgrgid(gid)
    except (KeyError, OSError):
        return True  # of no group that anybody could be put into
    me = _user(os.geteuid())
    others = set(group.gr_mem) - {me, "root"}
    return not others and (gid == 0 or group.gr_name == me)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OSError):
        return str(gid)


@cache
def is_own_group(gid: int) -> bool:
    """Whether a group is this user's own, as many systems give one to each user: of the same name, with no other.

    >>> is_own_group(2**31 - 2)
    False
    """
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def other_writer(status: os.stat_result, group: int | None = None) -> str | None:
    """Who else may write to what has this status; None where that is just this user, root, and that group.

    >>> Path("result").chmod(0o777)
    >>> other_writer(Path("result").stat())
    'any user'
    """
    if status.st_uid not in (os.geteuid(), 0) and status.st_gid != group:
        return f"its owner, user {status.st_uid},"
    if status.st_mode & stat.S_IWOTH:
        return "any user"
    if status.st_mode & stat.S_IWGRP and status.st_gid != group and not is_own_group(status.st_gid):
        return f"the group {status.st_gid}"
    return None
