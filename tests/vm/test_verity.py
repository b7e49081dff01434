"""Blobs that the kernel keeps by fs-verity: nobody writes to them, and what a disk changes of them is never served.

Skipped where kernel or file system cannot, or nobody may mount; `test_vm` runs it where they can.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.store.disks import make_image, mounted
from tests.store.support import KEY, OTHER, publish, read_tree, write_files
from trtstore import Store
from trtstore.disk import verity
from trtstore.errors import StoreFailure
from trtstore.exchange import bundle
from trtstore.format.digest import hash_bytes
from trtstore.transfer import incoming
from trtstore.upkeep.maintenance import Maintenance

ENGINE = os.urandom(100_000)
FILES = {"engine.bin": ENGINE, "sub/config.json": b"{}", "run": os.urandom(70_000)}
OPTIONS = {"ext4": ("-O", "verity", "-b", "4096"), "btrfs": ()}


class Disk:
    """A file system with fs-verity, in a file, and a store on it."""

    def __init__(self, home: Path, kind: str) -> None:
        self.home, self.kind = home, kind
        self.image, self.place = make_image(kind, home / "image", *OPTIONS[kind]), home / "disk"
        self.place.mkdir()
        self.heard: list[str] = []
        self._held = ExitStack()
        self.mount()

    def mount(self) -> None:
        self._held.enter_context(mounted(self.place, "-t", self.kind, "-o", "loop", str(self.image)))

    def unmount(self) -> None:
        self._held.close()

    @contextmanager
    def opened(self, *, keeps: bool = True) -> Iterator[Store]:
        store = Store.open(self.place / "store", verity=keeps)
        try:
            yield store
        finally:
            store.close()

    def publish(self, store: Store) -> Path:
        """The blob of the engine, published."""
        out = write_files(self.home / "out", FILES)
        (out / "run").chmod(0o755)
        publish(store, out)
        return store._layout.blob(hash_bytes(ENGINE))

    def use(self, store: Store, *, anew: bool = False) -> dict[str, bytes] | None:
        record = store.use(KEY, on_problem=self.heard.append, verify="always" if anew else "never")
        return None if record is None else read_tree(store.materialise(record).path)


@pytest.fixture(params=["ext4", "btrfs"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    made = Disk(tmp_path, request.param)
    try:
        probe = made.place / "probe"
        probe.write_bytes(b"probe")
        if not verity.enable(probe):
            pytest.skip(f"no fs-verity on {made.kind} here")
        yield made
    finally:
        made.unmount()


def kept(path: Path) -> str | None:
    return verity.measured(path, path.lstat())


def numbers(path: Path) -> list[int]:
    """What a seal of earlier releases is made of."""
    its = path.lstat()
    return [its.st_ino, its.st_size, its.st_mtime_ns, its.st_ctime_ns]


def flip(disk: Disk) -> None:
    """Change a byte of the engine on the disk itself, which no time and no inode tells."""
    disk.unmount()
    with disk.image.open("r+b") as file:
        at = file.read().index(ENGINE[4096:12288]) + 100
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    disk.mount()


def test_everything_that_a_store_does_with_blobs_goes_on_with_them(disk: Disk) -> None:
    with disk.opened() as store:
        blob = disk.publish(store)
        digest = kept(blob)
        assert digest is not None
        assert all(kept(path) for path in store._layout.blobs.rglob("*") if path.is_file())
        with pytest.raises(PermissionError):
            os.open(blob, os.O_WRONLY)
        assert disk.use(store) == FILES  # by hard links, by reflinks, and the executable as a copy
        if disk.kind == "ext4":
            assert next(store._layout.trees.rglob("engine.bin")).samefile(blob)
        with blob.open("rb") as source, (disk.place / "clone").open("xb") as target:
            if disk.kind == "btrfs":
                fcntl.ioctl(target, 0x40049409, source.fileno())
        disk.publish(store)
        assert kept(blob) == digest
        blob.chmod(0o600)  # a seal that is broken: read, and sealed again
        assert disk.use(store) == FILES
        file = io.BytesIO()
        bundle.export_to(store, [KEY], file)
        Maintenance(store).collect(0, grace=0)
        assert not blob.exists()
        file.seek(0)
        list(bundle.import_from(store, file))
        assert kept(blob) == digest
        assert disk.use(store, anew=True) == FILES
        assert Maintenance(store).verify() == []


def test_a_hit_compares_what_the_kernel_says_and_rows_go_with_their_blobs(disk: Disk) -> None:
    with disk.opened() as store:
        digits, digest = (blob := disk.publish(store)).name, kept(blob)
        assert store.index.items("seal-verity")[digits] == digest
        assert [*store.index.items("sealed-verity")] == [KEY]
    with disk.opened(keeps=False) as store:
        assert disk.use(store) == FILES
        blob.rename(disk.place / "aside")
        shutil.copy2(disk.place / "aside", blob)  # as an older release puts it there: of no verity
        assert disk.use(store) == FILES
        assert digits not in store.index.items("seal-verity")
        Maintenance(store).collect(0, grace=0)
        assert store.index.items("seal-verity") == store.index.items("sealed-verity") == {}


def test_a_byte_that_the_disk_changed_is_never_served_and_a_publish_mends_it(disk: Disk) -> None:
    with disk.opened() as store:
        blob = disk.publish(store)
        assert disk.use(store) == FILES
        before = numbers(blob)
    flip(disk)
    with disk.opened() as store:
        assert numbers(blob) == before
        with pytest.raises(OSError, match="Input/output error"):
            blob.read_bytes()
        with pytest.raises(StoreFailure, match="input/output error"):
            bundle.export_to(store, [KEY], io.BytesIO())
        assert disk.use(store, anew=True) is None
        assert any("cannot be read: input/output error" in line for line in disk.heard)
        assert any(store._layout.quarantine.iterdir())
        disk.publish(store)
        assert disk.use(store, anew=True) == FILES
        assert Maintenance(store).verify() == []


def test_root_who_writes_to_the_disk_and_takes_the_digest_away_breaks_the_seal(tmp_path: Path) -> None:
    disk = Disk(tmp_path, "ext4")
    try:
        with disk.opened() as store:
            blob = disk.publish(store)
            if kept(blob) is None:
                pytest.skip("no fs-verity here")
            assert disk.use(store) == FILES
            before = numbers(blob)
        flip(disk)
        disk.unmount()
        order = f"set_inode_field <{before[0]}> flags 0x80000"  # EXTENTS_FL, and no VERITY_FL
        subprocess.run(["debugfs", "-w", "-R", order, disk.image], check=True, capture_output=True)
        disk.mount()
        with disk.opened() as store:
            assert numbers(blob) == before
            assert blob.read_bytes() != ENGINE
            assert disk.use(store) is None
            disk.publish(store)
            assert disk.use(store) == FILES
    finally:
        disk.unmount()


def test_a_kill_while_the_kernel_takes_a_file_leaves_it_as_it_was(disk: Disk) -> None:
    path = disk.place / "large"
    data = ENGINE * 80
    path.write_bytes(data)
    for pause in (0.0, 0.1, 0.3):
        child = os.fork()
        if child == 0:
            verity.enable(path)
            os._exit(0)
        time.sleep(pause)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if kept(path) is None:
            path.open("r+b").close()  # it may be written to
        assert path.read_bytes() == data
    assert verity.enable(path)
    assert path.read_bytes() == data


class _Rest(io.BytesIO):
    def skip(self, count: int) -> None:
        self.seek(count)


def test_a_large_blob_that_goes_on_where_it_was_cut_off_is_kept_too(disk: Disk) -> None:
    data = ENGINE * 170  # above landing.LARGE
    digits = hash_bytes(data)
    with disk.opened() as store, store.scratch() as work:
        partial = store._layout.make(store._layout.partial) / digits
        partial.write_bytes(data[:5_000_000])
        staged = incoming.stage(store._layout, _Rest(data), digits, len(data), work / "new", lambda _: None)
        assert kept(staged.path) is not None
        assert not partial.exists()


def test_a_store_of_before_is_read_and_gains_nothing(disk: Disk) -> None:
    with disk.opened(keeps=False) as store:
        blob = disk.publish(store)
    with disk.opened() as store:
        assert disk.use(store) == FILES
        assert kept(blob) is None
        assert store.index.items("seal-verity") == {}
        publish(store, write_files(disk.home / "more", {"more": b"more"}), OTHER)
        assert kept(store._layout.blob(hash_bytes(b"more"))) is not None
