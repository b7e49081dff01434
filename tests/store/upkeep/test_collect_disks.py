"""Collections on disks that are full or cannot be read, and ages that only a disk's own inodes can have."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.disks import make_image, mounted
from tests.store.shop import Shop, key_of
from tests.store.support import python, write_files
from trtstore.upkeep.maintenance import Maintenance

COLLECT_AS_NOBODY = """
import os, sys
from pathlib import Path
from trtstore import Store, StoreFailure
from trtstore.upkeep.maintenance import Maintenance
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    Maintenance(Store.open(Path(sys.argv[1]))).collect(None, grace=0)
except StoreFailure as failure:
    print(type(failure).__name__)
"""


def test_a_record_that_cannot_be_read_is_an_error_and_not_garbage(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.put("unreadable")
    place = shop.base / "records" / key_of("unreadable")[:2] / key_of("unreadable")
    envelope = place.read_bytes()
    if os.geteuid() == 0:
        for path in [shop.store.root, *shop.store.root.rglob("*")]:
            os.chown(path, 65534, 65534)
    place.chmod(0)
    with reachable(shop.home):
        other = python(COLLECT_AS_NOBODY, shop.home / "store")
        said, _ = other.communicate(timeout=60)
    assert "NotReadable" in said
    place.chmod(0o644)
    assert place.read_bytes() == envelope


@contextmanager
def reachable(folder: Path) -> Iterator[None]:
    """The folders above `folder` may be passed through by everybody, for a while."""
    closed = [(path, path.stat().st_mode) for path in folder.parents if not path.stat().st_mode & 0o001]
    for path, mode in closed:
        path.chmod(mode | 0o011)
    try:
        yield
    finally:
        for path, mode in closed:
            path.chmod(mode)


def test_a_disk_that_is_full_can_be_collected(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        shop = Shop(disk)
        for number in range(3):
            shop.store.materialise(shop.put(str(number), {"own.bin": os.urandom(100_000)}))
        shop.store.add_root(tmp_path / "link", shop.put("rooted"))
        fill(disk / "filler", leave=0)
        plan = shop.collect(0)
        assert shop.left("0", "1", "2", "rooted") == ["rooted"]
        assert plan.after == shop.bytes()
        assert shop.put("3").key == key_of("3")


@pytest.mark.slow
@pytest.mark.parametrize("leave", range(0, 16_384, 4096))
def test_a_disk_with_no_room_for_more_names_can_be_collected(tmp_path: Path, leave: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "ext4", "-o", "loop", str(make_image("ext4", tmp_path / "image"))):
        shop = Shop(disk)
        names = [str(number) for number in range(60)]
        for name in names:
            shop.put(name, {f"own{n}": f"{name}.{n}".encode() for n in range(4)})
        fill(disk / "filler", leave)
        plan = shop.collect(0)
        assert plan.after == shop.bytes() == 0
        assert shop.left(*names) == []


def fill(path: Path, leave: int) -> None:
    """Use up the disk of `path` but for `leave` bytes."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 10):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                os.fsync(file.fileno())
        file.truncate(max(0, file.tell() - leave))
    os.sync()


def set_ctime(image: Path, inner: Path, seconds_ago: float) -> None:
    moment = time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() - seconds_ago))
    command = f"set_inode_field {inner} ctime {moment}"
    subprocess.run(["debugfs", "-w", "-R", command, image], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("debugfs") is None, reason="debugfs, which can set a ctime, is not installed")
def test_an_hour_of_grace_and_a_week_of_quarantine_are_counted_from_the_ctime(tmp_path: Path) -> None:
    disk, image = tmp_path / "disk", make_image("ext4", tmp_path / "image")
    disk.mkdir()
    with mounted(disk, "-t", "ext4", "-o", "loop", str(image)):
        shop = Shop(disk)
        records = {name: shop.put(name) for name in ("59 minutes", "61 minutes")}
        for days in (6, 8):
            write_files(shop.base / "quarantine", {f"{days} days": b"damaged"})
        gc.collect()  # each put had a store of its own, whose index keeps the disk from being unmounted
    os.sync()
    for name, record in records.items():
        inner = Path("/store/v1/records") / record.key[:2] / record.key
        set_ctime(image, inner, int(name.split()[0]) * 60)
    for days in (6, 8):
        set_ctime(image, Path(f'"/store/v1/quarantine/{days} days"'), days * 86_400)
    with mounted(disk, "-t", "ext4", "-o", "loop", str(image)):
        plan = Maintenance(shop.store).collect(0)
        assert shop.left("59 minutes", "61 minutes") == ["59 minutes"]
        assert [d.reason for d in plan.decisions if d.name == key_of("59 minutes")] == [
            "used within the grace period of 1 hour"
        ]
        assert [path.name for path in (shop.base / "quarantine").iterdir()] == ["6 days"]
        assert plan.after == shop.bytes()
        shop.store.close()
