"""What must hold of a store after any fault, as findings in words: an empty list is what a test asserts."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from tests.store.faults.operations import ARTIFACTS, LATER, LOG, World, read_artifact
from tests.store.support import KEY
from trtstore.disk.layout import STAMP
from trtstore.errors import Corrupt
from trtstore.format.digest import hash_bytes, is_hex

_RANDOM = re.compile(r"(?<=tmp/)\d+\.[0-9a-f]{16}|\.[0-9a-f]{16}$")


def fingerprint(home: Path, *, index: bool) -> str:
    """A text that is the same for two worlds that differ in nothing but times and the random names of tmp/."""
    lines = []
    for folder, folders, files in os.walk(home):
        if not index and "index" in folders:
            folders.remove("index")
        for name in folders + files:
            path = os.path.join(folder, name)  # noqa: PTH118  # called thousands of times
            status = os.lstat(path)
            shown = _RANDOM.sub("*", path)
            lines.append(f"{shown} {status.st_mode:o} {status.st_mtime == STAMP} {_content(path, status)}")
    return "\n".join(sorted(lines))


def _content(path: str, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return str(Path(path).readlink())
    if not stat.S_ISREG(status.st_mode) or "/locks/" in path:
        return ""
    with open(path, "rb") as file:  # noqa: PTH123  # the same
        return hash_bytes(file.read())


def held_locks(base: Path) -> Iterator[str]:
    """The locks of a store that some process still holds."""
    for path in [*base.glob("locks/*"), *base.glob("tmp/*/lock"), *base.glob("index/lock")]:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield f"{path.relative_to(base)} is still held"


def half_written(base: Path) -> Iterator[str]:
    """What has a final name in a store, and is not what the name says."""
    for path in base.glob("blobs/sha256/??/*"):
        status = path.lstat()
        if hash_bytes(path.read_bytes()) != path.name:
            yield f"the blob {path.name[:8]}… has other bytes"
        elif (status.st_mode & 0o777, status.st_mtime) != (0o444, STAMP):
            yield f"the blob {path.name[:8]}… has the mode {status.st_mode:o}, the time {status.st_mtime}"
    for path in [*base.glob("records/??/*"), *base.glob("trees/*"), *base.glob("roots/*")]:
        if not is_hex(path.name):
            yield f"{path.relative_to(base)} is no name of a store's"
    for path in base.glob("records/??/*"):
        if path.lstat().st_mode & 0o777 != 0o444:
            yield f"the record {path.name[:8]}… has the mode {path.lstat().st_mode:o}"


def usable(world: World) -> set[str]:
    return {key for key in ARTIFACTS if world.store.lookup(key, on_problem=ignore) is not None}


def ignore(_problem: str) -> None:
    """For who looks up what a test has spoilt."""


def unusable(world: World, but: tuple[str, ...]) -> Iterator[str]:
    """The records that cannot be used: a record comes last, so that no crash or refusal makes one."""
    for path in world.base.glob("records/??/*"):
        if path.name in but:
            continue
        problems: list[str] = []
        world.store.lookup(path.name, on_problem=problems.append)
        yield from problems


def wrong_artifacts(world: World) -> Iterator[str]:
    """Each key of ARTIFACTS that is a hit with other bytes than its own. Makes trees."""
    for key in usable(world):
        record = world.record(key)
        try:
            tree = world.store.materialise(record).path
        except Corrupt:  # found before it was served: from then on a miss
            if key in usable(world):
                yield f"{key[:4]}… is damaged, and stays"
            continue
        if read_artifact(tree) != ARTIFACTS[key]:
            yield f"{key[:4]}… is a hit with wrong bytes"
        for file in record.attachments.values():
            path = world.store.blob_path(file.digest)
            if path is None or path.read_bytes() != LOG:
                yield f"{key[:4]}… has a wrong attachment"


def after_the_next_writer(world: World) -> Iterator[str]:
    """What a new publish of a new key, and one of the key that was perhaps half published, leave undone."""
    for key in (LATER, KEY):
        world.publish(key)
    yield from wrong_artifacts(world)
    if not {LATER, KEY} <= usable(world):
        yield "what is published afterwards is not there"
    yield from (f"tmp/{name} is left over" for name in os.listdir(world.base / "tmp"))  # noqa: PTH208  # names only
