"""Files by their SHA-256: staged in tmp/, hashed in the pass that copies them, then renamed to their name.

A stored file is never written to again: mode 0444, and the modification time of `layout.STAMP`, so that an
in-place edit shows in its times without reading a byte.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trtstore.disk import scratch, verity, writeback
from trtstore.disk.hashing import OnBytes, hash_fd, ignore_bytes
from trtstore.disk.layout import STAMP, Layout, read_bounded
from trtstore.errors import (
    Corrupt,
    Invalid,
    Malformed,
    NoLocks,
    NoSpace,
    NotWritable,
    as_store_failures,
    decayed,
)
from trtstore.format.digest import hash_bytes
from trtstore.index.seals import Seals

MODE = 0o444
FICLONE = 0x40049409  # ioctl_ficlonerange(2); Python's fcntl module names it from 3.12 on
_NO_REFLINK = {
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.ETXTBSY,
    errno.EPERM,
}
_NO_LINK = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True)
class Staged:
    """A file in tmp/ that is complete, hashed and of its final mode and time, but not yet a blob.

    `read_by_lookup` says that a blob of this name is used only when its bytes are right: a manifest's are.
    """

    path: Path
    sha256: str
    size: int
    read_by_lookup: bool = False


def problem(
    layout: Layout,
    digits: str,
    size: int,
    *,
    mend: bool = True,
    seals: Seals | None = None,
    on_bytes: OnBytes = ignore_bytes,
) -> str | None:
    """Why the blob `digits` of `size` bytes cannot be used, or None when it can. Raises OSError.

    Reads no bytes, with one exception: a blob whose times say that it was written to after it was stored (or that
    the store was copied without times) is hashed, and, with `mend`, stamped anew when it is right: a copy of it where
    it has other names, since these may be somebody else's files, whose mode and time are not the store's to change.
    With `seals`, a blob whose seal is missing or broken is hashed too, and sealed. One whose bytes the disk does not
    give is damaged, as one with other bytes is.
    """
    path = layout.blob(digits)
    link = layout.link_above(path)
    if link is not None:
        return f"{link} is a symbolic link, and what it leads to is not the store's"
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return f"the blob {path} is not there"
    if not stat.S_ISREG(status.st_mode):
        return f"the blob {path} is no regular file"
    if status.st_size != size:
        return f"the blob {path} has {status.st_size} bytes, not {size}"
    try:
        with decayed(path):
            return _trouble_inside(layout, path, status, mend, seals, on_bytes)
    except Malformed as trouble:
        return f"the blob {trouble}"


def _trouble_inside(
    layout: Layout, path: Path, status: os.stat_result, mend: bool, seals: Seals | None, on_bytes: OnBytes
) -> str | None:
    """What times, seal, or bytes say of a blob of the right size. Raises OSError."""
    digits, size = path.name, status.st_size
    if status.st_mtime_ns != STAMP * 10**9:
        if not _heal(layout, path, size, mend):
            return f"the blob {path} was written to after it was stored"
        if seals is not None and mend:
            seals.keep(digits, path.lstat())
    elif not (seals is None or seals.is_right(digits, status) or seals.read(digits, path, size, on_bytes)):
        return f"the blob {path} was written to after it was stored, and its time was put back"
    return None


def _heal(layout: Layout, path: Path, size: int, mend: bool) -> bool:
    """Whether the blob `path` is right. Raises OSError where it cannot be read."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if hash_fd(fd, size)[0] != path.name:
            return False
        if mend:
            # Somebody else's store, a read-only or a full one: hashing again next time is slow, not wrong.
            with suppress(NotWritable, NoSpace, NoLocks), as_store_failures(layout.root):
                if os.fstat(fd).st_nlink == 1:
                    seal(path)
                else:
                    _part(layout, path, fd, size)
    finally:
        os.close(fd)
    return True


def _part(layout: Layout, path: Path, fd: int, size: int) -> None:
    """Give the name of the blob `path`, opened as `fd`, to a copy. A tree's file of the old inode is made anew."""
    os.lseek(fd, 0, os.SEEK_SET)
    with scratch.folder(layout) as work:
        target = work / "blob"
        if copy_and_hash(layout, fd, size, target, ignore_bytes) == (path.name, size):
            finish(layout, target)
            target.replace(path)
            layout.sync(path.parent)


def stage_bytes(layout: Layout, data: bytes, target: Path) -> Staged:
    """`data` as the staged file `target`. Raises OSError."""
    target.write_bytes(data)
    finish(layout, target)
    return Staged(target, hash_bytes(data), len(data), read_by_lookup=True)


def stage_file(layout: Layout, source: Path, target: Path, on_bytes: OnBytes = ignore_bytes) -> Staged:
    """The regular file `source` as the staged file `target`, hashed in the same pass.

    A file in the store's own tmp/ that only this user can reach is linked, not copied. Any other
    is copied (by reflink where the file system can), so that its owner cannot change the store's bytes later.
    Raises Corrupt if it changes meanwhile, Invalid if it is not a regular file, OSError.
    """
    with as_store_failures(source, reading=True):
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise Invalid(f"{source} is no regular file")
        if _is_private(layout, source, before) and link(source, target):
            if layout.verity:
                verity.enable(target)  # first: what is hashed is what the kernel keeps
            tell = writeback.early(fd, on_bytes) if layout.durable else on_bytes
            sha256, size = hash_fd(fd, before.st_size, on_bytes=tell)
        else:
            sha256, size = copy_and_hash(layout, fd, before.st_size, target, on_bytes)
        after = os.fstat(fd)
    finally:
        os.close(fd)
    if (before.st_size, before.st_mtime_ns) != (size, after.st_mtime_ns) or after.st_size != size:
        raise Corrupt(f"{source} changed while it was stored", "publish it again once nothing writes to it")
    finish(layout, target)
    return Staged(target, sha256, size)


def commit(layout: Layout, staged: list[Staged], seals: Seals) -> None:
    """Give each staged file its name, and bring the names to the disk. A good blob of that name stays.

    The seals of all are known afterwards: the bytes of staged files and of good blobs were hashed.

    Raises Invalid where a folder is a link, OSError.
    """
    _make_folders(layout, {layout.blob(file.sha256).parent for file in staged})
    folders: set[Path] = set()
    for file in staged:
        place = layout.blob(file.sha256)
        if _is_good(layout, file, seals):
            with seals.linking(file.sha256, place):
                file.path.unlink(missing_ok=True)
            continue
        put(file.path, place)
        seals.keep(file.sha256, place.lstat())
        folders.add(place.parent)
    for folder in folders:
        layout.sync(folder)


def put(source: Path, place: Path) -> None:
    """Rename the file `source` in tmp/ to `place`, whatever has that name. Raises OSError."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(place.lstat().st_mode):  # a file cannot replace a folder
            place.rename(source.with_name(f"{place.name}.broken"))
    source.replace(place)


def _is_good(layout: Layout, file: Staged, seals: Seals) -> bool:
    """Whether the blob that `file` would become is there. Where a lookup reads its bytes, so does this.

    Otherwise a manifest whose bytes had changed behind its time stamp would be a miss for ever.
    """
    if problem(layout, file.sha256, file.size, seals=seals) is not None:
        return False
    if not file.read_by_lookup:
        return True
    with suppress(Malformed), decayed():
        data = read_bounded(layout.blob(file.sha256), file.size)
        return data is not None and hash_bytes(data) == file.sha256
    return False


def _make_folders(layout: Layout, folders: set[Path]) -> None:
    """Make those that are absent, with one sync of the folder that holds their names."""
    absent = [folder for folder in folders if not layout.own(folder).is_dir()]
    for folder in absent:
        layout.make(folder.parent)
        with suppress(FileExistsError):
            layout.folder(folder)
    for parent in {folder.parent for folder in absent}:
        layout.sync(parent)


def clone(source: int, target: int) -> bool:
    """Share the blocks of `source` with the empty file `target`; False where the file system cannot."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in _NO_REFLINK:
            return False
        raise
    return True


def link(source: Path, target: Path) -> bool:
    """Give `source` the second name `target`; False where the file system cannot. Raises OSError."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


def _is_private(layout: Layout, source: Path, status: os.stat_result) -> bool:
    """Whether taking `source` over, with the mode and time of a blob, changes nothing that anybody else sees.

    An executable file would lose the bit that says so, and its folder could not be published a second time.
    """
    inside = Path(os.path.realpath(source.parent)).is_relative_to(os.path.realpath(layout.tmp))
    plain = not status.st_mode & stat.S_IXUSR
    return inside and plain and status.st_nlink == 1 and status.st_uid == os.geteuid()


def copy_and_hash(
    layout: Layout, source: int, expected: int, target: Path, on_bytes: OnBytes = ignore_bytes
) -> tuple[str, int]:
    """(hex SHA-256, bytes) of what `source` holds, which the new file `target` holds afterwards. Raises OSError."""
    fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if clone(source, fd):
            return hash_fd(fd, expected, on_bytes=on_bytes)
        tell = writeback.early(fd, on_bytes) if layout.durable else on_bytes
        return hash_fd(source, expected, copy_to=fd, on_bytes=tell)
    finally:
        os.close(fd)


def finish(layout: Layout, path: Path) -> None:
    """Make the staged file `path`, which nothing has open for writing, what a blob is. Raises OSError.

    A kill, or a power failure, in the middle leaves a file in tmp/, for it has no name yet.
    """
    if layout.verity:
        verity.enable(path)  # before the mode forbids its owner to write, which the kernel asks for
    seal(path)
    layout.sync(path)


def seal(path: Path) -> None:
    """Give a file the mode and time of a blob. Raises OSError."""
    path.chmod(MODE)
    os.utime(path, (STAMP, STAMP))
