"""The files of a commit in the cache of the Hub's client, each byte as the commit states it.

The client compares sizes and no digests (its own storage, Xet, aside), so every file is checked here: large
ones against the sha256 that the commit states, small ones against git's blob id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from huggingface_hub import constants, hf_hub_download

from trtbuild.errors import InputError
from trtbuild.sources.base import Digester, Progress
from trtbuild.sources.file_snapshot import FileSnapshot, take_snapshots
from trtbuild.sources.hub import cache
from trtbuild.sources.hub import pace as hub_pace
from trtbuild.sources.hub.commit import Commit, HubFile
from trtbuild.sources.hub.guard import SPARE, ExpectedFile, Guard
from trtbuild.sources.hub.location import Location
from trtbuild.sources.hub.progress import bar_class
from trtstore import OnBytes, ignore_bytes, in_threads

_T = TypeVar("_T")


class Attempt(Protocol):
    """Calls a function, and puts the client's errors into the user's words."""

    def __call__(self, call: Callable[[], _T], /) -> _T: ...


class Copies:
    """What is here of one commit."""

    def __init__(self, location: Location, commit: Commit, option: str, digester: Digester, attempt: Attempt) -> None:
        self._location, self._commit = location, commit
        self._option, self._digester, self._attempt = option, digester, attempt
        self._place = cache.folder(location.kind, location.repo)
        #: by name in the repository: files that are here and whose bytes were checked
        self.seen: dict[str, FileSnapshot] = {}

    def here(self, file: HubFile) -> Path | None:
        """The file in the cache, if its size is right; its bytes are not compared."""
        return cache.cached(self._place, self._commit.sha, file.name, file.size)

    def verify(self, names: Iterable[str], progress: Progress | None) -> None:
        """Have the files here and their bytes checked; a wrong copy is fetched once more, then an error."""
        files = [self._commit.file(name) for name in names if name not in self.seen]
        for attempt in range(2):
            paths = self._download_all(files, progress, again=attempt > 0)
            seen = take_snapshots(paths, self._digester, self._option)
            compared = in_threads(_compare, list(zip(files, seen, strict=True)), ignore_bytes)
            wrong = []
            for file, snapshot, (wanted, actual) in zip(files, seen, compared, strict=True):
                if wanted == actual:
                    self.seen[file.name] = snapshot
                    continue
                left = cache.discard(self._place, snapshot.path)
                wrong.append(file)
                if attempt:
                    raise self._differs(file.name, wanted, actual, left)
            files = wrong

    def _download_all(self, files: Sequence[HubFile], progress: Progress | None, *, again: bool) -> list[Path]:
        self._check_room(files)
        if progress is not None:  # one after the other: a large file fills the line, and has a bar of its own
            return [self._download(file, progress, hub_pace.download(), again=again) for file in files]
        # Those of a plan are small: what they take is a few round trips each.
        return in_threads(
            lambda file, on_bytes: self._download(
                file, lambda _what, _done, _total: on_bytes(0), hub_pace.lookup(), again=again
            ),
            files,
            ignore_bytes,
        )

    def _check_room(self, files: Sequence[HubFile]) -> None:
        """Raises InputError where more is published than fits."""
        absent = [file for file in files if self.here(file) is None]
        needed = sum(file.size for file in absent)
        room = self._attempt(lambda: cache.free(self._place)) if absent else 0
        if needed > room:
            raise InputError(
                f"{self._location.repo} needs {needed} bytes more, and {room} are free in {self._place.parent}",
                option=self._option,
                hint="free some space there, or name another place for the Hub's cache in HF_HOME",
            )

    def _download(self, file: HubFile, progress: Progress, pace: hub_pace.Pace, *, again: bool) -> Path:
        guard = Guard(file.size + SPARE, ExpectedFile(self._commit.sha, file.sha256 or file.blob_id, file.size))

        def moves(count: int) -> None:
            guard.moves(count if guard.xet else 0)  # else they were counted as they came

        def call() -> str:
            return hf_hub_download(
                self._location.repo,
                file.name,
                repo_type=self._location.kind,
                revision=self._commit.sha,
                headers={"Accept-Encoding": "identity"},
                force_download=again,
                tqdm_class=bar_class(file.name, file.size, progress, moves),
            )

        path = Path(self._attempt(lambda: hub_pace.within(pace, guard, call)))
        if not path.is_file():
            raise InputError(
                f"{path} is no file, and stands in the Hub's cache where {file.name} should be",
                option=self._option,
                hint="remove it",
            )
        progress(file.name, file.size, file.size)
        return path

    def _differs(self, name: str, wanted: str, actual: str, left: Path | None) -> InputError:
        said = "the wrong copy was removed" if left is None else f"the wrong copy is {left}, which was left alone"
        return InputError(
            f"{name} of {self._location.at(self._commit.sha)} was downloaded with other bytes: "
            f"{wanted} is published, {actual} came",
            option=self._option,
            hint=f"{said}; a proxy or the mirror {constants.ENDPOINT} (HF_ENDPOINT) may alter downloads: try another",
        )


def _compare(file: tuple[HubFile, FileSnapshot], on_bytes: OnBytes) -> tuple[str, str]:
    """What identifies the file's bytes, as the commit states it and as it is."""
    stated, seen = file
    if stated.sha256 is not None:
        return f"sha256 {stated.sha256}", f"sha256 {seen.sha256}"
    if stated.blob_id is None:  # a mirror that gives none
        return f"{stated.size} bytes", f"{seen.size} bytes"
    return f"git blob {stated.blob_id}", f"git blob {_blob_id(seen, on_bytes)}"


def _blob_id(file: FileSnapshot, on_bytes: OnBytes) -> str:
    """Git's name of a file's bytes: sha1 over "blob <size>\\0" and them."""
    hasher = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with file.path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            hasher.update(piece)
            on_bytes(len(piece))
    return hasher.hexdigest()
