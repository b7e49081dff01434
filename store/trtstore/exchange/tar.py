"""A tar of plain files, read block by block: one spelling for each header, so that a reader accepts nothing else.

Python's tarfile is not used to read: it takes an extended header of any length into memory before anybody can look,
and knows links, devices, sparse files and compression, none of which belong here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trtstore.disk.hashing import CHUNK, OnBytes
from trtstore.disk.layout import STAMP
from trtstore.errors import Malformed, as_store_failures
from trtstore.transfer.protocols import Readable

STREAM = Path("the bundle")  # what messages call a stream, which has no name

BLOCK = 512
END = bytes(2 * BLOCK)
MAX_OCTAL = 8**11 - 1  # bytes: what ustar's field for the size can say; beyond it, a pax header does

_PAX_NAME = "././@PaxHeader"
_PAX_SIZE = re.compile(rb"[0-9]{1,2} size=([0-9]{1,16})\n\0*")
_OCTAL_SIZE = re.compile(rb"[0-7]{11}\0")


def header(name: str, size: int) -> bytes:
    """The block before the bytes of a regular file, or the three blocks where its size needs a pax header."""
    if size <= MAX_OCTAL:
        return _file(name, size)
    note = _pax_record(b"size=%d" % size)
    return _block(_PAX_NAME, len(note), b"x", 0, 0) + note.ljust(BLOCK, b"\0") + _file(name, 0)


def blocks_of(first: bytes) -> int:
    """How many blocks the header has that begins with the block `first`."""
    return 3 if first[156:157] == b"x" else 1


def parse(data: bytes) -> tuple[str, int]:
    """The name and size in a whole header. Raises Malformed unless it is exactly what `header` makes of them."""
    last = data[-BLOCK:]
    if len(data) > BLOCK:
        size = _PAX_SIZE.fullmatch(data[BLOCK : 2 * BLOCK])
        base = 10
    else:
        size = _OCTAL_SIZE.fullmatch(last[124:136])
        base = 8
    try:
        name = last[:100].rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        raise Malformed("a member's name is not ASCII") from None
    entry = (name, int(size[1] if base == 10 else size[0][:-1], base)) if size else None
    if entry is None or header(*entry) != data:
        raise Malformed(f"the header of {name!a} is not that of a plain file in a bundle")
    return entry


def padding(size: int) -> bytes:
    """The zeros after `size` bytes of a member."""
    return bytes(-size % BLOCK)


def _file(name: str, size: int) -> bytes:
    # A blob's mode and mtime, so that any tar unpacks whole blobs.
    return _block(name, size, b"0", 0o444, STAMP)


def _block(name: str, size: int, kind: bytes, mode: int, mtime: int) -> bytes:
    before = b"".join(
        (
            name.encode("ascii").ljust(100, b"\0"),
            b"%07o\0" % mode,
            b"0000000\0" * 2,  # owner and group: root
            b"%011o\0%011o\0" % (size, mtime),
        )
    )
    after = kind + bytes(100) + b"ustar\x0000" + bytes(247)
    checksum = sum(before) + sum(b" " * 8) + sum(after)
    return before + b"%06o\0 " % checksum + after


def _pax_record(text: bytes) -> bytes:
    """ "<its own length in digits> <text>\\n"."""
    rest = len(text) + 2  # the space and the line's end
    length = rest + len(str(rest + len(str(rest))))
    return b"%d %s\n" % (length, text)


class Member:
    """The bytes of one member, and not one more."""

    def __init__(self, stream: Stream, size: int) -> None:
        self._stream, self.left = stream, size

    def read(self, size: int, /) -> bytes:
        data = self._stream.some(min(size, self.left))
        self.left -= len(data)
        return data


class Stream:
    """A tar of plain files, read block by block. Raises Malformed where it breaks a rule, or ends early."""

    def __init__(self, file: Readable, on_bytes: OnBytes) -> None:
        self._file, self._on_bytes = file, on_bytes

    def header(self) -> tuple[str, int] | None:
        """The name and size of the next member, or None at the end of the archive and of the file."""
        first = self._exactly(BLOCK)
        if first != bytes(BLOCK):
            more = blocks_of(first) - 1
            return parse(first + self._exactly(more * BLOCK))
        if self._exactly(BLOCK) != bytes(BLOCK) or self._read(1):
            raise Malformed("something stands behind its end")
        return None

    def expect(self, name: str, size: int | None = None) -> int:
        """The size of the next member, which must be `name`, of `size` bytes when that is known."""
        header = self.header()
        if header is None or header[0] != name:
            raise Malformed(f"{name} is not where it must be")
        if size is not None and header[1] != size:
            raise Malformed(f"{name} has {header[1]} bytes, not {size}")
        return header[1]

    def small(self, name: str, size: int, limit: int) -> bytes:
        """All bytes of a member that may have at most `limit`."""
        if size > limit:
            raise Malformed(f"{name} has {size} bytes, and may have {limit}")
        data = self._exactly(size)
        self._end_member(size)
        return data

    @contextmanager
    def member(self, size: int) -> Iterator[Member]:
        """The bytes of the member, all of which must have been read at the end."""
        yield Member(self, size)
        self._end_member(size)

    def some(self, size: int) -> bytes:
        """At least one byte and at most `size`; none only if `size` is 0."""
        if size == 0:
            return b""
        data = self._read(size)
        if not data:
            raise Malformed("it ends early")
        self._on_bytes(len(data))
        return data

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            data += self.some(min(CHUNK, size - len(data)))
        return bytes(data)

    def _end_member(self, size: int) -> None:
        zeros = padding(size)
        if self._exactly(len(zeros)) != zeros:
            raise Malformed("the padding of a member is not zero")

    def _read(self, size: int) -> bytes:
        with as_store_failures(STREAM, reading=True):
            return bytes(self._file.read(size))
