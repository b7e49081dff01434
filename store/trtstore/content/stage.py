"""From a folder to staged blobs and a manifest, every file read once, a few at a time; and a record into its place."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtstore.content import blobs
from trtstore.disk.hashing import OnBytes, ignore_bytes, in_threads
from trtstore.disk.layout import Layout, walk
from trtstore.errors import Invalid, Malformed, as_store_failures
from trtstore.format import manifest
from trtstore.format import record as records
from trtstore.format.digest import digest_of
from trtstore.format.manifest import Entry, Manifest, mode_of
from trtstore.format.record import Attachment, Record
from trtstore.index.index import Index, hash_files


def stage_folder(layout: Layout, folder: Path, stage: Path) -> tuple[Manifest, list[blobs.Staged]]:
    """The manifest of the files below `folder`, and those files staged in `stage`.

    Raises Invalid where the folder cannot be an artifact, Corrupt where a file changes meanwhile, OSError.
    """
    listed = _listing(folder)

    def work(item: tuple[int, Path], on_bytes: OnBytes) -> blobs.Staged:
        return blobs.stage_file(layout, item[1], stage / f"file.{item[0]}", on_bytes)

    staged = in_threads(work, list(enumerate(path for _, path, _ in listed)), ignore_bytes)
    files = zip(listed, staged, strict=True)
    entries = [Entry(name, mode_of(its.st_mode), file.size, file.sha256) for (name, _, its), file in files]
    return _manifest(folder, entries), staged


def stage_attachments(layout: Layout, files: Mapping[str, Path], stage: Path) -> dict[str, blobs.Staged]:
    """Each of `files` staged, by its name. Raises Invalid, Corrupt, OSError."""

    def work(item: tuple[int, Path], on_bytes: OnBytes) -> blobs.Staged:
        return blobs.stage_file(layout, item[1], stage / f"attachment.{item[0]}", on_bytes)

    return dict(zip(files, in_threads(work, list(enumerate(files.values())), ignore_bytes), strict=True))


def folder_manifest(folder: Path, index: Index) -> Manifest:
    """The manifest that `folder` would have as an artifact; nothing is stored.

    Raises Invalid where the folder cannot be an artifact, Corrupt, NotReadable, StoreFailure.

    >>> folder_manifest(Path("result"), store.index).digest == record.manifest
    True
    """
    listed = _listing(folder)
    digests = hash_files([path for _, path, _ in listed], index)
    files = zip(listed, digests, strict=True)
    return _manifest(
        folder, [Entry(name, mode_of(its.st_mode), its.st_size, sha256) for (name, _, its), sha256 in files]
    )


def encoded(
    key: str,
    made: Manifest,
    kept: Mapping[str, blobs.Staged],
    labels: Mapping[str, str],
    predicate_type: str,
    predicate: Mapping[str, Any],
) -> bytes:
    """The envelope of the record of `made`, with the attachments `kept`. Raises Invalid where it breaks a rule."""
    record = Record(
        key=key,
        manifest=made.digest,
        bytes=made.size,
        files=len(made.entries),
        labels=labels,
        attachments={name: Attachment(digest_of(f.sha256), f.size) for name, f in kept.items()},
        predicate_type=predicate_type,
        predicate=predicate,
    )
    try:
        return records.encode(record)
    except Malformed as trouble:
        raise Invalid(f"the record of {key} cannot be written: {trouble}") from None


def _listing(folder: Path) -> list[tuple[str, Path, os.stat_result]]:
    """(path in the artifact, path, lstat) of each file, after a check of the names: before any byte is read."""
    with as_store_failures(folder, reading=True):
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise Invalid(f"{folder} is no folder")
        listed = list(walk(folder))
    # As if no two files were the same: which are is known once they are hashed.
    named = enumerate(listed)
    _manifest(folder, [Entry(name, mode_of(its.st_mode), its.st_size, f"{at:064x}") for at, (name, _, its) in named])
    return listed


def _manifest(folder: Path, entries: list[Entry]) -> Manifest:
    try:
        return manifest.make_manifest(entries)
    except Malformed as trouble:
        raise Invalid(f"{folder} cannot be an artifact: {trouble}") from None
