"""A content-addressed store of folders: look up by key, publish once, materialise as a folder again."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from trtstore.content import blobs, commit, read
from trtstore.content import stage as staging
from trtstore.content import verify as verification
from trtstore.content.hints import Hints
from trtstore.content.serve import Served, lock
from trtstore.content.trees import Materialised
from trtstore.disk import gate, locks, owners, scratch
from trtstore.disk.layout import Layout
from trtstore.disk.locks import Holder
from trtstore.environments.environments import Environments
from trtstore.errors import Corrupt, Malformed, as_store_failures
from trtstore.format import canonical_json, expected
from trtstore.format import record as records
from trtstore.format.digest import checked_key
from trtstore.format.manifest import Manifest
from trtstore.format.record import Record
from trtstore.index import usage
from trtstore.index.index import Index
from trtstore.index.seals import Seals
from trtstore.marks import doubts, roots
from trtstore.marks.doubts import Doubt
from trtstore.marks.pending import Pending
from trtstore.transfer.protocols import OnProgress, Reader, ignore_progress
from trtstore.transfer.readonly import ReadOnly
from trtstore.transfer.receive import Delivery, Received, Receiver

log = logging.getLogger("trtstore")

#: How often a use reads every byte again.
Verify = Literal["always", "sample", "never"]
SAMPLE = 20  # "sample" is one use in so many

_NOTHING: Mapping[str, Path] = MappingProxyType({})


class Store(ReadOnly):
    """The store below one root folder. Processes and threads may share it; README.md says what they may rely on.

    >>> with store.building("cd" * 32, who="an example"), store.scratch() as work:
    ...     _ = (work / "engine.bin").write_bytes(b"another engine")
    ...     made = store.publish("cd" * 32, work, predicate_type="urn:example", predicate={}, labels={})
    >>> with store.reading(made) as tree:
    ...     (tree.path / "engine.bin").read_bytes()
    b'another engine'
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.environments = Environments(layout)
        self.hints = Hints(layout)
        self.pending = Pending(layout)
        self._swept = False
        self.index = Index(layout.index)
        self._served = Served(layout, self.index, Seals(self.index, layout.base))

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        durability: Literal["full", "fast"] = "full",
        shared_with: owners.SharedWith | None = None,
        verity: bool = False,
    ) -> Store:
        """The store below `root`, which need not exist: nothing is written before the first write.

        "full" brings what is published to the disk before its record is there; "fast" leaves that to the kernel,
        and a power failure may then lose or truncate what was published last.
        `shared_with` "group" lets the members of the root's group write, too: what this process makes from then on,
        they may change (its umask says so). None reads $TRTSTORE_SHARED_WITH. Raises Exposed if others may write.
        With `verity` the kernel keeps what is stored from now on, where it can (fs-verity).
        """
        shared = owners.shared_with(shared_with) == "group"
        layout = Layout(root.absolute(), durable=durability == "full", shared=shared, verity=verity)
        with as_store_failures(layout.root, reading=True):
            owners.check(layout)
        if shared:
            os.umask(os.umask(0o002) & 0o007 | 0o002)
        return cls(layout)

    def close(self) -> None:
        """Let go of the index's database, as before an unmount; it is opened again when it is wanted."""
        self.index.close()

    def lookup(self, key: str, *, on_problem: Callable[[str], None] | None = None) -> Record | None:
        """As `ReadOnly.lookup`. A blob with other times is hashed once, and its times are put right if its bytes are.

        A record that another user wrote is passed to `on_problem`, and is a miss.
        """
        checked_key(key)
        tell = on_problem or log.warning
        with as_store_failures(self.root, reading=True):
            return read.lookup(self._layout, key, tell) if owners.owns(self._layout, key, tell) else None

    def use(
        self,
        key: str,
        *,
        verify: Verify = "never",
        on_problem: Callable[[str], None] | None = None,
        count: bool = True,
        manifest: str | None = None,
    ) -> Record | None:
        """As `lookup`, and the artifact is in use: collectors keep it for their grace period from now on.

        `count` says whether the statistics count a hit. With `manifest`, a record of another one is noted, and a miss.

        `verify` says how often every byte is read again: "always", "sample" (one use in twenty) or "never". What is
        found damaged is quarantined, told to `on_problem`, and a miss. Raises as `lookup`.
        """
        with as_store_failures(self.root, reading=True):
            if read.identity(self._layout, checked_key(key)) is None:
                return None  # nothing is written for a miss
            if not owners.owns(self._layout, key, tell := on_problem or log.warning):
                return None
        with gate.looking(self._layout), as_store_failures(self.root, reading=True):
            usable = read.find(self._layout, key, tell)
            if usable is None:
                return None
            if (wrong := expected.trouble(usable[0], manifest)) is not None:
                tell(f"{self._layout.record(key)} is taken as absent: {wrong}")
                return None
            read.touch(self._layout, key)
        if verify == "always" or (verify == "sample" and secrets.randbelow(SAMPLE) == 0):
            self._tell(verification.damage(self._layout, usable[0]), tell)
            usable = self._again(key)
        if usable is not None and self._tell(self._served.damage(*usable), tell):
            usable = self._again(key)  # which is there where somebody has put it right meanwhile
            if usable is not None and self._served.damage(*usable):
                return None
        if usable is None:
            return None
        if count:
            self.count_hit(key)
        return usable[0]

    def _again(self, key: str) -> tuple[Record, Manifest] | None:
        with as_store_failures(self.root, reading=True):
            return read.find(self._layout, key, lambda _: None)

    @staticmethod
    def _tell(troubles: list[str], tell: Callable[[str], None]) -> bool:
        for trouble in troubles:
            tell(trouble)
        return bool(troubles)

    def count_hit(self, key: str) -> None:
        """Count a hit of `key` in the statistics, as `use` does it."""
        usage.hit(self.index, key)

    def publish(
        self,
        key: str,
        folder: Path,
        *,
        predicate_type: str,
        predicate: Mapping[str, Any],
        labels: Mapping[str, str],
        attachments: Mapping[str, Path] = _NOTHING,
        seconds: float | None = None,
        manifest: str | None = None,
        doubt: Doubt | None = None,
    ) -> Record:
        """Keep the files below `folder` under `key`; returns the record that is now there.

        When the key has a usable record already, that one stays and is returned, unless that is doubted and this one
        is not; with `manifest`, the digest of what is published, only where it is a record of that, too. Blobs come
        first and the record last, so a reader, or a crash, sees a whole artifact or none. Files in one of this store's
        `scratch` folders are taken over without a copy and become read-only: nothing may have them open for writing.
        Empty folders are not kept. `seconds` is what the build took, for statistics; `doubt` says that it was made from
        what is doubted. Raises Invalid (a symbolic link, a name that
        is not portable, a predicate that is not JSON),
        Corrupt when a file changes meanwhile, NoSpace, NotWritable, StoreFailure, and then leaves nothing behind.
        """
        checked_key(key)
        facts = canonical_json.plain(predicate, "predicate")
        with self.scratch() as stage, as_store_failures(self.root):
            made, staged = staging.stage_folder(self._layout, folder, stage)
            if manifest not in (None, made.digest):
                raise Corrupt(f"{folder} holds other files than those that {key[:12]} names")
            kept = staging.stage_attachments(self._layout, attachments, stage)
            encoded = blobs.stage_bytes(self._layout, made.encode(), stage / "manifest")
            envelope = staging.encoded(key, made, kept, labels, predicate_type, facts)
            # Only this holds off collectors: copying and hashing may take minutes.
            with gate.adding(self._layout):
                blobs.commit(self._layout, [*staged, *kept.values(), encoded], self._served.seals)
                with self._record_lock(key):
                    done = self._usable(key, doubt, manifest)
                    if done is None:
                        commit.put_record(self._layout, key, envelope, stage / "record", doubt)
                        done = records.parse(envelope, key)
        self._seal(done, made)
        if seconds is not None:
            usage.built(self.index, key, seconds)
        return done

    def materialise(self, record: Record) -> Materialised:
        """The artifact as a folder, trees/<digest>: the present one when it is whole, else made anew.

        It counts as used, and collectors keep it for their grace period; `reading` keeps it longer. Its files are
        read-only. Concurrent callers make it once. Raises Corrupt when a blob is not what it should be, NoSpace,
        NotWritable, StoreFailure.
        """
        return self._served.materialise(record)

    def reading(self, record: Record) -> AbstractContextManager[Materialised]:
        """The materialised artifact, which no collector removes until the end. Raises as `materialise`."""
        return self._served.reading(record)

    def add_root(self, link: Path, record: Record) -> None:
        """Make `link` a symbolic link to the materialised artifact, which it keeps alive until it is removed.

        Raises Invalid when `link` exists and is not a link made by a store, and as `materialise`.
        """
        # Not while a collector decides: it may have looked for roots before, and look for readers after.
        with self.reading(record) as made, gate.adding(self._layout):
            roots.add(self._layout, link, made.path)

    @contextmanager
    def building(self, key: str, *, who: str, on_wait: Callable[[Holder], None] | None = None) -> Iterator[None]:
        """Be the only one, on this machine, that builds `key`; waits for as long as somebody else does.

        `who` is for those who wait; `on_wait` is told about every second who is waited for. The kernel frees the
        lock of a killed process at once. Look the key up again once inside: the one before may have published it.
        No collector takes what is found inside before the end.
        """
        with lock(self._layout, "build", checked_key(key), who=who, on_wait=on_wait):
            with gate.adding(self._layout):
                pass  # a collector that decided before this lock is done; a later one sees it
            yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private empty folder (0700) on the store's file system, removed at the end, or after a kill by others."""
        if not self._swept:
            self._swept = True
            scratch.sweep(self._layout)
        with scratch.folder(self._layout) as work:
            yield work

    @contextmanager
    def receiver(self) -> Iterator[Receiver]:
        """Receives artifacts from elsewhere, for `commit`. Raises NotWritable, NoSpace, StoreFailure."""
        with self.scratch() as stage, as_store_failures(self.root):
            yield Receiver(self._layout, stage, self._served.seals)

    def receive(
        self,
        key: str,
        envelope: bytes,
        source: Reader,
        on_progress: OnProgress = ignore_progress,
        *,
        manifest: str | None = None,
        doubt: Doubt | None = None,
    ) -> Received:
        """Copy an artifact from `source`, every byte verified, and keep it; see `Receiver.receive` and `commit`."""
        with self.receiver() as receiver:
            delivery = receiver.receive(key, envelope, source, on_progress, manifest=manifest, doubt=doubt)
            return self.commit(delivery, manifest=manifest)

    def commit(self, delivery: Delivery, *, manifest: str | None = None) -> Received:
        """Keep what was delivered: blobs first, then the record.

        A usable record that is there already stays and is returned, as by `publish`. Raises Corrupt if a blob that need
        not come has gone meanwhile, Exposed, NoSpace, StoreFailure.
        """
        key, seals = delivery.record.key, self._served.seals
        with gate.adding(self._layout), self._record_lock(key):
            existing = self._usable(key, delivery.doubt, manifest)
            commit.settle(self._layout, delivery.staged, delivery.blobs, seals)
            if existing is None:
                commit.put_record(self._layout, key, delivery.envelope, delivery.temporary, delivery.doubt)
        record = existing or delivery.record
        self._seal(record, delivery.listed)
        return Received(record, new=existing is None)

    def _seal(self, record: Record, listed: Manifest) -> None:
        """Seal the blobs of `record`. `listed` is its manifest, unless it was there before and has another."""
        with suppress(Malformed, OSError):  # then a lookup finds it wanting, and the next use reads its blobs
            if record.manifest != listed.digest:
                listed = read.read_manifest(self._layout, record.manifest)
            self._served.seal(record, read.named_blobs(record, listed))

    def _record_lock(self, key: str) -> AbstractContextManager[None]:
        """Makes one of look and rename: of many publishers one wins, and a broken record is replaced once."""
        return lock(self._layout, "record", key, who=f"process {os.getpid()}", patience=locks.PATIENCE)

    def _usable(self, key: str, doubt: Doubt | None, manifest: str | None) -> Record | None:
        """The record of `key`, whose lock is held, if it stays; it then counts as used.

        It gives way if it is broken, if it is not of `manifest`, or if it is doubted more than the new one, by `doubt`.
        """
        record = self.lookup(key, on_problem=log.info)  # the caller looked before, and was told
        if record is None or expected.trouble(record, manifest) is not None:
            return None
        if doubts.gives_way(doubts.of(self._layout, key), doubt):
            return None
        read.touch(self._layout, key)
        return record
