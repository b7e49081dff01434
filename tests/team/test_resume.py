"""A large file goes on where its transfer was cut off, and several come and go side by side."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.store.support import KEY, leftovers, read_tree
from tests.team.support import Machine, Place, machine, make, writer
from trtstore.disk import partial
from trtstore.errors import Corrupt, Unreachable
from trtstore.format.digest import hash_bytes
from trtstore.team import signing
from trtstore.transfer.incoming import LARGE
from trtstore.transfer.protocols import Reader, Skipping
from trtstore.upkeep.maintenance import Maintenance

SIZE = LARGE + (5 << 20) + 3


def large(seed: int) -> bytes:
    block = os.urandom(1 << 20)
    return b"".join((seed + at).to_bytes(4, "big") + block[4:] for at in range(SIZE >> 20)) + b"end"


@dataclass
class Watched:
    """A reader that counts the bytes of blobs that came from it, and breaks off for good after `most`."""

    reader: Reader
    most: int = 1 << 40
    came: int = 0
    skipped: list[int] = field(default_factory=list)

    def __getattr__(self, name: str):
        return getattr(self.reader, name)

    @contextmanager
    def open_blob(self, digest: str, size: int) -> Iterator[Skipping]:
        with self.reader.open_blob(digest, size) as file:
            yield _Stream(self, file)


class _Stream:
    def __init__(self, watched: Watched, file: Skipping) -> None:
        self._watched, self._file = watched, file

    def read(self, size: int, /) -> bytes | memoryview:
        data = self._file.read(size)
        self._watched.came += len(data)
        if self._watched.came > self._watched.most:
            raise Unreachable("the network broke")
        return data

    def skip(self, count: int, /) -> None:
        self._watched.skipped.append(count)
        self._file.skip(count)


@pytest.fixture
def data() -> bytes:
    return large(0)


@pytest.fixture
def dev(bucket: Place, tmp_path: Path, data: bytes) -> Machine:
    """Who may fetch an artifact with a large file."""
    signer = writer("ci")
    ci = machine(tmp_path / "ci", bucket, signer.public)
    make(ci.store, tmp_path / "in", files={"engine.bin": data, "small": b"small"})
    assert ci.team().push(ci.store, KEY, signer).bytes == SIZE + 5
    return machine(tmp_path / "dev", bucket, signer.public)


def beginning(dev: Machine, data: bytes) -> Path:
    return dev.store._layout.partial / hash_bytes(data)


def fetch(dev: Machine, most: int = 1 << 40) -> Watched:
    team = dev.team()
    watched = Watched(team, most)
    dev.store.receive(KEY, team.envelope(KEY), watched)
    return watched


def check(dev: Machine, data: bytes) -> None:
    record = dev.store.lookup(KEY)
    assert record is not None
    assert read_tree(dev.store.materialise(record).path)["engine.bin"] == data
    assert not beginning(dev, data).exists()
    assert leftovers(dev.store.root) == []


def test_what_came_before_the_network_broke_does_not_travel_again(dev: Machine, data: bytes) -> None:
    with pytest.raises(Unreachable):
        fetch(dev, 12 << 20)
    assert dev.store.lookup(KEY) is None
    here = beginning(dev, data).stat().st_size
    assert 8 << 20 < here <= 12 << 20
    rest = fetch(dev)
    assert rest.skipped == [here]
    assert rest.came == SIZE - here  # and the small file had come
    check(dev, data)


PULL = """
import sys, time
from pathlib import Path
from trtstore import Layered, Store, TrustPolicy, open_team
root, url, key, public = sys.argv[1:]

def progress(done, whole):
    if done > 9 << 20:
        print("killed here", flush=True)
        time.sleep(600)

store = Store.open(Path(root))
Layered(store, [open_team(url, store, TrustPolicy.require, [public], print)], on_progress=progress).lookup(key)
"""


def test_after_a_kill_the_next_pull_goes_on(dev: Machine, data: bytes) -> None:
    words = [sys.executable, "-c", PULL, dev.store.root, dev.url, KEY, *dev.trusted]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "killed here\n"
        killed.kill()
    here = beginning(dev, data).stat().st_size
    assert here >= 8 << 20
    rest = fetch(dev)
    assert rest.skipped == [here]
    assert rest.came <= SIZE + 5 - here
    check(dev, data)


@pytest.mark.parametrize("kind", ["another byte", "too long", "all of it", "nothing"])
def test_nothing_that_is_here_is_believed(dev: Machine, data: bytes, kind: str) -> None:
    """A beginning that a power failure or somebody changed costs its bytes again, and no more."""
    left = {
        "another byte": data[: 8 << 20] + b"X" + data[(8 << 20) + 1 : 12 << 20],
        "too long": data + b"more",
        "all of it": data,
        "nothing": b"",
    }[kind]
    path = beginning(dev, data)
    path.parent.mkdir(parents=True)
    path.write_bytes(left)
    came = fetch(dev).came - 5
    sent = {"another byte": 2 * SIZE - (12 << 20), "all of it": 0}
    assert came == sent.get(kind, SIZE)
    check(dev, data)


def test_a_place_with_other_bytes_is_refused_and_leaves_no_beginning(dev: Machine, data: bytes, bucket: Place) -> None:
    digits = hash_bytes(data)
    bucket.put(f"v1/blobs/sha256/{digits[:2]}/{digits}", large(7))
    with pytest.raises(Corrupt, match="not what its name says"):
        fetch(dev)
    assert list(dev.store._layout.partial.iterdir()) == []


def test_of_two_who_fetch_at_once_one_takes_another_file(dev: Machine, data: bytes) -> None:
    with partial.opened(dev.store._layout, hash_bytes(data)) as held:
        assert held is not None
        assert fetch(dev).came == SIZE + 5
    assert beginning(dev, data).stat().st_size == 0


def test_beginnings_go_when_nobody_goes_on(dev: Machine) -> None:
    layout = dev.store._layout
    layout.make(layout.partial)
    now = time.time()
    ages = {"a" * 64: 2 * partial.KEPT, "b" * 64: 3600.0 * 2, "c" * 64: 0.0}
    for name, age in ages.items():
        (layout.partial / name).write_bytes(b"half")
        os.utime(layout.partial / name, (now - age, now - age))

    def left() -> list[str]:
        return sorted(path.name[0] for path in layout.partial.iterdir())

    with dev.store.scratch():
        assert left() == ["b", "c"]
    with partial.opened(layout, "b" * 64):
        Maintenance(dev.store).collect()
        assert left() == ["b", "c"]
    Maintenance(dev.store).collect()
    assert left() == ["c"]


def test_several_large_files_come_and_go_side_by_side(bucket: Place, tmp_path: Path) -> None:
    files = {f"rank{number}.engine": large(number) for number in range(3)}
    signer = writer("ci")
    ci = machine(tmp_path / "ci", bucket, signer.public)
    make(ci.store, tmp_path / "in", files=files)
    told: list[tuple[int, int]] = []
    pushed = ci.team().push(ci.store, KEY, signing.signer("ci"), lambda *said: told.append(said))
    assert pushed.bytes == 3 * SIZE
    assert told[-1] == (3 * SIZE, 3 * SIZE)
    assert told == sorted(told)
    dev = machine(tmp_path / "dev", bucket, signer.public)
    with pytest.raises(Unreachable):
        fetch(dev, SIZE)
    team = dev.team()
    told.clear()
    dev.store.receive(KEY, team.envelope(KEY), team, lambda *said: told.append(said))
    assert told == sorted(told)
    record = dev.store.lookup(KEY)
    assert record is not None
    assert read_tree(dev.store.materialise(record).path) == files
    assert list(dev.store._layout.partial.iterdir()) == []
    assert leftovers(dev.store.root) == []
