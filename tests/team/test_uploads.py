"""A push that says done left the very bytes that were sent, and what is damaged in a team store is put right.

The servers are real: one compares checksums (SeaweedFS), others do not (nanio, the stand-in for Google's), and on the
way to them bits change.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.support import KEY, OTHER, read_tree
from tests.support.gcs import Gcs
from tests.support.seaweed import Seaweed
from tests.team.support import Machine, Place, as_ci, believer, machine, make, user, writer
from tests.team.test_dishonest import nanio as nanio  # a fixture
from tests.team.test_faults import unsteady
from trtstore.errors import NotWritable, StoreFailure
from trtstore.format.digest import hash_bytes
from trtstore.remote.connect import connect
from trtstore.remote.remote import blob_name, record_name
from trtstore.transfer.protocols import Readable

FILES = {
    "small.bin": random.Random(1).randbytes(2000),
    "medium.bin": random.Random(2).randbytes(300_000),
    "large.bin": random.Random(3).randbytes(9 << 20),
}
LARGEST = hash_bytes(FILES["large.bin"])
SMALLEST = hash_bytes(FILES["small.bin"])


@pytest.fixture
def gs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Place, str, Callable[[str], None]]]:
    with Gcs(tmp_path / "gcs", "team") as server:
        for name, value in server.credentials("writer").items():
            monkeypatch.setenv(name, value)
        address = os.environ["GOOGLE_BASE_URL"]
        yield (
            Place("gs://team/x", folder=server.bucket / "x"),
            address,
            lambda url: monkeypatch.setenv("GOOGLE_BASE_URL", url),
        )


@pytest.fixture
def s3(bucket: Place, seaweed: Seaweed, monkeypatch) -> tuple[Place, str, Callable[[str], None]]:
    return bucket, seaweed.url, lambda url: monkeypatch.setenv("AWS_ENDPOINT_URL", url)


@pytest.fixture(params=["s3", "gs"])
def cloud(request: pytest.FixtureRequest) -> tuple[Place, str, Callable[[str], None]]:
    """A place that compares, and one that does not: (place, server, how to go through another address)."""
    found: tuple[Place, str, Callable[[str], None]] = request.getfixturevalue(request.param)
    return found


def test_a_bit_that_flips_on_the_way_up_is_never_stored(cloud, tmp_path: Path) -> None:
    place, server, through = cloud
    signer = writer()
    ci = machine(tmp_path / "ci", place, signer.public)
    make(ci.store, tmp_path / "in", files=FILES)
    done = 0
    for seed in range(3):
        with unsteady(server, "--kinds", "flip", "--chance", "0.25", "--seed", str(seed)) as endpoint:
            through(endpoint)
            try:
                ci.team().push(ci.store, KEY, signer)
            except StoreFailure:
                continue
            finally:
                through(server)
        done += 1
        for data in FILES.values():
            assert place.get(blob_name(hash_bytes(data))) == data
        dev = machine(tmp_path / f"dev{seed}", place, signer.public)
        record = dev.pull()
        assert record is not None, dev.told
        assert read_tree(dev.store.materialise(record).path) == FILES
        place.remove(record_name(KEY))
        place.remove(blob_name(LARGEST))
        place.remove(blob_name(SMALLEST))
    assert done


def test_where_all_that_is_sent_changes_a_push_fails(cloud, tmp_path: Path) -> None:
    place, server, through = cloud
    signer = writer()
    ci = machine(tmp_path / "ci", place, signer.public)
    make(ci.store, tmp_path / "in", files={"small.bin": FILES["small.bin"]})
    with unsteady(server, "--kinds", "flip", "--chance", "1") as endpoint:
        through(endpoint)
        with pytest.raises(StoreFailure):
            ci.team().push(ci.store, KEY, signer)
    through(server)
    assert machine(tmp_path / "dev", place, signer.public).pull() is None


@pytest.mark.parametrize("size", [10, 5 << 20])
def test_a_server_that_compares_is_told_from_one_that_does_not(
    bucket,
    nanio,
    size: int,
    seaweed,
    monkeypatch,
) -> None:
    assert not connect(nanio.url).compares()
    for name, value in seaweed.credentials("writer").items():
        monkeypatch.setenv(name, value)
    objects = connect(bucket.url)
    assert objects.compares()
    data = os.urandom(size)
    objects.upload("v1/x", iter((data,)), size)
    assert bucket.get("v1/x") == data


def damage(place: Place, digits: str) -> None:
    """One bit, by somebody who goes past the client: the size stays."""
    data = bytearray(place.get(blob_name(digits)))
    data[len(data) // 2] ^= 1
    place.put(blob_name(digits), bytes(data))


def pushed(place: Place, folder: Path, key: str = KEY) -> Machine:
    """A machine that has built it, and has put it there."""
    signer = writer()
    ci = machine(folder / "ci", place, signer.public)
    make(ci.store, folder / "in", key, FILES)
    assert ci.team().push(ci.store, key, signer).new
    return ci


@pytest.mark.parametrize("which", [LARGEST, SMALLEST])
def test_a_damaged_blob_of_the_right_size_is_replaced_by_the_next_who_builds_it(place, tmp_path, which) -> None:
    first = pushed(place, tmp_path)
    damage(place, which)
    dev = machine(tmp_path / "dev", place, *first.trusted)
    assert dev.pull() is None
    signer = writer("again")
    again = machine(tmp_path / "again", place, *first.trusted, signer.public)
    assert again.pull() is None
    make(again.store, tmp_path / "in2", files=FILES)
    done = again.team().push(again.store, KEY, signer)
    assert done.bytes == len(place.get(blob_name(which)))
    assert any("lost or damaged" in words for words in again.told)
    assert dev.pull() is not None


def test_who_pushed_it_finds_damage_after_a_reader_here_met_it(place, tmp_path) -> None:
    """What was sent is remembered as sent; a reader on the same machine that gets other bytes ends that."""
    ci = pushed(place, tmp_path)
    stat = connect(place.url).stat(blob_name(LARGEST))
    damage(place, LARGEST)
    ci.team().remote.seen.keep(LARGEST, connect(place.url).stat(blob_name(LARGEST)))  # as if the stamp were the same
    assert stat != connect(place.url).stat(blob_name(LARGEST))
    from_there = Machine(ci.store, place.url, ci.trusted)
    ci.store._layout.record(KEY).unlink()
    ci.store.blob_path(f"sha256:{LARGEST}").unlink()
    assert from_there.pull() is None
    make(ci.store, tmp_path / "in2", files=FILES)
    signer = writer("second")
    again = Machine(ci.store, place.url, (*ci.trusted, signer.public))
    assert again.team().push(again.store, KEY, signer).bytes == len(FILES["large.bin"])
    assert place.get(blob_name(LARGEST)) == FILES["large.bin"]


def test_what_is_there_is_read_once_and_then_remembered(place, tmp_path) -> None:
    first = pushed(place, tmp_path)
    other = machine(tmp_path / "other", place, *first.trusted)
    make(other.store, tmp_path / "in2", files=FILES)
    read: list[str] = []
    signer = writer("other")

    def push() -> None:
        team = Machine(other.store, place.url, (*other.trusted, signer.public)).team()
        opened = team.remote.objects.open

        @contextmanager
        def watched(name: str, size: int) -> Iterator[Readable]:
            read.append(name)
            with opened(name, size) as file:
                yield file

        team.remote.objects.open = watched  # type: ignore[method-assign]
        assert not team.push(other.store, KEY, signer).new

    push()
    assert {blob_name(hash_bytes(data)) for data in FILES.values()} <= set(read)
    read.clear()
    push()
    assert read == []
    place.put(blob_name(LARGEST), FILES["large.bin"])  # written anew, so it is another object
    push()
    assert read == [blob_name(LARGEST)]


def test_verify_repairs_what_our_own_store_has(shared_folder: Place, tmp_path: Path) -> None:
    signer = writer("ci")
    ci = believer(tmp_path / "ci", shared_folder, signer, **as_ci())
    record = make(ci.store, tmp_path / "in", files=FILES)
    make(ci.store, tmp_path / "in2", OTHER, {**FILES, "own.bin": b"own"})
    assert ci.trtstore("push", "--all").code == 0
    damage(shared_folder, LARGEST)
    shared_folder.remove(blob_name(SMALLEST))
    damage(shared_folder, record.manifest.removeprefix("sha256:"))
    stranger = believer(tmp_path / "stranger", shared_folder, signer)
    cannot = stranger.trtstore("verify", "--team", "--repair")
    assert cannot.code == 4
    assert "the local store does not have" in cannot.out
    done = ci.trtstore("verify", "--team", "--repair")
    assert done.code == 0, done.out + done.err
    assert done.out.count("put right from the local store") == 2  # blobs that both share, once; and the list of one
    assert "nothing wrong" in ci.trtstore("verify", "--team").out
    assert stranger.trtstore("pull", KEY).code == 0


def test_a_reader_repairs_nothing_and_says_so(bucket: Place, seaweed: Seaweed, tmp_path: Path) -> None:
    signer = writer("ci")
    ci = believer(tmp_path / "ci", bucket, signer, **as_ci())
    make(ci.store, tmp_path / "in", files=FILES)
    assert ci.trtstore("push", KEY).code == 0
    dev = user(tmp_path / "dev", bucket, **seaweed.credentials("reader"))
    assert dev.trtstore("trust", "add", signer.public).code == 0
    assert dev.trtstore("pull", KEY).code == 0
    damage(bucket, LARGEST)
    done = dev.trtstore("verify", "--team", "--repair")
    assert done.code == 4
    assert "nothing can be put right" in done.out
    assert "AccessDenied" in done.out
    assert ci.trtstore("verify", "--team", "--repair").code == 0
    assert bucket.get(blob_name(LARGEST)) == FILES["large.bin"]


def test_an_artifact_that_does_not_fit_is_refused_before_it_travels(shared_folder, tmp_path, monkeypatch) -> None:
    ci = pushed(shared_folder, tmp_path)
    dev = machine(tmp_path / "dev", shared_folder, *ci.trusted)
    real = os.statvfs

    def full(path: object) -> os.statvfs_result:
        found = list(real(path))  # type: ignore[call-overload]
        found[4] = 100  # f_bavail: blocks
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", full)
    with pytest.raises(StoreFailure, match="are free"):
        dev.pull()
    monkeypatch.undo()
    assert dev.pull() is not None


def test_a_place_that_keeps_changing_bytes_is_told(gs) -> None:
    place, server, through = gs
    with unsteady(server, "--kinds", "flip", "--chance", "1") as endpoint:
        through(endpoint)
        with pytest.raises(NotWritable, match="other bytes"):
            connect(place.url).replace("v1/policy", b"x" * 100)
