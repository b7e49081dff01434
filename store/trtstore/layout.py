"""Where each thing lies below a store's root; README.md draws the tree and is normative."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trtstore.errors import Invalid

VERSION = "v1"

#: The modification time of every stored file, seconds since the epoch: 1980-01-02T00:00:00Z, which zip archives
#: can hold in any time zone. A file with another time was written to after it was stored.
STAMP = 315_619_200

#: Characters of folder names above a file that `walk` follows; a manifest allows no more.
MAX_PREFIX = 1024


@dataclass(frozen=True)
class Layout:
    """The paths of one store. `durable` says whether what is written must survive a power failure."""

    root: Path
    durable: bool = True

    @property
    def base(self) -> Path:
        return self.root / VERSION

    @property
    def trees(self) -> Path:
        return self.base / "trees"

    @property
    def roots(self) -> Path:
        return self.base / "roots"

    @property
    def pins(self) -> Path:
        return self.base / "pins"

    @property
    def quarantine(self) -> Path:
        return self.base / "quarantine"

    @property
    def records(self) -> Path:
        return self.base / "records"

    @property
    def blobs(self) -> Path:
        return self.base / "blobs" / "sha256"

    @property
    def locks(self) -> Path:
        return self.base / "locks"

    @property
    def tmp(self) -> Path:
        return self.base / "tmp"

    @property
    def index(self) -> Path:
        return self.base / "index"

    def blob(self, digits: str) -> Path:
        return self.blobs / digits[:2] / digits

    def record(self, key: str) -> Path:
        return self.records / key[:2] / key

    def tree(self, digits: str) -> Path:
        return self.trees / digits

    def lock(self, kind: str, name: str | None = None) -> Path:
        return self.locks / (kind if name is None else f"{kind}-{name}")

    def make(self, folder: Path) -> Path:
        """`folder`, created with its parents where absent. Raises OSError."""
        if not folder.is_dir():
            self.make(folder.parent)
            try:
                folder.mkdir()
            except FileExistsError:
                if not folder.is_dir():
                    raise
            self.sync(folder.parent)
        return folder

    def sync(self, path: Path) -> None:
        """Bring a file's bytes, or a folder's names, to the disk. Raises OSError."""
        if self.durable:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def entries(folder: Path) -> list[Path]:
    """What lies in `folder`, sorted; nothing where it is no folder. Raises OSError."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_bounded(path: Path, limit: int) -> bytes | None:
    """The bytes of a regular file; None where there is none, it is a link, or it is longer than `limit` bytes.

    Raises OSError when it is there and cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        if path.is_symlink():
            return None
        raise
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            return None
        return file.read(limit)


def walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path, os.stat_result]]:
    """(`prefix` and path relative to `folder`, path, lstat) of each file below it; empty folders are passed over.

    Raises Invalid for anything but a file or a folder (a symbolic link, a socket), OSError.
    """
    if len(prefix) > MAX_PREFIX:
        raise Invalid(f"the folders in {folder} are nested too deeply")
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path, status = Path(entry.path), entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            yield from walk(path, f"{prefix}{entry.name}/")
        elif stat.S_ISREG(status.st_mode):
            yield prefix + entry.name, path, status
        else:
            kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
            raise Invalid(f"{path} is {kind}, and a store keeps regular files only")
