"""The bytes of one blob as they arrive: hashed while they are written, or appended to what came before."""

from __future__ import annotations

import io
import os
import stat
from functools import partial
from pathlib import Path

from trtstore.content import blobs
from trtstore.content.blobs import Staged
from trtstore.disk import free_space, writeback
from trtstore.disk import partial as partial_blobs
from trtstore.disk.hashing import CHUNK, BackgroundHasher, OnBytes, hash_fd
from trtstore.disk.layout import Layout
from trtstore.errors import Corrupt, Mismatch, Unreachable
from trtstore.transfer.protocols import Readable, Skipping

#: Bytes of a blob that gets its name as soon as it came, and that goes on where it was cut off.
LARGE = 16 << 20


class Damaged(Corrupt):
    """What an earlier transfer left of a blob was not its beginning, and is gone now: ask for the blob once more."""


def stage(layout: Layout, file: Readable, digits: str, size: int, target: Path, on_bytes: OnBytes) -> Staged:
    if not (size >= LARGE and isinstance(file, Skipping) and _go_on(layout, file, digits, size, target, on_bytes)):
        fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            cloned = _clone(file, size, fd)
            if not cloned:
                free_space.check(target.parent, size)
            tell = writeback.early(fd, on_bytes) if layout.durable else on_bytes
            digest_and_size = hash_fd(fd, size, on_bytes=on_bytes) if cloned else copy(file, fd, size, tell)
            check(digits, size, *digest_and_size)
        finally:
            os.close(fd)
    blobs.finish(layout, target)
    return Staged(target, digits, size)


def _go_on(layout: Layout, file: Skipping, digits: str, size: int, target: Path, on_bytes: OnBytes) -> bool:
    """Fill partial/<digits> up and rename it to `target`; False where another process fills it just now."""
    with partial_blobs.opened(layout, digits) as part:
        if part is None:
            return False
        fd, path = part
        here = os.fstat(fd).st_size
        if here > size:
            here = 0
            os.ftruncate(fd, 0)
        tell = writeback.early(fd, on_bytes) if layout.durable else on_bytes
        with BackgroundHasher(size) as digest:
            while data := os.read(fd, CHUNK):
                digest.update(data)
                tell(len(data))
            file.skip(here)
            digest_and_size = _pour(file, fd, tell, digest)
        if digest_and_size != (digits, size):
            path.unlink()
            if here:
                raise Damaged(f"what was here of the blob {digits} was not its beginning", "try again")
        check(digits, size, *digest_and_size)
        path.rename(target)
        return True


def _clone(file: Readable, size: int, target: int) -> bool:
    """Share the blocks of a plain file. Nothing but FileIO: a decompressing stream has a descriptor too."""
    if not isinstance(file, io.FileIO):
        return False
    status = os.fstat(file.fileno())
    return stat.S_ISREG(status.st_mode) and status.st_size == size and blobs.clone(file.fileno(), target)


def copy(file: Readable, target: int | None, size: int, on_bytes: OnBytes) -> tuple[str, int]:
    """(hex SHA-256, bytes) of `file`, copied to `target`; ends, unwritten, with the first byte beyond `size`."""
    with BackgroundHasher(size) as digest:
        return _pour(file, target, on_bytes, digest)


def _pour(file: Readable, target: int | None, on_bytes: OnBytes, digest: BackgroundHasher) -> tuple[str, int]:
    """As `copy`, behind the bytes that `digest` and `target` have already."""
    for data in digest.chunks(partial(_read, file), on_bytes):
        if target is not None:
            _write_all(target, data)
    return digest.hexdigest(), digest.count


def _read(file: Readable, count: int) -> bytes | memoryview:
    try:
        return file.read(count)
    except OSError as error:
        raise Unreachable(f"the source broke off: {error}") from error


def _write_all(target: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


def check(digits: str, size: int, actual: str, count: int) -> None:
    if count > size:
        raise Mismatch(digits, f"the blob {digits} that came has more than {size} bytes")
    if count < size:
        raise Mismatch(digits, f"the blob {digits} that came has {count} bytes, not {size}")
    if actual != digits:
        raise Mismatch(digits, f"the blob {digits} that came is not what its name says")
