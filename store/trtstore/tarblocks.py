"""The headers of a bundle's tar: one spelling for each name and size, so that a reader accepts nothing else.

Python's tarfile is not used to read: it takes an extended header of any length into memory before anybody can look,
and knows links, devices, sparse files and compression, none of which belong here.
"""

from __future__ import annotations

import re

from trtstore.errors import Malformed
from trtstore.layout import STAMP

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
    found = (name, int(size[1] if base == 10 else size[0][:-1], base)) if size else None
    if found is None or header(*found) != data:
        raise Malformed(f"the header of {name!a} is not that of a plain file in a bundle")
    return found


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
