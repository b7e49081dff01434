"""A shared folder as the place of a team store: the tree of a local store, on a disk that several machines mount."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trtstore import blobs
from trtstore.errors import Corrupt, NoLocks, NotReadable, Unreachable, from_os
from trtstore.layout import Layout, read_bounded
from trtstore.listed import Listed
from trtstore.protocols import Readable

SEALED = (
    "v1/blobs/",
    "v1/records/",
)  # what is never changed, and gets the mode and time of a local store's files


class SharedFolder:
    """The objects below the folder `root`; see `objects.Objects`. Follows no link below `v1`."""

    def __init__(self, root: Path) -> None:
        self._layout = Layout(root.absolute())

    def __str__(self) -> str:
        return self._layout.root.as_uri()

    def read(self, name: str, limit: int) -> bytes | None:
        with self._asking():
            place = self._place(name)
            data = read_bounded(place, limit)
            if data is None and place.exists():
                raise Corrupt(f"{place} is no regular file of at most {limit} bytes")
            return data

    def create(self, name: str, data: bytes) -> bool:
        with self._asking(writing=True), self._written(name, iter((data,))) as (temporary, place):
            return _link(temporary, place)

    def replace(self, name: str, data: bytes) -> None:
        with self._asking(writing=True), self._written(name, iter((data,))) as (temporary, place):
            temporary.replace(place)

    def upload(self, name: str, chunks: Iterator[bytes | memoryview], size: int) -> None:  # noqa: ARG002  # buckets need the size
        with self._asking(writing=True), self._written(name, chunks) as (temporary, place):
            temporary.replace(place)

    def size(self, name: str) -> int | None:
        with self._asking():
            try:
                status = self._place(name).lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return status.st_size if stat.S_ISREG(status.st_mode) else None

    def listed(self, prefix: str) -> Iterator[Listed]:
        with self._asking():
            base = self._layout.root
            for folder, _, names in os.walk(self._place(prefix), followlinks=False):
                for name in names:
                    path = Path(folder, name)
                    with suppress(FileNotFoundError):
                        status = path.lstat()
                        if stat.S_ISREG(status.st_mode) and not name.startswith("."):
                            yield Listed(str(path.relative_to(base)), status.st_size, status.st_ctime)

    def delete(self, name: str) -> None:
        with self._asking(writing=True):
            self._place(name).unlink(missing_ok=True)

    @contextmanager
    def open(self, name: str, size: int) -> Iterator[Readable]:  # noqa: ARG002  # buckets need the size
        with self._asking():
            place = self._place(name)
            fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Corrupt(f"{place} is no regular file")
            yield file

    def _place(self, name: str) -> Path:
        """The path of an object. Raises Invalid where a folder on the way is a link."""
        return self._layout.own(self._layout.root / name)

    @contextmanager
    def _written(self, name: str, chunks: Iterator[bytes | memoryview]) -> Iterator[tuple[Path, Path]]:
        """A synced file beside the object's place, to be given that name; it is gone afterwards."""
        place = self._place(name)
        folder = self._layout.make(place.parent)
        temporary = folder / f".{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:
                for chunk in chunks:
                    file.write(chunk)
            if name.startswith(SEALED):
                blobs.seal(temporary)
            self._layout.sync(temporary)
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
