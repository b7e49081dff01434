"""Compares every byte with its name. Damaged things are moved to quarantine/, from which nothing is served.

Hashing holds no lock. Damaged things are looked at again, and moved, while no process adds or removes, so that a blob
that somebody has put right meanwhile stays.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from trtstore.content import read
from trtstore.disk import gate
from trtstore.disk.hashing import OnBytes, hash_fd, ignore_bytes, in_threads
from trtstore.disk.layout import Layout, entries, sharded, walk
from trtstore.errors import Corrupt, Invalid, Malformed, as_store_failures, decayed
from trtstore.format.digest import is_hex
from trtstore.format.manifest import Manifest, mode_of
from trtstore.format.record import Record

_Identity = tuple[int, int, int, int]


@dataclass(frozen=True)
class Finding:
    """One damaged thing: a blob or tree by its digits, a record by its key, and where it is now.

    `moved_to` is None where it is not there to be moved. `keys` are the records that are misses because of it.
    """

    kind: Literal["blob", "tree", "record"]
    name: str
    problem: str
    path: Path
    keys: tuple[str, ...] = ()
    moved_to: Path | None = None


@dataclass
class _Scan:
    """What is to be looked at, and what was found."""

    sizes: dict[str, int | None] = field(default_factory=dict)  # blob digits -> bytes, where a manifest says
    manifests: dict[str, Manifest] = field(default_factory=dict)  # tree digits -> its manifest
    users: dict[str, list[str]] = field(default_factory=dict)  # blob digits -> keys
    records: dict[str, _Identity] = field(default_factory=dict)  # key -> the file that was read
    findings: list[Finding] = field(default_factory=list)
    seen: dict[Path, _Identity] = field(default_factory=dict)  # what was found bad, as it was


def verify(layout: Layout, keys: Iterable[str] | None = None, on_bytes: OnBytes = ignore_bytes) -> list[Finding]:
    """Read every blob and tree of `keys` (of the whole store where None), and quarantine what is damaged.

    Raises NotWritable where there is damage that cannot be moved, Invalid where a folder of the store is a link,
    NotReadable, StoreFailure.
    """
    scan = _Scan()
    with as_store_failures(layout.root, reading=True):
        layout.check()
        for key in read.keys(layout) if keys is None else keys:
            _read_record(layout, key, scan)
        if keys is None:
            for digits in sharded(layout.blobs):
                scan.sizes.setdefault(digits, None)
            for digits in _tree_names(layout):
                _read_tree_manifest(layout, digits, scan)
        bad = _check_blobs(layout, scan, on_bytes)
        if bad and keys is not None:
            _find_sharers(layout, bad, scan)
        for digits, listed in sorted(scan.manifests.items()):
            _check_tree(layout, digits, listed, bad, scan)
        done = _quarantine(layout, scan) if scan.seen else scan.findings
        return [finding for one in done if (finding := _confirmed(layout, one, scan)) is not None]


def total_bytes(layout: Layout, keys: Iterable[str] | None = None) -> int:
    """Bytes of blobs that `verify` will read; for a progress bar. Raises OSError."""
    layout.check()
    if keys is None:
        return sum(_size(layout.blob(digits)) for digits in sharded(layout.blobs))
    scan = _Scan()
    for key in keys:
        _read_record(layout, key, scan)
    return sum(size or 0 for size in scan.sizes.values())


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.lstat().st_size
    return 0


def _read_record(layout: Layout, key: str, scan: _Scan) -> None:
    place = layout.record(key)
    try:
        identity = _identity(place.lstat())
    except FileNotFoundError:
        return
    try:
        with decayed():
            record: Record = read.twice(lambda: read.read_record(layout, key))
    except Malformed as trouble:
        scan.findings.append(Finding("record", key, str(trouble), place, (key,)))
        scan.seen[place] = identity
        return
    scan.records[key] = identity
    digits = record.manifest.partition(":")[2]
    scan.sizes[digits] = None
    scan.users.setdefault(digits, []).append(key)
    with suppress(Malformed), decayed():  # then it is a blob that is absent or bad, and is found as one
        listed = read.twice(lambda: read.read_manifest(layout, record.manifest))
        scan.manifests[digits] = listed
        for blob, size in read.named_blobs(record, listed).items():
            scan.sizes[blob] = size
            scan.users.setdefault(blob, []).append(key)


def _read_tree_manifest(layout: Layout, digits: str, scan: _Scan) -> None:
    if digits in scan.manifests:
        return
    try:
        with decayed():
            scan.manifests[digits] = read.twice(lambda: read.read_manifest(layout, f"sha256:{digits}"))
    except Malformed as trouble:  # a tree that nothing vouches for
        _bad_tree(layout, digits, f"its manifest: {trouble}", scan)


def _check_blobs(layout: Layout, scan: _Scan, on_bytes: OnBytes) -> dict[str, str]:
    """Digits -> problem, of those that are not what their name says."""
    names = sorted(scan.sizes)

    def work(digits: str, tell: OnBytes) -> tuple[str | None, _Identity | None]:
        return _blob_problem(layout.blob(digits), digits, scan.sizes[digits], tell)

    bad: dict[str, str] = {}
    for digits, (problem, identity) in zip(names, in_threads(work, names, on_bytes), strict=True):
        if problem is not None:
            bad[digits] = problem
            place, users = layout.blob(digits), tuple(sorted(scan.users.get(digits, ())))
            scan.findings.append(Finding("blob", digits, problem, place, users))
            if identity is not None:
                scan.seen[place] = identity
    return bad


def _blob_problem(place: Path, digits: str, size: int | None, on_bytes: OnBytes) -> tuple[str | None, _Identity | None]:
    try:
        status = place.lstat()
    except FileNotFoundError:
        return "it is not there", None
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file", _identity(status)
    if size is not None and status.st_size != size:
        return f"it has {status.st_size} bytes, not {size}", _identity(status)
    try:
        digits_read = ""
        with suppress(Malformed), decayed():
            digits_read = _hash(place, status.st_size, on_bytes)
        if digits_read != digits:
            with decayed("it"):
                digits_read = _hash(place, status.st_size)  # a disk may fail, or give wrong bytes, once
    except FileNotFoundError:
        return "it is not there", None  # collected meanwhile
    except Malformed as trouble:
        return str(trouble), _identity(status)
    if digits_read != digits:
        return f"its bytes have the SHA-256 {digits_read}", _identity(status)
    return None, None


def _hash(path: Path, size: int, on_bytes: OnBytes = ignore_bytes) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return hash_fd(fd, size, on_bytes=on_bytes)[0]
    finally:
        os.close(fd)


def _has(path: Path, size: int, digits: str) -> bool:
    for _ in range(2):
        with suppress(Malformed), decayed():
            if _hash(path, size) == digits:
                return True
    return False


def _check_tree(layout: Layout, digits: str, listed: Manifest, bad: Mapping[str, str], scan: _Scan) -> None:
    try:
        with decayed(layout.tree(digits)):
            problem = _tree_problem(layout, layout.tree(digits), listed, bad)
    except FileNotFoundError:
        return  # never made, or collected meanwhile
    except (Invalid, Malformed) as trouble:
        problem = str(trouble)
    if problem is not None:
        _bad_tree(layout, digits, problem, scan)


def _tree_problem(layout: Layout, tree: Path, listed: Manifest, bad: Mapping[str, str]) -> str | None:
    """What is not as the manifest says, where anything is. Raises Invalid for what is no file or folder, OSError."""
    wanted = {entry.path: entry for entry in listed.entries}
    if not stat.S_ISDIR(tree.lstat().st_mode):
        return "it is no folder"
    files = {path: (place, status) for path, place, status in walk(tree)}
    if files.keys() != wanted.keys():
        return "its files are not those of its manifest"
    for path, (place, status) in files.items():
        entry, blob = wanted[path], layout.blob(wanted[path].sha256)
        if mode_of(status.st_mode) != entry.mode:
            return f"{path} has another mode"
        linked = blob.exists() and os.path.samestat(status, blob.lstat())
        if (linked and entry.sha256 in bad) or not (linked or _has(place, entry.size, entry.sha256)):
            return f"{path} has other bytes"
    return None


def _find_sharers(layout: Layout, bad: Mapping[str, str], scan: _Scan) -> None:
    """Trees of other artifacts that hold a damaged blob by its other name.

    Once the quarantine was emptied that name would be the only one, and a file like a copy that nobody wrote to.
    """
    inodes = set()
    for digits in bad:
        with suppress(FileNotFoundError):
            status = layout.blob(digits).lstat()
            inodes.add((status.st_dev, status.st_ino))
    for digits in _tree_names(layout):
        tree = layout.tree(digits)
        if digits in scan.manifests or tree.is_symlink() or not tree.is_dir():
            continue
        with suppress(FileNotFoundError, Invalid):
            shared = (path for path, _, status in walk(tree) if (status.st_dev, status.st_ino) in inodes)
            if (path := next(shared, None)) is not None:
                _bad_tree(layout, digits, f"{path} has other bytes", scan)


def _bad_tree(layout: Layout, digits: str, problem: str, scan: _Scan) -> None:
    tree = layout.tree(digits)
    scan.findings.append(Finding("tree", digits, problem, tree))
    with suppress(FileNotFoundError):
        scan.seen[tree] = _identity(tree.lstat())


def _quarantine(layout: Layout, scan: _Scan) -> list[Finding]:
    with gate.removing(layout, who=f"a verify, process {os.getpid()}"), as_store_failures(layout.root):
        layout.make(layout.quarantine)
        done = [_move(layout, finding, scan.seen.get(finding.path)) for finding in scan.findings]
        layout.sync(layout.quarantine)
    return done


def _move(layout: Layout, finding: Finding, seen: _Identity | None) -> Finding:
    target = layout.quarantine / f"{finding.kind}-{finding.name}.{secrets.token_hex(4)}"
    try:
        if seen is None or _identity(finding.path.lstat()) != seen:
            return finding  # absent, or put right meanwhile
        finding.path.rename(target)
    except FileNotFoundError:
        return finding
    return replace(finding, moved_to=target)


def _confirmed(layout: Layout, finding: Finding, scan: _Scan) -> Finding | None:
    """The finding, unless it is of something that was collected, or put right, while this looked.

    A collector takes the record first: where the record is still the one that was read, its blob is really lost.
    """
    if finding.moved_to is not None:
        return finding
    if finding.kind != "blob" or finding.path.exists():
        return None
    left = []
    for key in finding.keys:
        with suppress(FileNotFoundError):
            if _identity(layout.record(key).lstat()) == scan.records[key]:
                left.append(key)
    return replace(finding, keys=tuple(left)) if left else None


def _identity(status: os.stat_result) -> _Identity:
    # Not the ctime: a link made from the blob meanwhile changes it.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _tree_names(layout: Layout) -> list[str]:
    return sorted(path.name for path in entries(layout.trees) if is_hex(path.name))


def damage(layout: Layout, record: Record) -> list[str]:
    """What a full look at one artifact finds, in words; what is damaged is moved away. Raises as `verify`."""
    try:
        return [f"{f.path}: {f.problem}" for f in verify(layout, [record.key])]
    except Corrupt as trouble:
        return [trouble.message]
