"""A content-addressed store of folders: look up by key, publish once, materialise as a folder again."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from trtstore import blobs, locks, manifest, records, roots, scratch, staging, strictjson, trees
from trtstore.digest import checked_key, digest_of, hash_bytes, hex_of
from trtstore.errors import Corrupt, Invalid, Malformed, translated
from trtstore.index import Index
from trtstore.layout import Layout, read_bounded
from trtstore.locks import Holder
from trtstore.manifest import Manifest
from trtstore.records import Attachment, Record
from trtstore.trees import Materialised

log = logging.getLogger("trtstore")

_NOTHING: Mapping[str, Path] = MappingProxyType({})


class Store:
    """The store below one root folder. Processes and threads may share it; README.md says what they may rely on."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._swept = False
        self.index = Index(layout.index)

    @classmethod
    def open(cls, root: Path, *, durability: Literal["full", "fast"] = "full") -> Store:
        """The store below `root`, which need not exist: nothing is written before the first write.

        "full" brings what is published to the disk before its record is there; "fast" leaves that to the kernel,
        and a power failure may then lose or truncate what was published last.
        """
        return cls(Layout(root.absolute(), durable=durability == "full"))

    @property
    def root(self) -> Path:
        return self._layout.root

    def lookup(self, key: str, *, on_problem: Callable[[str], None] | None = None) -> Record | None:
        """The record of `key` when all that it names is there, else None.

        Checks the forms of record and manifest, and size and times of each blob, and reads no blob. What is there
        and cannot be used is told to `on_problem` (by default, logged). Raises Invalid for what is no key,
        NotReadable and the like.
        """
        path = self._layout.record(checked_key(key))
        with translated(self.root, reading=True):
            try:
                path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            try:
                record = self._parse(path, key)
                self._manifest(record)
            except Malformed as trouble:
                (on_problem or log.warning)(f"{path} is taken as absent: {trouble}")
                return None
        return record

    def publish(
        self,
        key: str,
        folder: Path,
        *,
        predicate_type: str,
        predicate: Mapping[str, Any],
        labels: Mapping[str, str],
        attachments: Mapping[str, Path] = _NOTHING,
    ) -> Record:
        """Keep the files below `folder` under `key`; returns the record that is now there.

        When the key has a usable record already, that one stays and is returned. Blobs come first and the record
        last, so a reader, or a crash, sees a whole artifact or none. Files in one of this store's `scratch` folders
        are taken over without a copy and become read-only: nothing may have them open for writing. Empty folders
        are not kept. Raises Invalid (a symbolic link, a name that is not portable, a predicate that is not JSON),
        Corrupt when a file changes meanwhile, NoSpace, NotWritable and the like, and then leaves nothing behind.
        """
        checked_key(key)
        facts = strictjson.plain(predicate, "predicate")
        with self._writing() as stage, translated(self.root):
            made, staged = staging.stage_folder(self._layout, folder, stage)
            kept = staging.stage_attachments(self._layout, attachments, stage)
            listed = blobs.stage_bytes(self._layout, made.encode(), stage / "manifest")
            record = Record(
                key=key,
                manifest=digest_of(listed.sha256),
                bytes=made.size,
                files=len(made.entries),
                labels=labels,
                attachments={name: Attachment(digest_of(f.sha256), f.size) for name, f in kept.items()},
                predicate_type=predicate_type,
                predicate=facts,
            )
            try:
                envelope = records.encode(record)
            except Malformed as trouble:
                raise Invalid(f"{folder} cannot be published: {trouble}") from None
            blobs.commit(self._layout, [*staged, *kept.values(), listed])
            return self._commit(key, envelope, stage / "record")

    def materialise(self, record: Record) -> Materialised:
        """The artifact as a folder, trees/<digest>: the present one when it is whole, else made anew.

        Its files are read-only. Concurrent callers make it once. Raises Corrupt when a blob is not what it should
        be, NoSpace, NotWritable and the like.
        """
        started = time.perf_counter()
        tree = self._layout.tree(hex_of(record.manifest))
        with translated(self.root, reading=True):
            try:
                wanted = self._manifest(record)
            except Malformed as trouble:
                raise Corrupt(str(trouble), "build it again: what is broken counts as absent") from None
            method: trees.Method = "present"
            if not trees.is_whole(self._layout, tree, wanted):
                method = self._rebuild(tree, wanted)
        with suppress(OSError):
            os.utime(tree)  # the folder's own time says when it was last used
        return Materialised(tree, method, time.perf_counter() - started)

    def add_root(self, link: Path, record: Record) -> None:
        """Make `link` a symbolic link to the materialised artifact, which it keeps alive until it is removed.

        Raises Invalid when `link` exists and is not a link made by a store, and as `materialise`.
        """
        with self._in_use():
            roots.add(self._layout, link, self.materialise(record).path)

    @contextmanager
    def building(
        self, key: str, *, who: str, on_wait: Callable[[Holder], None] | None = None
    ) -> Iterator[None]:
        """Be the only one, on this machine, that builds `key`; waits for as long as somebody else does.

        `who` is for those who wait; `on_wait` is told about every second who is waited for. The kernel frees the
        lock of a killed process at once. Look the key up again once inside: the one before may have published it.
        """
        with self._lock("build", checked_key(key), who=who, on_wait=on_wait):
            yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private empty folder (0700) on the store's file system, removed at the end, or after a kill by others."""
        if not self._swept:
            self._swept = True
            scratch.sweep(self._layout)
        with scratch.folder(self._layout) as work:
            yield work

    def blob_path(self, digest: str) -> Path | None:
        """The file that holds the bytes of "sha256:<64 hex>", or None. For reading only."""
        try:
            path = self._layout.blob(hex_of(digest))
        except Malformed as trouble:
            raise Invalid(str(trouble)) from None
        return path if path.is_file() and not path.is_symlink() else None

    def _parse(self, path: Path, key: str) -> Record:
        data = read_bounded(path, records.MAX_BYTES)
        if data is None:
            raise Malformed("it is no regular file, or too long")
        return records.parse(data, key)

    def _manifest(self, record: Record) -> Manifest:
        """The record's manifest, with every blob there. Raises Malformed, OSError."""
        digits = hex_of(record.manifest)
        data = read_bounded(self._layout.blob(digits), manifest.MAX_BYTES)
        if data is None:
            raise Malformed(f"the manifest {self._layout.blob(digits)} is not there")
        if hash_bytes(data) != digits:
            raise Malformed(f"the manifest {self._layout.blob(digits)} is not what its name says")
        found = manifest.parse(data)
        if (found.size, len(found.entries)) != (record.bytes, record.files):
            raise Malformed("its totals are not those of its manifest")
        wanted = [(entry.sha256, entry.size) for entry in found.entries]
        wanted += [(hex_of(file.digest), file.size) for file in record.attachments.values()]
        for blob, size in wanted:
            trouble = blobs.problem(self._layout, blob, size)
            if trouble is not None:
                raise Malformed(trouble)
        return found

    def _commit(self, key: str, envelope: bytes, temporary: Path) -> Record:
        """The record of `key` after this: the usable one that is there, else that of `envelope`."""
        place = self._layout.record(key)
        # The lock makes check and rename one: of many publishers one wins, and a broken record is replaced once.
        with self._lock("record", key):
            existing = self.lookup(key)
            if existing is not None:
                return existing
            self._layout.make(place.parent)
            temporary.write_bytes(envelope)
            temporary.chmod(blobs.MODE)
            self._layout.sync(temporary)
            temporary.replace(place)
            try:
                self._layout.sync(place.parent)
            except OSError:
                place.unlink(missing_ok=True)  # a failed publish adds no record, and who looks now may not rely on it
                raise
        return records.parse(envelope, key)

    def _rebuild(self, tree: Path, wanted: Manifest) -> trees.Method:
        with self._in_use(), self._lock("tree", tree.name):
            if trees.is_whole(self._layout, tree, wanted):
                return "present"
            with self.scratch() as work, translated(self.root):
                method = trees.build(self._layout, work / "tree", wanted)
                self._layout.make(tree.parent)
                with suppress(FileNotFoundError):
                    tree.rename(work / "broken")
                (work / "tree").rename(tree)
        return method

    @contextmanager
    def _writing(self) -> Iterator[Path]:
        with self._in_use(), self.scratch() as stage:
            yield stage

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keep collectors, which hold locks/store alone, from deciding while something is half added."""
        with translated(self.root):
            self._layout.make(self._layout.locks)
        with locks.shared(self._layout.lock("store")):
            yield

    @contextmanager
    def _lock(
        self, kind: str, name: str, *, who: str = "", on_wait: Callable[[Holder], None] | None = None
    ) -> Iterator[None]:
        with translated(self.root):
            self._layout.make(self._layout.locks)
        with locks.exclusive(self._layout.lock(kind, name), who=who, on_wait=on_wait):
            yield
