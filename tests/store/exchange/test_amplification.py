"""What is small to send stays small on the disk: manifests are bounded by the bytes and folders that they make."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.support import KEY, PREDICATE_TYPE, publish, write_files
from trtstore import Corrupt, NoSpace, Store
from trtstore.disk import free_space
from trtstore.errors import Malformed
from trtstore.format import manifest
from trtstore.format import record as records
from trtstore.format.digest import digest_of, hash_bytes
from trtstore.format.manifest import EXECUTABLE, PLAIN, Entry
from trtstore.format.record import Record
from trtstore.transfer.protocols import Readable

GB = 10**9
BLOB = "ab" * 32


def refused(entries: list[Entry], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        manifest.make_manifest(entries)
    ordered = tuple(sorted(entries, key=lambda entry: entry.path))
    with pytest.raises(Malformed, match=words):
        manifest.parse(manifest.Manifest(ordered).encode())


def test_one_blob_as_very_many_executable_files() -> None:
    refused([Entry(f"{at:06}", EXECUTABLE, GB, BLOB) for at in range(1000)], "the same executable files")
    manifest.make_manifest([Entry(f"{at}", EXECUTABLE, 100_000, BLOB) for at in range(1000)])


def test_one_blob_as_very_many_plain_files() -> None:
    """Where a file system has no links, or not so many, each is a copy."""
    refused([Entry(f"{at:06}", PLAIN, GB, BLOB) for at in range(1000)], "without those that are the same")
    manifest.make_manifest([Entry(f"rank{at}.engine", PLAIN, 10 * GB, BLOB) for at in range(16)])


def test_very_many_folders() -> None:
    deep = "/a" * 60
    refused([Entry(f"{at:06}{deep}/f", PLAIN, 1, BLOB) for at in range(2000)], "at most 100000 folders")
    refused([Entry("a/" * 64 + "f", PLAIN, 1, BLOB)], "more than 64 names")
    manifest.make_manifest([Entry(f"{at // 10:06}/{at % 10}/f", PLAIN, 1, BLOB) for at in range(10_000)])


def test_the_deepest_path_is_materialised(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    record = publish(store, write_files(tmp_path / "in", {"a/" * 63 + "f": b"x"}))
    assert (store.materialise(record).path / ("a/" * 63) / "f").read_bytes() == b"x"


class Promising:
    """A reader whose one artifact has a blob of very many bytes, and which counts what is asked of it."""

    def __init__(self, size: int) -> None:
        self.manifest_ = manifest.make_manifest([Entry("engine", PLAIN, size, BLOB)])
        self.record = Record(KEY, self.manifest_.digest, size, 1, {}, {}, PREDICATE_TYPE, {})
        self.read = 0

    def __str__(self) -> str:
        return "promises"

    def lookup(self, _key: str, **_more: object) -> Record:
        return self.record

    def keys(self) -> Iterator[str]:
        yield KEY

    def envelope(self, _key: str) -> bytes:
        return records.encode(self.record)

    def manifest(self, _record: Record) -> manifest.Manifest:
        return self.manifest_

    @contextmanager
    def open_blob(self, _digest: str, _size: int) -> Iterator[Readable]:
        promising = self

        class Endless:
            def read(self, size: int, /) -> bytes:
                promising.read += size
                return bytes(size)

        yield Endless()


def test_what_does_not_fit_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    source = Promising(2**52)
    store = Store.open(tmp_path / "store")
    with pytest.raises(NoSpace, match=r"are to be written to .*, and .* are free there"):
        store.receive(KEY, source.envelope(KEY), source)
    assert source.read == 0
    assert store.lookup(KEY) is None
    assert list((store.root / "v1" / "tmp").iterdir()) == []


def test_a_copy_of_an_executable_file_needs_its_room(tmp_path: Path) -> None:
    """On a file system that is full but for a few bytes: told before the copy, and no half tree is left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk]).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        store = Store.open(disk / "store")
        write_files(tmp_path / "in", {"tool": os.urandom(2_500_000)})
        (tmp_path / "in" / "tool").chmod(0o755)
        record = publish(store, tmp_path / "in")
        with pytest.raises(NoSpace, match="are free there"):
            store.materialise(record)
        assert not (store.root / "v1" / "trees" / record.manifest.partition(":")[2]).exists()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # a store keeps its index open


def test_a_disk_that_does_not_say_takes_what_it_takes(tmp_path: Path) -> None:
    free_space.check(tmp_path, 1)
    free_space.check(Path("/proc"), 2**60)  # of no size
    with pytest.raises(NoSpace):
        free_space.check(tmp_path, 2**62)


def test_a_manifest_that_is_refused_makes_the_record_a_miss(tmp_path: Path) -> None:
    """Whoever has such an artifact from an earlier release builds it again; nothing is materialised."""
    store = Store.open(tmp_path / "store")
    data = b"x" * 1000
    listed = manifest.Manifest(
        tuple(Entry(f"{at:06}{'/a' * 60}/f", PLAIN, 1000, hash_bytes(data)) for at in range(2000))
    )
    record = Record(KEY, listed.digest, listed.size, 2000, {}, {}, PREDICATE_TYPE, {})
    source = Promising(1)
    source.manifest_, source.record = listed, record
    with pytest.raises(Corrupt, match="folders"):
        store.receive(KEY, records.encode(record), source)
    assert digest_of(hash_bytes(listed.encode())) == record.manifest
