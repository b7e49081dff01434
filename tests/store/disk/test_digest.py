"""Hashing and copying at once: the right digest at any length, little memory, and an end as soon as one thing fails."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.store.support import KEY, leftovers, python
from trtstore import Store
from trtstore.disk import writeback
from trtstore.disk.hashing import CHUNK, OnBytes, hash_fd, in_threads

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 7 * CHUNK + 11]

INTERRUPTED = """
import sys
from pathlib import Path
from trtstore import Store
store = Store.open(Path(sys.argv[1]))
with store.scratch() as work:
    (work / "out").mkdir()
    with (work / "out" / "endless").open("wb") as file:
        file.truncate(1 << 40)  # all a hole: it takes no room, and a quarter of an hour to hash
    try:
        store.publish("5e" * 32, work / "out", predicate_type="p", predicate={}, labels={})
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("copied", [False, True], ids=["hashed", "copied"])
def test_every_byte_is_hashed_and_copied_once_and_in_order(tmp_path: Path, size: int, copied: bool) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    told: list[int] = []
    with (tmp_path / "source").open("rb") as source, (tmp_path / "copy").open("wb") as copy:
        target = copy.fileno() if copied else None
        found = hash_fd(source.fileno(), size, copy_to=target, on_bytes=told.append)
    assert found == (hashlib.sha256(data).hexdigest(), size)
    assert (tmp_path / "copy").read_bytes() == (data if copied else b"")
    assert sum(told) == size


def test_a_file_that_grew_is_left_soon_after_its_expected_end(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(9 * CHUNK))
    with (tmp_path / "source").open("rb") as source:
        _, size = hash_fd(source.fileno(), 2 * CHUNK)
    assert 2 * CHUNK < size <= 3 * CHUNK


def test_a_copy_that_cannot_be_written_ends_with_the_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(9 * CHUNK))
    full = Path("/dev/full")
    with (
        (tmp_path / "source").open("rb") as source,
        full.open("wb", buffering=0) as copy,
        pytest.raises(OSError, match="No space"),
    ):
        hash_fd(source.fileno(), 9 * CHUNK, copy_to=copy.fileno())


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "source").open("wb") as file:
        file.truncate(64 * CHUNK)
    tracemalloc.start()
    try:
        with (tmp_path / "source").open("rb") as source, (tmp_path / "copy").open("wb") as copy:
            hash_fd(source.fileno(), 64 * CHUNK, copy_to=copy.fileno())
        assert tracemalloc.get_traced_memory()[1] < 3 * CHUNK
    finally:
        tracemalloc.stop()


def test_one_failure_ends_the_work_of_the_others_and_is_the_one_that_is_told() -> None:
    begun = threading.Event()
    finished: list[str] = []

    def work(item: str, tell: OnBytes) -> None:
        if item == "fails":
            assert begun.wait(60)
            raise ValueError("the reason")
        for _ in range(10_000_000):
            begun.set()
            tell(1)
        finished.append(item)

    with pytest.raises(ValueError, match="the reason"):
        in_threads(work, ["goes on", "fails"], lambda _count: None)
    assert finished == []


def test_an_interrupt_ends_the_hash_of_an_endless_file(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    publisher = python(INTERRUPTED, store.root)
    end = time.monotonic() + 60
    while read_by(publisher.pid) < 100 << 20 and time.monotonic() < end:
        time.sleep(0.02)
    publisher.send_signal(signal.SIGINT)
    try:
        said, _ = publisher.communicate(timeout=60)
    finally:
        publisher.kill()
    assert (said, publisher.returncode) == ("interrupted\n", 0)
    assert store.lookup(KEY) is None
    assert leftovers(store.root) == []


def test_the_kernel_is_told_to_write_a_file_before_it_is_synced(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(bytes(CHUNK))
        assert writeback.start(file.fileno(), 0, CHUNK)


def test_a_hint_that_the_kernel_refuses_is_passed_over() -> None:
    reader, writer = os.pipe()  # a pipe has no disk
    try:
        assert not writeback.start(writer, 0, CHUNK)
        told: list[int] = []
        writeback.early(writer, told.append)(64 << 20)
        assert told == [64 << 20]
    finally:
        os.close(reader)
        os.close(writer)


def read_by(pid: int) -> int:
    """Bytes that a process has read so far, from the page cache or a disk."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(lines[0].removeprefix("rchar: "))
