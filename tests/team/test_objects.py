"""A bucket and a shared folder keep the same promises about the objects in them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.seaweed import Seaweed
from tests.team.support import Place
from trtstore.errors import Corrupt, Invalid, NotReadable, NotWritable, Unreachable
from trtstore.remote.bucket import PART
from trtstore.remote.clouds import reason
from trtstore.remote.connect import connect
from trtstore.remote.objects import Objects
from trtstore.remote.remote import Remote
from trtstore.remote.shared_folder import NO_FILE

LARGE = os.urandom(1 << 20) * 20  # more than one part


def chunks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 1 << 20):
        yield data[start : start + (1 << 20)]


def test_a_name_is_taken_once_and_its_bytes_stay(place: Place) -> None:
    objects = connect(place.url)
    assert objects.read("v1/a", 10) is None
    assert objects.size("v1/a") is None
    assert objects.create("v1/a", b"first")
    assert not objects.create("v1/a", b"second")
    assert objects.read("v1/a", 10) == b"first"
    assert objects.size("v1/a") == 5
    objects.replace("v1/a", b"third")
    assert objects.read("v1/a", 10) == b"third"
    objects.delete("v1/a")
    objects.delete("v1/a")
    assert objects.read("v1/a", 10) is None


def test_of_many_who_want_a_name_one_gets_it(place: Place) -> None:
    objects = connect(place.url)
    won: list[int] = []

    def want(number: int) -> None:
        if objects.create("v1/race", b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=want, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert objects.read("v1/race", 10) == b"%d" % won[0]


def test_a_listing_has_what_is_below_a_prefix_and_nothing_else(place: Place) -> None:
    objects = connect(place.url)
    began = time.time()
    for name in ("v1/leases/a/1", "v1/leases/a/2", "v1/leases/ab/1", "v1/other"):
        objects.create(name, name.encode())
    found = sorted(objects.listed("v1/leases/a/"), key=lambda one: one.name)
    assert [(one.name, one.size) for one in found] == [("v1/leases/a/1", 13), ("v1/leases/a/2", 13)]
    assert all(abs(one.modified - began) < 60 for one in found)
    assert list(objects.listed("v1/nothing/")) == []


def test_what_is_no_file_is_damage_among_blobs_and_nothing_elsewhere(shared_folder: Place) -> None:
    objects, folder = connect(shared_folder.url), shared_folder.folder
    assert folder is not None
    for room in ("v1/blobs", "v1/leases"):
        objects.create(f"{room}/file", b"x")
        os.mkfifo(folder / room / "fifo")
        (folder / room / "link").symlink_to("file")
    assert {(one.name, one.size) for one in objects.listed("v1/blobs/")} == {
        ("v1/blobs/file", 1),
        ("v1/blobs/fifo", NO_FILE),
        ("v1/blobs/link", NO_FILE),
    }
    assert [one.name for one in objects.listed("v1/leases/")] == ["v1/leases/file"]


def test_large_objects_travel_in_parts_and_come_back_the_same(place: Place) -> None:
    objects = connect(place.url)
    objects.upload("v1/large", chunks(LARGE), len(LARGE))
    assert objects.size("v1/large") == len(LARGE) > 2 * PART
    with objects.open("v1/large", len(LARGE)) as file:
        assert b"".join(iter(lambda: file.read(999_983), b"")) == LARGE
    with objects.open("v1/large", 5) as file:
        assert file.read(5) == LARGE[:5]


def test_an_upload_that_fails_on_its_way_leaves_nothing(place: Place) -> None:
    def broken() -> Iterator[bytes]:
        yield from chunks(LARGE)
        raise Corrupt("the source is not what it should be")

    with pytest.raises(Corrupt, match="not what it should be"):
        connect(place.url).upload("v1/large", broken(), len(LARGE))
    assert not place.has("v1/large")
    assert list(connect(place.url).listed("v1/")) == []


def test_what_is_longer_than_it_may_be_is_not_read(place: Place) -> None:
    place.put("v1/long", b"x" * 1000)
    with pytest.raises(Corrupt, match="999"):
        connect(place.url).read("v1/long", 999)


def test_an_empty_object_is_one(place: Place) -> None:
    objects = connect(place.url)
    assert objects.create("v1/empty", b"")
    assert objects.read("v1/empty", 0) == b""
    with objects.open("v1/empty", 0) as file:
        assert file.read(10) == b""


def test_what_is_not_there_is_told_when_it_is_opened(place: Place) -> None:
    with pytest.raises((Corrupt, Unreachable)), connect(place.url).open("v1/nothing", 5) as file:
        file.read(5)


def test_a_reader_reads_and_may_not_write(bucket: Place, seaweed: Seaweed, monkeypatch) -> None:
    connect(bucket.url).create("v1/a", b"a")
    for name, value in seaweed.credentials("reader").items():
        monkeypatch.setenv(name, value)
    reader = connect(bucket.url)
    assert reader.read("v1/a", 10) == b"a"
    for refused in (
        lambda: reader.create("v1/b", b""),
        lambda: reader.replace("v1/a", b""),
        lambda: reader.upload("v1/b", chunks(LARGE), len(LARGE)),
        lambda: reader.delete("v1/a"),
    ):
        with pytest.raises(NotWritable, match="AccessDenied") as caught:
            refused()
        assert "credentials" in (caught.value.hint or "")
    assert connect(bucket.url).read("v1/a", 10) == b"a"


def test_a_wrong_secret_is_refused_and_is_in_no_message(bucket: Place, monkeypatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")
    with pytest.raises(NotReadable) as caught:
        connect(bucket.url).read("v1/a", 10)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in reason(OSError("the token hunter2-hunter2 is bad"))
    assert reason(OSError("GET https://a/b?sig=abc - failed https://a/b?sig=abc")) == "failed https://a/b"


def test_a_server_that_is_not_there_is_told_soon(monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(Unreachable, match="does not answer"):
        connect("s3://team/x").read("v1/a", 10)


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_not_there_is_named() -> None:
    with pytest.raises(Unreachable, match="no bucket for s3://nowhere/x"):
        connect("s3://nowhere/x").read("v1/a", 10)


@pytest.mark.parametrize(
    "url",
    [
        "http://host/x",
        "https://user:secret@host/x",
        "https://host/x?token=secret",
        "team",
        "",
        "s3://",
        "s3:///prefix",
        "s3://user:secret@bucket/x",
        "s3://bucket/x?sig=1",
        "file:relative",
        "file://host/x",
        "file:///",
    ],
)
def test_what_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        connect(url)
    assert "secret" not in caught.value.message


def test_a_share_that_is_not_mounted_is_not_made_anew(tmp_path: Path) -> None:
    objects: Objects = connect((tmp_path / "unmounted").as_uri())
    for asked in (lambda: objects.read("v1/a", 1), lambda: objects.create("v1/a", b"")):
        with pytest.raises(Unreachable, match="is not there"):
            asked()
    assert not (tmp_path / "unmounted").exists()


@pytest.mark.parametrize("link", ["v1", "v1/records", "v1/records/5e"])
def test_a_link_in_a_shared_folder_leads_nowhere(shared_folder: Place, tmp_path: Path, link: str) -> None:
    """A folder below v1 that is a link would have files written, and read, outside. (v1 itself may be one.)"""
    outside = tmp_path / "outside"
    outside.mkdir()
    assert shared_folder.folder is not None
    place = shared_folder.folder / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside)
    objects = connect(shared_folder.url)
    if link == "v1":
        assert objects.create("v1/records/5e/5e", b"")
        return
    for asked in (
        lambda: objects.create("v1/records/5e/5e", b""),
        lambda: objects.delete("v1/records/5e/5e"),
    ):
        with pytest.raises(Invalid, match="symbolic link"):
            asked()
    with pytest.raises(Corrupt, match="symbolic link"):  # what others put there, and this one cannot mend
        objects.read("v1/records/5e/5e", 10)
    assert list(outside.iterdir()) == []


def test_an_honest_place_passes_the_probe_again_and_again(place: Place) -> None:
    """For one that does not see test_dishonest."""
    for _ in range(3):
        Remote(connect(place.url)).check_writable()
