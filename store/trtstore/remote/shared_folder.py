"""A shared folder as the place of a team store: the tree of a local store, on a disk that several machines mount."""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from trtstore import deadlines
from trtstore.content import blobs
from trtstore.disk.layout import Layout, read_bounded
from trtstore.errors import Corrupt, Invalid, NoLocks, NotReadable, NotWritable, Silent, Unreachable, from_os
from trtstore.format.digest import is_hex
from trtstore.remote.objects import ObjectInfo, Stat
from trtstore.transfer.protocols import Readable

#: What is never changed, and gets the mode and time of a local store's files.
SEALED = ("v1/blobs/", "v1/records/")
NO_FILE = -1  # the size of anything but a regular file, so that it is never the right one
LISTING = 600.0  # seconds more, for a walk of all that is there

_T = TypeVar("_T")


class SharedFolder:
    """The objects below the folder `root`; see `objects.Objects`. Follows no link below `v1`.

    Questions to a mount that hangs end in time. Bytes, and what is written, wait for as long as the kernel does.
    """

    def __init__(self, root: Path, patience: float = deadlines.PATIENCE) -> None:
        self._layout = Layout(root.absolute())
        self._patience = patience

    def __str__(self) -> str:
        return self._layout.root.as_uri()

    def read(self, name: str, limit: int) -> bytes | None:
        def look() -> bytes | None:
            place = self._place(name)
            data = read_bounded(place, limit)
            if data is None and place.exists():
                raise Corrupt(f"{place} is no regular file of at most {limit} bytes")
            return data

        return self._answer(look)

    def create(self, name: str, data: bytes) -> bool:
        with self._asking(writing=True), self._written(name, iter((data,))) as (temporary, place):
            return _link(temporary, place)

    def replace(self, name: str, data: bytes) -> None:
        with self._asking(writing=True), self._written(name, iter((data,))) as (temporary, place):
            _replace(temporary, place)

    def upload(self, name: str, chunks: Iterator[bytes | memoryview], size: int) -> None:  # noqa: ARG002  # buckets need the size
        with self._asking(writing=True), self._written(name, chunks) as (temporary, place):
            _replace(temporary, place)

    def compares(self) -> bool:
        """Nothing to check: the kernel has the bytes that it took and synced, as for a local store."""
        return True

    def size(self, name: str) -> int | None:
        status = self.stat(name)
        return None if status is None else status.size

    def stat(self, name: str) -> Stat | None:
        def look() -> Stat | None:
            try:
                status = self._place(name).lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            if not stat.S_ISREG(status.st_mode):
                return None
            stamp = f"{status.st_ino}:{status.st_mtime_ns}:{status.st_ctime_ns}"
            return Stat(name, status.st_size, status.st_ctime, stamp)

        return self._answer(look)

    def listed(self, prefix: str) -> Iterator[ObjectInfo]:
        base = self._layout.root
        # Whatever else has the name of a record or a blob is damage, and has to be seen; elsewhere it is nothing.
        damage = prefix.startswith(SEALED)

        def walk() -> list[ObjectInfo]:
            objects = []
            for folder, folders, names in os.walk(self._place(prefix), followlinks=False):
                for name in (*names, *(filter(is_hex, folders) if damage else ())):
                    path = Path(folder, name)
                    with suppress(FileNotFoundError):
                        status = path.lstat()
                        regular = stat.S_ISREG(status.st_mode)
                        if (regular or damage) and not name.startswith("."):
                            size = status.st_size if regular else NO_FILE
                            objects.append(ObjectInfo(str(path.relative_to(base)), size, status.st_ctime))
            return objects

        # One answer, however many there are: on a network each takes a question of its own.
        yield from self._answer(walk, LISTING)

    def delete(self, name: str) -> None:
        with self._asking(writing=True):
            place = self._slot(name)
            try:
                place.unlink(missing_ok=True)
            except IsADirectoryError:
                _set_aside(place)

    @contextmanager
    def open(self, name: str, size: int) -> Iterator[Readable]:  # noqa: ARG002  # buckets need the size
        place = self._layout.root / name

        def look() -> int:
            return os.open(self._place(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

        fd = self._answer(look)
        with os.fdopen(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Corrupt(f"{place} is no regular file")
            yield file

    def _answer(self, look: Callable[[], _T], more: float = 0.0) -> _T:
        def asking() -> _T:
            with self._asking():
                return look()

        try:
            return deadlines.within(time.monotonic() + self._patience + more, asking)
        except Invalid as link:  # a writer put it in the place of something else
            raise Corrupt(link.message, link.hint) from None
        except deadlines.Late:
            raise Silent(f"the team store's folder {self._layout.root} does not answer in time") from None

    def _place(self, name: str) -> Path:
        """The path of an object. Raises Invalid where a folder on the way is a link."""
        return self._layout.own(self._layout.root / name)

    def _slot(self, name: str) -> Path:
        """As `_place`, to be written or removed: what has the name now may be a link, which is not followed."""
        place = self._layout.root / name
        return self._layout.own(place.parent) / place.name

    @contextmanager
    def _written(self, name: str, chunks: Iterator[bytes | memoryview]) -> Iterator[tuple[Path, Path]]:
        """A synced file beside the object's place, to be given that name; it is gone afterwards."""
        place = self._slot(name)
        folder = self._layout.make(place.parent)
        temporary, sent = folder / f".{secrets.token_hex(8)}", 0
        try:
            with temporary.open("xb") as file:
                for chunk in chunks:
                    sent += file.write(chunk)
            if name.startswith(SEALED):
                blobs.seal(temporary)
            self._layout.sync(temporary)
            if (kept := temporary.stat().st_size) != sent:  # a mount may tell of a full disk by nothing else
                raise NotWritable(f"{place} was written with {sent} bytes, and has {kept}")
            yield temporary, place
            self._layout.sync(folder)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _asking(self, *, writing: bool = False) -> Iterator[None]:
        try:
            if not self._layout.root.is_dir():
                # Not made here: on a machine where the share is not mounted, that would be a store of its own.
                raise Unreachable(
                    f"the team store's folder {self._layout.root} is not there", "make it, or mount the share"
                )
            yield
        except OSError as error:
            trouble = from_os(error, self._layout.root, reading=not writing)
            known = writing or isinstance(trouble, NotReadable)
            raise trouble if known else Unreachable(trouble.message, trouble.hint) from error


def _replace(temporary: Path, place: Path) -> None:
    """Give `temporary` the name `place`, whatever has it."""
    try:
        temporary.replace(place)
    except IsADirectoryError:
        _set_aside(place)
        temporary.replace(place)


def _set_aside(folder: Path) -> None:
    """Rename a folder out of the way; its content is not ours to remove."""
    folder.rename(folder.with_name(f".{secrets.token_hex(8)}"))


def _link(temporary: Path, place: Path) -> bool:
    try:
        if not blobs.link(temporary, place):
            raise NoLocks(
                f"the file system of {place.parent} has no hard links: two writers could not exclude each other",
                "keep the team store on another file system, or in a bucket",
            )
    except FileExistsError:
        return False
    return True
