"""Where each thing lies below a store's root; README.md draws the tree and is normative."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trtstore.errors import Exposed, Invalid
from trtstore.format.digest import is_hex

VERSION = "v1"

#: The modification time of every stored file, seconds since the epoch: 1980-01-02T00:00:00Z, which zip archives
#: can hold in any time zone. A file with another time was written to after it was stored.
STAMP = 315_619_200

#: Of a folder that a group shares: what is made in it belongs to the group again.
SHARED = 0o2775

#: Characters of folder names above a file that `walk` follows; a manifest allows no more.
MAX_PREFIX = 1024


@dataclass(frozen=True)
class Layout:
    """The paths of one store. `durable` says whether what is written must survive a power failure.

    The root, v1 and what is above them may be symbolic links; a folder below v1 may not. Whoever opens, lists or
    changes something there asks `link_above` or `own` first, so that nothing outside is taken for the store's. They
    look at each folder once: they keep out a link that lies there, not one that is put there a moment later by
    somebody who may write to the store, and who could change what is in it as well.
    """

    root: Path
    durable: bool = True
    shared: bool = False  # with the root's group, whose members may write
    verity: bool = False  # whether the kernel is asked to keep the blobs that are stored from now on

    @cached_property
    def base(self) -> Path:
        return self.root / VERSION

    @cached_property
    def trees(self) -> Path:
        return self.base / "trees"

    @cached_property
    def roots(self) -> Path:
        return self.base / "roots"

    @cached_property
    def pins(self) -> Path:
        return self.base / "pins"

    @cached_property
    def pending(self) -> Path:
        return self.base / "pending"

    @cached_property
    def revoked(self) -> Path:
        return self.base / "revoked"

    @cached_property
    def doubts(self) -> Path:
        return self.base / "doubts"

    @cached_property
    def teams(self) -> Path:
        return self.base / "teams"

    @cached_property
    def quarantine(self) -> Path:
        return self.base / "quarantine"

    @cached_property
    def records(self) -> Path:
        return self.base / "records"

    @cached_property
    def blobs(self) -> Path:
        return self.base / "blobs" / "sha256"

    @cached_property
    def toolchains(self) -> Path:
        return self.base / "toolchains"

    @cached_property
    def hints(self) -> Path:
        return self.base / "hints"

    @cached_property
    def locks(self) -> Path:
        return self.base / "locks"

    @cached_property
    def tmp(self) -> Path:
        return self.base / "tmp"

    @cached_property
    def partial(self) -> Path:
        return self.base / "partial"

    @cached_property
    def index(self) -> Path:
        """Each user's own: what an index says is believed."""
        return self.base / (f"index-{os.geteuid()}" if self.shared else "index")

    @cached_property
    def _inside(self) -> int:
        """Where the part of a path below v1 begins, in characters."""
        return len(f"{self.base}/")

    def blob(self, digits: str) -> Path:
        return self.blobs.joinpath(digits[:2], digits)

    def record(self, key: str) -> Path:
        return self.records / key[:2] / key

    def tree(self, digits: str) -> Path:
        return self.trees / digits

    def lock(self, kind: str, name: str | None = None) -> Path:
        return self.locks / (kind if name is None else f"{kind}-{name}")

    def link_above(self, path: Path | str) -> Path | None:
        """The first of the folders between v1 and `path` that is a symbolic link, or None."""
        text = str(path)
        end = text.find("/", self._inside)
        while end >= 0:
            if os.path.islink(text[:end]):  # noqa: PTH114  # a Path takes thrice as long, for every blob
                return Path(text[:end])
            end = text.find("/", end + 1)
        return None

    def own(self, folder: Path) -> Path:
        """`folder`, whether it is there or not. Raises Invalid where a link leads out of the store on the way."""
        link = self.link_above(f"{folder}/")
        if link is not None:
            raise Invalid(
                f"{link} is a symbolic link, and what it leads to is not the store's",
                "remove the link; to keep a store elsewhere, let its root be one",
            )
        return folder

    def check(self) -> None:
        """Raises Invalid where any folder is a link: who removes must see all that is kept. Raises OSError too."""
        for folder in (self.trees, self.roots, self.pins, self.pending, self.quarantine, self.toolchains):
            self.own(folder)
        for folder in (self.locks, self.tmp, self.partial, self.index):
            self.own(folder)
        for folder in (self.revoked, self.doubts, self.teams):
            self.own(folder)
        for inner in entries(self.own(self.hints)):
            self.own(inner)
        for folder in (self.records, self.blobs):
            for inner in entries(self.own(folder)):
                if len(inner.name) == 2:
                    self.own(inner)

    def make(self, folder: Path) -> Path:
        """`folder`, created with its parents where absent. Raises Invalid as `own`, Exposed, OSError."""
        try:
            status = self.own(folder).stat()
        except FileNotFoundError:
            self.make(folder.parent)
            with suppress(FileExistsError):
                self.folder(folder)
            self.sync(folder.parent)
            status = folder.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
        if self._is_anothers(folder, status):
            raise Exposed(f"{folder} was made by another user just now", "keep the store elsewhere")
        return folder

    def _is_anothers(self, folder: Path, status: os.stat_result) -> bool:
        return not self.shared and folder.is_relative_to(self.root) and status.st_uid not in (0, os.geteuid())

    def folder(self, path: Path) -> None:
        """Make the folder `path`, writable by this user only, whatever the umask, unless the store is shared.

        Raises OSError.
        """
        path.mkdir(mode=0o755)
        if self.shared and path.is_relative_to(self.root):
            path.chmod(SHARED)

    def folders(self, path: Path) -> None:
        """Make the folder `path` and those above it, where they are absent. Raises OSError."""
        if not path.is_dir():
            self.folders(path.parent)
            with suppress(FileExistsError):
                self.folder(path)

    def sync(self, path: Path) -> None:
        """Bring a file's bytes, or a folder's names, to the disk. Raises OSError."""
        if self.durable:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def make_folders(path: Path) -> None:
    """Make the folder `path` and those above it, where absent, with a mode that no umask widens. Raises OSError."""
    if not path.is_dir():
        make_folders(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=0o755)


def entries(folder: Path) -> list[Path]:
    """The paths in `folder`, sorted; none if it is not a folder. Raises OSError."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_bounded(path: Path, limit: int) -> bytes | None:
    """The bytes of a regular file; None where there is none, it is something else, or longer than `limit` bytes.

    Raises OSError when it is there and cannot be read.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None  # to open a device can do something, and a socket cannot be opened
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            return None
        try:
            return file.read(limit)
        except OSError as error:
            error.filename = str(path)  # to say which of many files the disk has lost
            raise


def shards(folder: Path) -> list[str]:
    """The names of the two-digit folders in `folder`, sorted; none if it is not there. Raises OSError."""
    try:
        with os.scandir(folder) as listed:
            return sorted(e.name for e in listed if len(e.name) == 2 and e.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def sharded(folder: Path, prefix: str = "") -> Iterator[str]:
    """The names of 64 hexadecimal digits in the two-digit folders of `folder` that begin with `prefix`, sorted.

    Raises OSError.
    """
    for shard in shards(folder):
        if shard.startswith(prefix[:2]):
            names = sorted(os.listdir(folder / shard))  # noqa: PTH208  # names are all that is wanted
            yield from (name for name in names if name[:2] == shard and name.startswith(prefix) and is_hex(name))


def write_small(layout: Layout, place: Path, data: bytes) -> None:
    """Put a small file below v1 by rename, and bring it to the disk. Raises Invalid as `own`, OSError."""
    folder = layout.make(place.parent)
    temporary = folder / f".{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:  # not through a link that somebody left
            file.write(data)
        layout.sync(temporary)
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
    layout.sync(folder)


def walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path, os.stat_result]]:
    """(`prefix` and path relative to `folder`, path, lstat) of each file below it; empty folders are passed over.

    Raises Invalid for anything but a file or a folder (a symbolic link, a socket), OSError.
    """
    if len(prefix) > MAX_PREFIX:
        raise Invalid(f"the folders in {folder} are nested too deeply")
    with os.scandir(folder) as listed:
        entries = sorted(listed, key=lambda entry: entry.name)
    for entry in entries:
        path, status = Path(entry.path), entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            yield from walk(path, f"{prefix}{entry.name}/")
        elif stat.S_ISREG(status.st_mode):
            yield prefix + entry.name, path, status
        else:
            kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
            raise Invalid(f"{path} is {kind}, and a store keeps regular files only")
