"""Other stores behind one's own: what they have is copied and verified, and what is wrong with them fails nothing."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.disks import mounted
from tests.store.support import FILES, KEY, OTHER, leftovers, publish, read_tree, write_files
from trtstore import Corrupt, NoSpace, Record, Store, StoreFailure
from trtstore.disk.layout import STAMP
from trtstore.errors import Unreachable
from trtstore.exchange.layered import Layered
from trtstore.format.manifest import Entry, Manifest
from trtstore.transfer.protocols import Readable, Reader
from trtstore.transfer.readonly import ReadOnly

ENGINE = FILES["engine.bin"]


class Sending(ReadOnly):
    """A store that is asked over a wire: notes what it is asked for, and sends what `changed` makes of it."""

    asked: list[str]

    def changed(self, data: bytes) -> bytes:
        return data

    @contextmanager
    def open_blob(self, digest: str, size: int) -> Iterator[Readable]:
        self.asked = [*getattr(self, "asked", []), digest]
        with super().open_blob(digest, size) as file:
            yield io.BytesIO(self.changed(file.read()))


class OtherBytes(Sending):
    def changed(self, data: bytes) -> bytes:
        return data[::-1] if data == ENGINE else data


class Shorter(Sending):
    def changed(self, data: bytes) -> bytes:
        return data[:-1]


class Longer(Sending):
    def changed(self, data: bytes) -> bytes:
        return data + b"x"


class OtherManifest(Sending):
    def manifest(self, record: Record) -> Manifest:
        return Manifest((*super().manifest(record).entries, Entry("../../up", "0644", 1, "0" * 64)))


class OtherRecord(Sending):
    def envelope(self, key: str) -> bytes:
        return super().envelope(key).replace(b'"payload":"', b'"payload":"AAAA')


class _Hanging:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int, /) -> bytes:  # noqa: ARG002  # the stream's signature
        data, self._data = self._data, b""
        if not data:
            raise ConnectionResetError("the other side has gone")
        return data


class BreakingOff(Sending):
    @contextmanager
    def open_blob(self, digest: str, size: int) -> Iterator[Readable]:
        with super().open_blob(digest, size) as file:
            yield _Hanging(file.read(10))


class Down(ReadOnly):
    def lookup(self, key, *, on_problem=None):  # noqa: ARG002  # the protocol's signature
        raise ConnectionRefusedError("nobody listens")


class Denying(ReadOnly):
    def envelope(self, key):  # noqa: ARG002  # the protocol's signature
        raise StoreFailure("come back with a ticket")


class Untouchable(ReadOnly):
    def lookup(self, key, *, on_problem=None):  # noqa: ARG002  # the protocol's signature
        raise AssertionError("nobody may ask here")


@pytest.fixture
def theirs(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "theirs")
    (tmp_path / "log").write_text("words")
    publish(store, write_files(tmp_path / "out"), attachments={"log": tmp_path / "log"})
    return store


@pytest.fixture
def mine(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "mine")


def stored(store: Store) -> dict[str, bytes]:
    """The blobs and records that a store has."""
    return {name: data for name, data in read_tree(store.root).items() if name.startswith(("v1/blobs", "v1/rec"))}


def times(root: Path) -> dict[str, tuple[int, int, int]]:
    found = [root, *root.rglob("*")]
    return {str(p): (p.lstat().st_ino, p.lstat().st_mtime_ns, p.lstat().st_ctime_ns) for p in found}


def test_what_another_store_has_is_copied_whole_and_said(theirs: Store, mine: Store) -> None:
    other = ReadOnly.open(theirs.root)
    said: list[tuple[str, Reader]] = []
    progress: list[tuple[int, int]] = []
    layered = Layered(
        mine,
        [ReadOnly.open(theirs.root / "absent"), other],
        on_fetched=lambda record, reader: said.append((record.key, reader)),
        on_progress=lambda done, whole: progress.append((done, whole)),
    )
    record = layered.lookup(KEY)
    assert record is not None
    assert record == mine.lookup(KEY) == theirs.lookup(KEY)
    assert stored(mine) == stored(theirs)
    assert read_tree(mine.materialise(record).path) == FILES
    assert said == [(KEY, other)]
    whole = sum(map(len, FILES.values())) + len("words")
    assert progress[-1] == (whole, whole)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert leftovers(mine.root) == []
    assert layered.lookup(KEY) == record
    assert len(said) == 1
    assert layered.lookup(OTHER) is None


def test_what_the_own_store_has_is_asked_of_nobody_else(theirs: Store) -> None:
    assert Layered(theirs, [Untouchable.open(theirs.root)]).lookup(KEY) == theirs.lookup(KEY)


def test_a_signature_travels_with_its_record(theirs: Store, mine: Store) -> None:
    place = theirs.root / "v1" / "records" / KEY[:2] / KEY
    envelope = json.loads(place.read_bytes()) | {"signatures": [{"keyid": "me", "sig": "c2ln"}]}
    place.unlink()
    place.write_text(json.dumps(envelope, indent=1))
    assert Layered(mine, [ReadOnly.open(theirs.root)]).lookup(KEY) is not None
    assert mine.envelope(KEY) == place.read_bytes()


def test_only_what_is_missing_travels(theirs: Store, mine: Store, tmp_path: Path) -> None:
    publish(mine, write_files(tmp_path / "near", {"same": ENGINE}), OTHER)
    other = Sending.open(theirs.root)
    record = Layered(mine, [other]).lookup(KEY)
    assert record is not None
    engine = next(e for e in theirs.manifest(record).entries if e.path == "engine.bin")
    assert len(other.asked) == 2  # config.json and the log
    assert f"sha256:{engine.sha256}" not in other.asked
    assert stored(mine).items() >= stored(theirs).items()


def test_a_blob_that_goes_while_others_come_is_put_back(theirs: Store, mine: Store, tmp_path: Path) -> None:
    publish(mine, write_files(tmp_path / "near", {"same": ENGINE}), OTHER)
    near = next(p for p in mine.root.rglob("*") if p.is_file() and p.read_bytes() == ENGINE)

    class Collecting(Sending):
        def changed(self, data: bytes) -> bytes:
            near.unlink(missing_ok=True)
            return data

    record = Layered(mine, [Collecting.open(theirs.root)]).lookup(KEY)
    assert record is not None
    assert read_tree(mine.materialise(record).path) == FILES


def test_a_blob_is_never_another_name_of_their_file(theirs: Store, mine: Store) -> None:
    assert Layered(mine, [ReadOnly.open(theirs.root)]).lookup(KEY) is not None
    inodes = [{p.stat().st_ino for p in (s.root / "v1" / "blobs").rglob("*") if p.is_file()} for s in (theirs, mine)]
    assert len(inodes[0]) == len(inodes[1]) == 4
    assert not inodes[0] & inodes[1]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (OtherBytes, "not what its name says"),
        (Shorter, "has 5999 bytes, not 6000"),
        (Longer, "more than 6000 bytes"),
        (OtherManifest, "not what its name says"),
        (OtherRecord, "not strict JSON"),
        (BreakingOff, "the other side has gone"),
        (Down, "nobody listens"),
        (Denying, "a ticket"),
    ],
)
def test_a_broken_other_is_said_and_passed_over_and_nothing_of_it_is_kept(
    theirs: Store, mine: Store, kind: type[ReadOnly], words: str
) -> None:
    bad = kind.open(theirs.root)
    problems: list[str] = []
    assert Layered(mine, [bad]).lookup(KEY, on_problem=problems.append) is None
    assert len(problems) == 1
    assert words in problems[0]
    assert str(theirs.root) in problems[0]
    assert stored(mine) == {}
    assert leftovers(mine.root) == []
    record = Layered(mine, [bad, ReadOnly.open(theirs.root)]).lookup(KEY, on_problem=problems.append)
    assert record is not None
    assert stored(mine) == stored(theirs)


def test_a_blob_that_rotted_there_is_a_miss_here(theirs: Store, mine: Store) -> None:
    engine = next(p for p in theirs.root.rglob("*") if p.is_file() and p.read_bytes() == ENGINE)
    engine.chmod(0o644)
    engine.write_bytes(ENGINE[::-1])
    os.utime(engine, (STAMP, STAMP))
    problems: list[str] = []
    assert Layered(mine, [ReadOnly.open(theirs.root)]).lookup(KEY, on_problem=problems.append) is None
    assert "not what its name says" in problems[0]
    assert stored(mine) == {}


def test_a_full_disk_of_ones_own_is_an_error_and_no_miss(theirs: Store, tmp_path: Path) -> None:
    publish(theirs, write_files(tmp_path / "big", {"big": os.urandom(3 << 20)}), OTHER)
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        local = Store.open(disk)
        with pytest.raises(NoSpace, match=str(disk)):
            Layered(local, [ReadOnly.open(theirs.root)]).lookup(OTHER)
        assert stored(local) == {}
        assert leftovers(disk) == []


def test_who_receives_is_told_what_was_wrong(theirs: Store, mine: Store) -> None:
    with pytest.raises(Corrupt, match="is of the key"):
        mine.receive(OTHER, theirs.envelope(KEY), theirs)
    with pytest.raises(Unreachable):
        mine.receive(KEY, theirs.envelope(KEY), BreakingOff.open(theirs.root))
    assert mine.receive(KEY, theirs.envelope(KEY), theirs).new
    assert not mine.receive(KEY, theirs.envelope(KEY), theirs).new


def test_the_first_record_of_a_key_stays(theirs: Store, mine: Store, tmp_path: Path) -> None:
    first = publish(mine, write_files(tmp_path / "else", {"a": b"a"}))
    received = mine.receive(KEY, theirs.envelope(KEY), theirs)
    assert (received.record, received.new) == (first, False)
    assert mine.lookup(KEY) == first


def test_reading_a_store_read_only_changes_nothing_in_it(theirs: Store, mine: Store) -> None:
    engine = next(p for p in theirs.root.rglob("*") if p.is_file() and p.read_bytes() == ENGINE)
    os.utime(engine, (1, 1))  # copied here without times: a writer would stamp it anew
    before = times(theirs.root)
    other = ReadOnly.open(theirs.root)
    assert list(other.keys()) == [KEY]
    assert Layered(mine, [other]).lookup(KEY) is not None
    assert times(theirs.root) == before
    assert read_tree(mine.materialise(mine.lookup(KEY)).path) == FILES
    writing = {"publish", "materialise", "add_root", "building", "scratch", "receive"}
    assert not writing & set(dir(other))
    absent = ReadOnly.open(mine.root / "absent")
    assert absent.lookup(KEY) is None
    assert list(absent.keys()) == []
    assert not (mine.root / "absent").exists()


def test_reading_follows_no_link_and_waits_for_no_pipe(theirs: Store) -> None:
    other = ReadOnly.open(theirs.root)
    record = other.lookup(KEY)
    assert record is not None
    engine = next(e for e in other.manifest(record).entries if e.path == "engine.bin")
    place = theirs.blob_path(f"sha256:{engine.sha256}")
    assert place is not None
    place.rename(theirs.root / "aside")
    for spoil in (lambda: place.symlink_to(theirs.root / "aside"), lambda: os.mkfifo(place), lambda: None):
        spoil()
        assert other.lookup(KEY, on_problem=lambda _: None) is None
        with pytest.raises(StoreFailure), other.open_blob(f"sha256:{engine.sha256}", engine.size):
            pass
        place.unlink(missing_ok=True)


def test_blobs_from_the_same_disk_share_its_blocks(tmp_path: Path) -> None:
    mkfs = shutil.which("mkfs.xfs") or shutil.which("mkfs.btrfs")
    if mkfs is None:
        pytest.skip("neither mkfs.xfs nor mkfs.btrfs is installed")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([mkfs, image], check=True, capture_output=True)
    with mounted(disk, "-o", "loop", str(image)):
        theirs = Store.open(disk / "theirs")
        publish(theirs, write_files(disk / "out", {"big": os.urandom(32 << 20)}))
        os.sync()
        before = os.statvfs(disk)
        Store.open(disk / "mine").receive(KEY, theirs.envelope(KEY), theirs)
        os.sync()
        after = os.statvfs(disk)
        assert (before.f_bfree - after.f_bfree) * after.f_frsize < 16 << 20
