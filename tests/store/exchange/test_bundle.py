"""Artifacts as one file: the same bytes each time, whole groups or nothing, and no hostile file gets anywhere."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.disks import mounted
from tests.store.support import FILES, KEY, OTHER, leftovers, publish, python, read_tree, write_files
from trtstore import Corrupt, Invalid, NoSpace, Store, StoreFailure
from trtstore.disk.layout import STAMP
from trtstore.errors import Malformed
from trtstore.exchange import bundle
from trtstore.exchange import tar as tarblocks
from trtstore.format import manifest, names
from trtstore.format import record as records
from trtstore.transfer.readonly import ReadOnly

OTHER_FILES = {"engine.bin": FILES["engine.bin"], "tokens": b"a b c"}
Members = list[tuple[str, bytes]]


def fill(root: Path, work: Path) -> Store:
    """A store of two artifacts that share a blob; the first in the order of keys is OTHER."""
    store = Store.open(root, durability="fast")
    (work / "log").write_text("words")
    publish(store, write_files(work / "out"), attachments={"log": work / "log"})
    publish(store, write_files(work / "out2", OTHER_FILES), OTHER)
    return store


def packed(store: Store, *keys: str) -> bytes:
    file = io.BytesIO()
    bundle.export_to(store, keys or (KEY, OTHER), file)
    return file.getvalue()


@pytest.fixture
def theirs(tmp_path: Path) -> Store:
    return fill(tmp_path / "theirs", tmp_path)


@pytest.fixture
def mine(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "mine")


def unpack(store: Store, data: bytes) -> list[bool]:
    return [received.new for received in bundle.import_from(store, io.BytesIO(data))]


def stored(store: Store) -> dict[str, bytes]:
    found = read_tree(store.root / "v1")
    return {name: data for name, data in found.items() if name.startswith(("blobs", "records"))}


def check_sound(store: Store) -> None:
    """Every blob is what its name says, and every record leads to a whole artifact."""
    for name, data in stored(store).items():
        if name.startswith("blobs"):
            assert hashlib.sha256(data).hexdigest() == Path(name).name
    for key in store.keys():  # noqa: SIM118  # a store is no mapping
        record = store.lookup(key)
        assert record is not None
        files = read_tree(store.materialise(record).path)
        listed = {entry.path: entry.sha256 for entry in store.manifest(record).entries}
        assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == listed


def test_what_goes_into_a_bundle_comes_out_of_it(theirs: Store, mine: Store) -> None:
    progress: list[tuple[int, int]] = []
    file = io.BytesIO()
    assert bundle.export_to(theirs, [KEY, OTHER, KEY], file, lambda *at: progress.append(at)) == 2
    assert progress[-1][0] == progress[-1][1]
    counts: list[int] = []
    received = list(bundle.import_from(mine, io.BytesIO(file.getvalue()), counts.append))
    assert sum(counts) == len(file.getvalue())
    assert [(its.record.key, its.new) for its in received] == [(OTHER, True), (KEY, True)]
    assert stored(mine) == stored(theirs)
    assert leftovers(mine.root) == []
    check_sound(mine)
    assert unpack(mine, file.getvalue()) == [False, False]
    assert stored(mine) == stored(theirs)


def test_the_same_artifacts_give_the_same_bytes(theirs: Store, mine: Store) -> None:
    data = packed(theirs, KEY, OTHER)
    assert packed(theirs, OTHER, KEY) == data
    assert packed(ReadOnly.open(theirs.root), OTHER, KEY) == data
    unpack(mine, data)
    assert packed(mine) == data


def test_the_format_is_pinned() -> None:
    small, large = (
        tarblocks.header("records/5e/" + KEY, 812),
        tarblocks.header("blobs/sha256/5e/" + KEY, 9 << 30),
    )
    assert hashlib.sha256(small).hexdigest() == "3ba3cfcf5a32fa5613987a502d6bebe512b17ce286f03b0ba7b108e5f2239085"
    assert hashlib.sha256(large).hexdigest() == "d63d330a6d3f9952bf8c75dd8eb6a5199c990bd052d3ae93ba92d2e2a1373659"


@pytest.mark.parametrize("size", [0, 1, 511, 512, 8**11 - 1, 8**11, 9 << 30, 2**53 - 1])
def test_every_tar_understands_the_headers(size: int) -> None:
    data = tarblocks.header(names.blob_name(KEY), size)
    with tarfile.open(fileobj=io.BytesIO(data + tarblocks.END), mode="r|") as tar:
        member = tar.next()
    assert member is not None
    assert (member.name, member.size, member.mtime) == (names.blob_name(KEY), size, STAMP)
    assert (member.mode, member.uid, member.gid, member.isreg()) == (0o444, 0, 0, True)
    assert tarblocks.parse(data) == (names.blob_name(KEY), size)


def test_a_bundle_unpacked_with_tar_is_a_store(theirs: Store, tmp_path: Path) -> None:
    (tmp_path / "untarred" / "v1").mkdir(parents=True)
    where = tmp_path / "untarred" / "v1"
    subprocess.run(["tar", "-x", "-C", where], input=packed(theirs), check=True)
    store = Store.open(tmp_path / "untarred")
    assert stored(store) == stored(theirs)
    problems: list[str] = []
    assert {store.lookup(key, on_problem=problems.append) is None for key in (KEY, OTHER)} == {False}
    assert problems == []


def test_a_manifest_that_two_records_share_is_sent_once(theirs: Store, mine: Store, tmp_path: Path) -> None:
    record = publish(theirs, tmp_path / "out", "aa" * 32)
    data = packed(theirs, KEY, "aa" * 32)
    assert data.count(record.manifest[7:].encode()) == 1  # the name: in a record, base64 hides it
    assert unpack(mine, data) == [True, True]
    check_sound(mine)


def test_a_file_has_its_name_only_once_it_is_whole(theirs: Store, tmp_path: Path) -> None:
    target = tmp_path / "site" / "b.tar"
    target.parent.mkdir()
    target.write_text("an older one")
    blob = next(p for p in theirs.root.rglob("*") if p.is_file() and p.read_bytes() == FILES["engine.bin"])
    blob.chmod(0o644)
    blob.write_bytes(FILES["engine.bin"][::-1])
    os.utime(blob, (STAMP, STAMP))
    with pytest.raises(Corrupt, match="not what its name says"):
        bundle.export_file(theirs, [KEY], target)
    assert [path.name for path in target.parent.iterdir()] == ["b.tar"]
    assert target.read_text() == "an older one"
    blob.write_bytes(FILES["engine.bin"])
    before = os.umask(0o022)
    try:
        assert bundle.export_file(theirs, [KEY, OTHER], target) == 2
    finally:
        os.umask(before)
    assert [path.name for path in target.parent.iterdir()] == ["b.tar"]
    assert target.read_bytes() == packed(theirs)
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


def test_a_key_without_an_artifact_is_refused_before_a_byte_is_written(theirs: Store) -> None:
    file = io.BytesIO()
    for key in ("ab" * 32, "../../etc/passwd"):
        with pytest.raises(Invalid, match=key):
            bundle.export_to(theirs, [KEY, key], file)
    assert file.getvalue() == b""


SENDER = """
import sys
from pathlib import Path
from trtstore import Store
from trtstore.exchange import bundle
with open(1, "wb", buffering=0) as out:
    bundle.export_to(Store.open(Path(sys.argv[1])), sys.argv[2:], out)
"""

RECEIVER = """
import sys
from pathlib import Path
from trtstore import Store
from trtstore.exchange import bundle
for received in bundle.import_from(Store.open(Path(sys.argv[1])), open(0, "rb", buffering=0)):
    print(received.record.key, received.new)
"""


def test_a_bundle_goes_through_a_pipe(theirs: Store, mine: Store, tmp_path: Path) -> None:
    publish(theirs, write_files(tmp_path / "big", {"big": os.urandom(3 << 20)}), "ab" * 32)
    with subprocess.Popen(
        [sys.executable, "-c", SENDER, theirs.root, KEY, OTHER, "ab" * 32], stdout=subprocess.PIPE
    ) as sender:
        received = subprocess.run(
            [sys.executable, "-c", RECEIVER, mine.root], stdin=sender.stdout, capture_output=True, text=True
        )
    assert sender.returncode == 0
    assert received.stdout.split() == [OTHER, "True", KEY, "True", "ab" * 32, "True"]
    assert stored(mine) == stored(theirs)


def test_who_stops_reading_is_one_error_for_who_writes(theirs: Store) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as file, pytest.raises(StoreFailure, match="pipe"):
        bundle.export_to(theirs, [KEY], file)


def test_two_imports_at_once_make_one_store(theirs: Store, mine: Store, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(packed(theirs))
    receivers = []
    for _ in range(2):
        with (tmp_path / "b.tar").open("rb") as file:
            receivers.append(
                subprocess.Popen(
                    [sys.executable, "-c", RECEIVER, mine.root], stdin=file, stdout=subprocess.PIPE, text=True
                )
            )
    said = [receiver.communicate(timeout=60)[0].split()[::2] for receiver in receivers]
    assert said == [[OTHER, KEY]] * 2
    assert stored(mine) == stored(theirs)
    assert leftovers(mine.root) == []
    check_sound(mine)


KILLED = """
import os, signal, sys
from pathlib import Path
from trtstore import Store
from trtstore.exchange import bundle
calls = 0
def count(event, arguments):
    global calls
    if event in ("os.rename", "os.link", "os.chmod", "os.mkdir", "os.remove", "os.utime", "open") and str(
        arguments[0]
    ).startswith(sys.argv[1]):
        calls += 1
        if calls == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
store, file = Store.open(Path(sys.argv[1])), open(sys.argv[2], "rb")
sys.addaudithook(count)
list(bundle.import_from(store, file))
"""


@pytest.mark.parametrize("step", [*range(1, 40, 3), *range(40, 160, 10)])
def test_an_importer_killed_at_any_step_leaves_whole_groups(theirs: Store, tmp_path: Path, step: int) -> None:
    data = packed(theirs)
    (tmp_path / "b.tar").write_bytes(data)
    importer = python(KILLED, tmp_path / "mine", tmp_path / "b.tar", step)
    importer.communicate(timeout=60)
    assert importer.returncode in (0, -signal.SIGKILL)
    mine = Store.open(tmp_path / "mine")
    check_sound(mine)
    found = list(mine.keys())
    assert found in ([], [OTHER], [OTHER, KEY])
    assert unpack(mine, data) == [OTHER not in found, KEY not in found]
    assert stored(mine) == stored(theirs)
    assert leftovers(mine.root) == []


def test_a_full_disk_keeps_the_groups_before(theirs: Store, tmp_path: Path) -> None:
    publish(theirs, write_files(tmp_path / "big", {"big": os.urandom(3 << 20)}), "ff" * 32)
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        store = Store.open(disk)
        with pytest.raises(NoSpace, match=str(disk)):
            unpack(store, packed(theirs, KEY, OTHER, "ff" * 32))
        assert list(store.keys()) == [OTHER, KEY]
        assert leftovers(disk) == []
        check_sound(store)


def members(data: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


def made(content: Members, change: Callable[[int, tarfile.TarInfo], None] | None = None) -> bytes:
    """A tar as Python writes it, its headers those of a bundle but for what `change` does to the member of a place."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for place, (name, data) in enumerate(content):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o444, STAMP
            if change is not None:
                change(place, info)
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset
    return file.getvalue()[:end] + tarblocks.END


def test_the_tars_that_these_tests_make_by_hand_are_good_until_they_are_spoilt(theirs: Store, mine: Store) -> None:
    assert unpack(mine, made(members(packed(theirs)))) == [True, True]


def swapped(found: Members) -> Members:
    return [found[0], found[1], found[3], found[2], *found[4:]]


def renamed(place: int, name: str) -> Callable[[Members], Members]:
    return lambda found: [(name if at == place else its, data) for at, (its, data) in enumerate(found)]


def refilled(place: int, change: Callable[[bytes], bytes]) -> Callable[[Members], Members]:
    return lambda found: [(name, change(data) if at == place else data) for at, (name, data) in enumerate(found)]


@pytest.mark.parametrize(
    ("spoil", "words", "kept"),
    [
        (renamed(0, "records/0f/../../../../up"), "where a record must be", 0),
        (renamed(0, "/etc/passwd"), "where a record must be", 0),
        (renamed(0, f"records/00/{OTHER}"), "where a record must be", 0),
        (renamed(0, f"records/ab/{'ab' * 32}"), "is of the key", 0),
        (renamed(1, "../../up"), "not where it must be", 0),
        (renamed(2, "blobs/sha256/../../../up"), "not where it must be", 0),
        (renamed(5, f"blobs/sha256/ab/{'ab' * 32}"), "not where it must be", 1),
        (swapped, "not where it must be", 0),
        (lambda found: found[:4] + found[:4] + found[4:], "not in the order of keys", 1),
        (lambda found: found[:3] + found[2:], "not where it must be", 0),
        (lambda found: found[1:], "where a record must be", 0),
        (lambda found: [("README", b"hello"), *found], "where a record must be", 0),
        (lambda found: [*found, ("README", b"hello")], "where a record must be", 2),
        (lambda found: found[:-1], "not where it must be", 1),
        (refilled(0, lambda data: data[:-2]), "not strict JSON", 0),
        (refilled(0, lambda data: data + b" " * records.MAX_BYTES), "and may have 4194304", 0),
        (refilled(1, lambda data: data.replace(b"tokens", b"../../")), "not what its name says", 0),
        (refilled(2, lambda data: data[::-1]), "not what its name says", 0),
        (refilled(2, lambda data: data + b"x"), "bytes, not", 0),
        (refilled(5, lambda data: data[:-1] + b"x"), "not what its name says", 1),
    ],
)
def test_a_hostile_bundle_is_refused_and_what_came_before_is_kept(
    theirs: Store, mine: Store, spoil: Callable[[Members], Members], words: str, kept: int
) -> None:
    with pytest.raises(Corrupt, match=words) as failure:
        unpack(mine, made(spoil(members(packed(theirs)))))
    assert f"the {kept} artifacts before" in failure.value.message
    assert list(mine.keys()) == [OTHER, KEY][:kept]
    assert len(stored(mine)) == (0, 4, 8)[kept]
    assert leftovers(mine.root) == []
    check_sound(mine)


@pytest.mark.parametrize(
    "change",
    [
        lambda info: setattr(info, "type", tarfile.SYMTYPE),
        lambda info: setattr(info, "type", tarfile.LNKTYPE),
        lambda info: setattr(info, "type", tarfile.CHRTYPE),
        lambda info: setattr(info, "type", tarfile.FIFOTYPE),
        lambda info: setattr(info, "type", tarfile.DIRTYPE),
        lambda info: setattr(info, "type", tarfile.GNUTYPE_SPARSE),
        lambda info: setattr(info, "type", tarfile.CONTTYPE),
        lambda info: setattr(info, "linkname", "/etc/passwd"),
        lambda info: setattr(info, "mode", 0o4755),
        lambda info: setattr(info, "uid", 1000),
        lambda info: setattr(info, "uname", "root"),
        lambda info: setattr(info, "mtime", 1.5),
        lambda info: setattr(info, "pax_headers", {"path": "/etc/passwd"}),
        lambda info: setattr(info, "pax_headers", {"GNU.sparse.realsize": "9" * 12}),
        lambda info: setattr(info, "name", "n" * 300),
        lambda info: setattr(info, "name", "blobs/\N{SNOWMAN}"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2, 6])
def test_members_of_other_kinds_are_refused(
    theirs: Store, mine: Store, place: int, change: Callable[[tarfile.TarInfo], None]
) -> None:
    data = made(members(packed(theirs)), lambda at, info: change(info) if at == place else None)
    with pytest.raises(Corrupt, match="not that of a plain file"):
        unpack(mine, data)
    assert list(mine.keys()) == ([OTHER] if place == 6 else [])
    check_sound(mine)


class Endless:
    """A stream that goes on for ever after `data`, and counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self._data, self.taken = io.BytesIO(data), 0

    def read(self, size: int, /) -> bytes:
        self.taken += size
        return self._data.read(size) or bytes(size)


@pytest.mark.parametrize(
    "claim",
    [
        tarblocks.header(names.record_name(KEY), 2**52),
        tarblocks.header(names.record_name(KEY), records.MAX_BYTES + 1),
        tarblocks.header("././@PaxHeader", 2**33 - 1).replace(b"\x000ustar", b"\x00xustar"),
        tarblocks.header("././@LongLink", 2**33 - 1).replace(b"\x000ustar", b"\x00Lustar"),
    ],
)
def test_a_claim_of_a_vast_member_is_refused_unread(mine: Store, claim: bytes) -> None:
    stream = Endless(claim)
    with pytest.raises(Corrupt):
        list(bundle.import_from(mine, stream))
    assert stream.taken <= 3 * tarblocks.BLOCK


@pytest.mark.parametrize(("place", "limit"), [(1, manifest.MAX_BYTES), (2, 6000)])
def test_a_longer_manifest_or_blob_is_refused_unread(theirs: Store, mine: Store, place: int, limit: int) -> None:
    found = members(packed(theirs))
    before = b"".join(
        tarblocks.header(name, len(data)) + data + tarblocks.padding(len(data)) for name, data in found[:place]
    )
    stream = Endless(before + tarblocks.header(found[place][0], limit + 1))
    with pytest.raises(Corrupt, match="bytes"):
        list(bundle.import_from(mine, stream))
    assert stream.taken == len(before) + tarblocks.BLOCK
    assert stored(mine) == {}


def test_groups_out_of_order_are_refused(theirs: Store, mine: Store) -> None:
    with pytest.raises(Corrupt, match="not in the order of keys; the 1 artifacts"):
        unpack(mine, packed(theirs, KEY)[: -len(tarblocks.END)] + packed(theirs, OTHER))
    assert list(mine.keys()) == [KEY]


def test_padding_is_zero(theirs: Store, mine: Store) -> None:
    data = bytearray(packed(theirs))
    data[tarblocks.BLOCK + len(members(bytes(data))[0][1])] = 1
    with pytest.raises(Corrupt, match="padding"):
        unpack(mine, bytes(data))


def test_one_digest_with_two_sizes_is_refused(theirs: Store, mine: Store) -> None:
    digits = hashlib.sha256(b"abc").hexdigest()
    listed = manifest.make_manifest([manifest.Entry("a", "0644", 3, digits), manifest.Entry("b", "0644", 9, digits)])
    record = theirs.lookup(KEY)
    assert record is not None
    record = replace(record, manifest=listed.digest, bytes=12, files=2, attachments={})
    found = [
        (names.record_name(KEY), records.encode(record)),
        (names.blob_name(listed.digest[7:]), listed.encode()),
        (names.blob_name(digits), b"abc"),
    ]
    with pytest.raises(Corrupt, match="two sizes"):
        unpack(mine, made(found))
    assert stored(mine) == {}


def test_the_number_of_blobs_has_a_limit(theirs: Store, mine: Store) -> None:
    data = packed(theirs)  # six blobs, of which three come with the first artifact
    assert bundle.export_to(theirs, [KEY, OTHER], io.BytesIO(), max_blobs=6) == 2
    with pytest.raises(Invalid, match="holds 5 blobs"):
        bundle.export_to(theirs, [KEY, OTHER], io.BytesIO(), max_blobs=5)
    with pytest.raises(Corrupt, match="more than 5 blobs; the 1 artifacts"):
        list(bundle.import_from(mine, io.BytesIO(data), max_blobs=5))
    assert len(list(bundle.import_from(mine, io.BytesIO(data), max_blobs=6))) == 2


def test_more_after_the_end_is_refused(theirs: Store, mine: Store) -> None:
    for more in (b"x", bytes(512), packed(theirs)):
        with pytest.raises(Corrupt, match="behind its end; the 2 artifacts"):
            unpack(mine, packed(theirs) + more)
    with pytest.raises(Corrupt, match="ends early; the 0 artifacts"):
        unpack(mine, b"")
    assert unpack(mine, tarblocks.END) == []


def test_a_bundle_that_was_cut_goes_on_when_it_comes_again(theirs: Store, mine: Store) -> None:
    data = packed(theirs)
    first = len(packed(theirs, OTHER)) - len(tarblocks.END)
    with pytest.raises(Corrupt, match="ends early; the 0 artifacts"):
        unpack(mine, data[: first - 1])
    with pytest.raises(Corrupt, match="ends early; the 1 artifacts"):
        unpack(mine, data[: first + 600])
    assert unpack(mine, data) == [False, True]


def test_a_record_is_never_put_in_place_without_a_blob_that_went_meanwhile(theirs: Store, mine: Store) -> None:
    groups = bundle.import_from(mine, io.BytesIO(packed(theirs)))
    assert next(groups).record.key == OTHER
    shared = next(p for p in mine.root.rglob("*") if p.is_file() and p.read_bytes() == FILES["engine.bin"])
    shared.unlink()
    with pytest.raises(Corrupt, match="is not there; the 1 artifacts"):
        next(groups)
    assert list(mine.keys()) == [OTHER]
    assert leftovers(mine.root) == []
    assert unpack(mine, packed(theirs)) == [True, True]
    check_sound(mine)


def test_headers_have_one_spelling() -> None:
    good = tarblocks.header(names.blob_name(KEY), 5)
    for place in range(len(good)):
        with pytest.raises(Malformed):
            tarblocks.parse(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("sample")
    return packed(fill(folder / "store", folder))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(
            st.sampled_from(["flip", "cut", "drop", "double"]),
            st.floats(0, 1),
            st.integers(1, 255),
            st.integers(1, 40),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_no_damage_gives_a_wrong_artifact_or_leaves_the_store(
    sample: bytes, edits: list[tuple[str, float, int, int]]
) -> None:
    data = sample
    for kind, where, bits, blocks in edits:
        at = int(where * max(len(data) - 1, 0))
        span = blocks * tarblocks.BLOCK
        if kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "drop":
            at -= at % tarblocks.BLOCK
            data = data[:at] + data[at + span :]
        else:
            at -= at % tarblocks.BLOCK
            data = data[:at] + data[at : at + span] + data[at:]
    with tempfile.TemporaryDirectory() as name:
        store = Store.open(Path(name) / "in" / "store", durability="fast")
        received = []
        try:
            for its in bundle.import_from(store, io.BytesIO(data)):
                received.append(its.record.key)
        except StoreFailure as failure:
            assert f"the {len(received)} artifacts before" in failure.message  # either end is good
        else:
            assert received == [OTHER, KEY][: len(received)]
        assert list(store.keys()) == received
        check_sound(store)
        assert leftovers(store.root) == []
        assert [path.name for path in Path(name).iterdir()] in ([], ["in"])
