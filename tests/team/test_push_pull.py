"""What travels, in which order, and what is left when it breaks off."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.support import KEY, OTHER, leftovers, read_tree
from tests.team.support import Machine, Place, machine, make, writer
from trtstore.errors import Corrupt, Invalid, Unreachable
from trtstore.format.digest import hash_bytes
from trtstore.remote.remote import Pushed, Remote, blob_name, record_name
from trtstore.team import signing
from trtstore.transfer.protocols import Readable, Reader
from trtstore.upkeep.maintenance import Maintenance

BIG = {"engine.bin": os.urandom(1 << 20) * 20, "small.json": b"{}", "empty": b""}


@pytest.fixture
def ci(place: Place, tmp_path: Path) -> Machine:
    return machine(tmp_path / "ci", place, writer("ci").public)


def push(made: Machine, key: str = KEY):
    return made.team().push(made.store, key, writer_of(made))


def writer_of(made: Machine):
    found = signing.signer("ci")
    assert found.public in made.trusted
    return found


def test_it_comes_back_byte_for_byte_with_large_and_empty_files(ci, place, tmp_path) -> None:
    make(ci.store, tmp_path / "in", files=BIG)
    told: list[tuple[int, int]] = []
    done = ci.team().push(ci.store, KEY, writer_of(ci), lambda *said: told.append(said))
    assert done.new
    assert done.bytes == sum(map(len, BIG.values()))
    assert told[-1] == (done.bytes, done.bytes)
    dev = machine(tmp_path / "dev", place, *ci.trusted)
    record = dev.pull()
    assert read_tree(dev.store.materialise(record).path) == {**BIG}
    assert dev.store.envelope(KEY) == place.get(record_name(KEY))


def test_only_what_is_missing_travels(ci, place, tmp_path) -> None:
    make(ci.store, tmp_path / "in", files=BIG)
    push(ci)
    make(ci.store, tmp_path / "in2", OTHER, {**BIG, "small.json": b"[]"})
    assert push(ci, OTHER).bytes == 2
    assert push(ci, OTHER) == Pushed(new=False, bytes=0)

    dev = machine(tmp_path / "dev", place, *ci.trusted)
    make(dev.store, tmp_path / "mine", "ab" * 32, {"same.bin": BIG["engine.bin"]})
    place.remove(blob_name(hash_bytes(BIG["engine.bin"])))  # so it cannot come from there
    assert dev.pull() is not None


def test_the_first_record_of_a_key_stays(ci, place, tmp_path) -> None:
    make(ci.store, tmp_path / "in")
    push(ci)
    first = place.get(record_name(KEY))
    late = machine(tmp_path / "late", place, *ci.trusted)
    make(late.store, tmp_path / "in2", files={"engine.bin": b"another build"})
    assert not late.team().push(late.store, KEY, writer_of(ci)).new
    assert place.get(record_name(KEY)) == first


def test_without_its_record_an_artifact_is_absent(ci, place, tmp_path) -> None:
    """What a push leaves that was killed before the end."""
    record = make(ci.store, tmp_path / "in")
    ci.team().remote.push_blobs(ci.store, record)
    dev = machine(tmp_path / "dev", place, *ci.trusted)
    assert dev.pull() is None
    assert dev.told == []
    assert push(ci).bytes == 0  # and the next push goes on from there


def test_bytes_that_changed_here_are_not_pushed(ci, place, tmp_path) -> None:
    make(ci.store, tmp_path / "in", files=BIG)
    digits = hash_bytes(BIG["engine.bin"])
    path = ci.store.blob_path(f"sha256:{digits}")
    times = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"X")
    path.chmod(0o444)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(Corrupt, match="not what its name says"):
        push(ci)
    assert not place.has(record_name(KEY))
    assert not place.has(blob_name(digits))


def test_a_record_whose_blobs_were_lost_there_is_healed_by_the_next_push(ci, place, tmp_path) -> None:
    make(ci.store, tmp_path / "in", files=BIG)
    push(ci)
    place.remove(blob_name(hash_bytes(BIG["engine.bin"])))
    dev = machine(tmp_path / "dev", place, *ci.trusted)
    assert dev.pull() is None
    other = machine(tmp_path / "other", place, *ci.trusted)
    make(other.store, tmp_path / "in2", files={"engine.bin": b"another build"})
    assert other.team().push(other.store, KEY, writer_of(ci)).new
    assert dev.pull() is not None


def test_a_blob_of_another_size_there_is_replaced(ci, place, tmp_path) -> None:
    make(ci.store, tmp_path / "in", files=BIG)
    for name in ("engine.bin", "small.json"):
        place.put(blob_name(hash_bytes(BIG[name])), b"half of it")
    push(ci)
    assert machine(tmp_path / "dev", place, *ci.trusted).pull() is not None


class Breaking:
    """A reader whose network breaks before the `left`-th blob; counts the bytes that came."""

    def __init__(self, reader: Reader, left: int) -> None:
        self._reader, self._left = reader, left
        self.came = 0

    def __getattr__(self, name: str):
        return getattr(self._reader, name)

    @contextmanager
    def open_blob(self, digest: str, size: int) -> Iterator[Readable]:
        self._left -= 1
        if self._left < 0:
            raise Unreachable("the network broke")
        self.came += size
        with self._reader.open_blob(digest, size) as file:
            yield file


def test_what_came_whole_before_the_network_broke_does_not_travel_again(ci, place, tmp_path) -> None:
    files = {name: name.encode() * 1000 for name in ("a", "b", "c")}
    make(ci.store, tmp_path / "in", files=files)
    push(ci)
    dev = machine(tmp_path / "dev", place, *ci.trusted)
    team = dev.team()
    with pytest.raises(Unreachable):
        dev.store.receive(KEY, team.envelope(KEY), Breaking(team, 2))
    assert dev.store.lookup(KEY) is None
    assert leftovers(dev.store.root) == []
    rest = Breaking(team, 9)
    assert dev.store.receive(KEY, team.envelope(KEY), rest).new
    assert rest.came == 1000


def test_what_is_not_here_cannot_be_pushed(ci) -> None:
    with pytest.raises((Corrupt, Invalid)):
        push(ci)


def test_what_waits_to_be_pushed_is_not_collected(ci, tmp_path) -> None:
    make(ci.store, tmp_path / "in")
    make(ci.store, tmp_path / "in2", OTHER, {"other": b"other"})
    ci.store.pending.add(KEY)
    Maintenance(ci.store).collect(0, grace=0)
    assert list(ci.store.keys()) == [KEY]
    ci.store.pending.remove(KEY)
    Maintenance(ci.store).collect(0, grace=0)
    assert list(ci.store.keys()) == []


def test_a_shared_folder_is_a_store_that_others_may_read_as_one(shared_folder: Place, tmp_path: Path) -> None:
    ci = machine(tmp_path / "ci", shared_folder, writer("ci").public)
    make(ci.store, tmp_path / "in")
    push(ci)
    assert shared_folder.folder is not None
    alone = machine(shared_folder.folder, shared_folder)
    found = alone.store.lookup(KEY, on_problem=alone.told.append)
    assert found == ci.store.lookup(KEY)
    assert alone.told == []
    shutil.rmtree(shared_folder.folder / "v1" / "records")
    assert list(Remote(ci.team().remote.objects).keys()) == []
