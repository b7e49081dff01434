"""The list of an artifact's files: canonical JSON, itself a blob, and its SHA-256 is the artifact's digest.

{"entries":[{"mode":"0644","path":"model.onnx","sha256":"<64 hex>","size":123},…],"schema":1}
"""

from __future__ import annotations

import itertools
import re
import stat
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from trtstore.errors import Malformed
from trtstore.format import canonical_json
from trtstore.format.digest import digest_of, hash_bytes, is_hex

SCHEMA = 1
MAX_BYTES = 64 << 20  # of the manifest itself
MAX_ENTRIES = 100_000
MAX_REST = 4096  # bytes of a manifest that are no entries: in a good one, fewer than twenty
MAX_PATH = 1024  # bytes of UTF-8
MAX_NAME = 255  # bytes of UTF-8 in one component: the limit of Linux file systems
MAX_SIZE = 2**53 - 1  # bytes of one file: what JSON's numbers can count

MAX_DEPTH = 64  # names in a path
MAX_FOLDERS = 100_000  # of one artifact
MAX_REPEATED = 1 << 30  # bytes of executable files whose blob another entry names before: each is a copy
MAX_TIMES = 64  # as large as its blobs together may the folder be, where a file system has no links

PLAIN, EXECUTABLE = "0644", "0755"

#: Control characters, lone surrogates, line and paragraph separators. None of these categories grows with
#: Unicode's version, so a manifest that is good for one Python is good for all.
_FORBIDDEN = {"Cc", "Cs", "Zl", "Zp"}

_START = b'{"entries":['
_ENTRY = re.compile(
    rb'\{"mode":"[^"]{1,8}","path":"[^"\\]*+(?:\\.[^"\\]*+)*+","sha256":"[^"]{1,100}","size":[0-9]{1,16}\},?'
)


@dataclass(frozen=True)
class Entry:
    """One regular file: POSIX path, "0644" or "0755", bytes, hex SHA-256."""

    path: str
    mode: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The files of an artifact, sorted by path. Make one with `build` or `parse`: both enforce the rules.

    >>> store.manifest(record).entries[0].path
    'engine.bin'
    """

    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.entries)

    def encode(self) -> bytes:
        entries = [{"path": e.path, "mode": e.mode, "size": e.size, "sha256": e.sha256} for e in self.entries]
        return canonical_json.canonical({"schema": SCHEMA, "entries": entries})

    @cached_property
    def digest(self) -> str:
        """The artifact's digest, "sha256:<64 hex>"."""
        return digest_of(hash_bytes(self.encode()))


def make_manifest(entries: Iterable[Entry]) -> Manifest:
    """The manifest of `entries`, in any order. Raises Malformed where they break a rule.

    >>> make_manifest([Entry("engine.bin", PLAIN, 6, "0" * 64)]).size
    6
    """
    ordered = tuple(sorted(entries, key=lambda entry: entry.path))
    _check(ordered)
    manifest = Manifest(ordered)
    if len(manifest.encode()) > MAX_BYTES:
        raise Malformed(f"the manifest is longer than {MAX_BYTES} bytes")
    return manifest


def parse(data: bytes) -> Manifest:
    """The manifest in `data`. Raises Malformed: another schema, another spelling, or a rule is broken."""
    if len(data) > MAX_BYTES:
        raise Malformed(f"the manifest is longer than {MAX_BYTES} bytes")
    _check_outline(data)
    top = canonical_json.fields(
        canonical_json.parse_canonical(data, "the manifest"), "the manifest", {"schema": int, "entries": list}
    )
    if top["schema"] != SCHEMA:
        raise Malformed(f"the manifest has schema {top['schema']}, and this version reads {SCHEMA}")
    kinds = {"path": str, "mode": str, "size": int, "sha256": str}
    entries = tuple(Entry(**canonical_json.fields(entry, "a manifest's entry", kinds)) for entry in top["entries"])
    if any(before.path >= after.path for before, after in itertools.pairwise(entries)):
        raise Malformed("the manifest's entries are not sorted by path")
    _check(entries)
    return Manifest(entries)


def _check_outline(data: bytes) -> None:
    """Refuse data that is not a list of entries before JSON makes objects of it, which take thirty times its bytes."""
    place, count = len(_START), 0
    while data.startswith(_START) and (entry := _ENTRY.match(data, place)) is not None:
        place, count = entry.end(), count + 1
        if count > MAX_ENTRIES:
            raise Malformed(f"an artifact has 1 to {MAX_ENTRIES} files, and this has more")
    if len(data) - place > MAX_REST:
        raise Malformed(f"the manifest is no list of entries from its byte {place} on")


def mode_of(st_mode: int) -> str:
    """The entry mode of a file on disk: executable for its owner or not, and nothing else."""
    return EXECUTABLE if st_mode & stat.S_IXUSR else PLAIN


def check_path(path: str) -> None:
    """Raise Malformed unless `path` means the same file, inside the artifact, on every file system."""
    shown = ascii(path[:100])
    plain = path.isascii() and path.isprintable()  # most are, and this is told at once
    if "\\" in path or (not plain and any(unicodedata.category(c) in _FORBIDDEN for c in path)):
        raise Malformed(f"the path {shown} holds a control character, a backslash or undecodable bytes")
    if not unicodedata.is_normalized("NFC", path):
        raise Malformed(f"the path {shown} is not in Unicode's normal form C")
    names = path.split("/")
    if any(name in ("", ".", "..") for name in names):
        raise Malformed(f"the path {shown} is not relative and plain: no leading, doubled or final slash, no . or ..")
    if len(names) > MAX_DEPTH:
        raise Malformed(f"the path {shown} has more than {MAX_DEPTH} names")
    if len(path.encode()) > MAX_PATH or any(len(name.encode()) > MAX_NAME for name in names):
        raise Malformed(f"the path {shown} is too long: {MAX_PATH} bytes, and {MAX_NAME} between slashes")


def _check(entries: tuple[Entry, ...]) -> None:
    if not 1 <= len(entries) <= MAX_ENTRIES:
        raise Malformed(f"an artifact has 1 to {MAX_ENTRIES} files, and this has {len(entries)}")
    for entry in entries:
        check_path(entry.path)
        if entry.mode not in (PLAIN, EXECUTABLE):
            raise Malformed(f"{entry.path}: the mode {entry.mode!r} is neither {PLAIN} nor {EXECUTABLE}")
        if not 0 <= entry.size <= MAX_SIZE:
            raise Malformed(f"{entry.path}: the size {entry.size} is out of bounds")
        if not is_hex(entry.sha256):
            raise Malformed(f"{entry.path}: {entry.sha256[:100]!r} is no SHA-256")
    _check_room(entries)
    _check_collisions(entries)


def _check_room(entries: tuple[Entry, ...]) -> None:
    """Refuse what takes far more room as a folder than it took to send: a blob that very many entries name."""
    blobs: dict[str, int] = {}
    repeated = 0
    for entry in entries:
        if entry.sha256 in blobs and entry.mode == EXECUTABLE:
            repeated += entry.size
        blobs[entry.sha256] = entry.size
    if repeated > MAX_REPEATED:
        raise Malformed(f"the same executable files again and again are more than {MAX_REPEATED} bytes")
    whole, once = sum(entry.size for entry in entries), sum(blobs.values())
    if whole > MAX_TIMES * once + MAX_REPEATED:
        raise Malformed(f"its files have {whole} bytes, and without those that are the same {once}")


def _check_collisions(entries: tuple[Entry, ...]) -> None:
    """Refuse names that one file system keeps apart and another does not, and a file that is a folder too.

    Neighbours are enough: with "/" as the least character, all paths below one folder stand together. (A table of
    all folders would take memory with the square of a path's depth.)
    """
    folded = sorted((_folded(entry.path), entry.path) for entry in entries)
    folders = folded[0][1].count("/")
    for (before, written), (after, other) in itertools.pairwise(folded):
        both = zip(before.split("\0"), after.split("\0"), strict=False)
        depth = sum(1 for _ in itertools.takewhile(lambda names: names[0] == names[1], both))
        first, second = written.split("/"), other.split("/")
        if first[:depth] != second[:depth]:
            raise Malformed(f"{written!r} and {other!r} differ in case only, or their folders do")
        if depth in (len(first), len(second)):
            raise Malformed(f"{written!r} is listed twice, or as both a file and a folder")
        folders += len(second) - 1 - depth
        if folders > MAX_FOLDERS:
            raise Malformed(f"an artifact has at most {MAX_FOLDERS} folders, and this has more")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path.casefold()).replace("/", "\0")
