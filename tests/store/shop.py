"""A small store and what is published in it, for the tests of collections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.store.support import publish, write_files
from trtstore import Record, Store
from trtstore.format.digest import hash_bytes
from trtstore.upkeep.decisions import EvictionPlan
from trtstore.upkeep.maintenance import Maintenance


def key_of(name: str) -> str:
    return hash_bytes(name.encode())


@dataclass(frozen=True)
class Shop:
    """A store, and a folder for what is published in it."""

    home: Path

    @property
    def store(self) -> Store:
        return Store.open(self.home / "store", durability="fast")

    @property
    def base(self) -> Path:
        return self.home / "store" / "v1"

    def put(self, name: str, files: Mapping[str, bytes] | None = None, **more: object) -> Record:
        """An artifact with the key of `name`; of some 1000 bytes that no other has, where no `files` are given."""
        folder = self.home / "out" / name
        for path in write_files(folder, files or {"own.bin": name.encode() * (1000 // len(name))}).rglob("run*"):
            path.chmod(0o755)
        return publish(self.store, folder, key_of(name), **more)

    def collect(self, limit: int | None = 0, grace: float = 0.0, *, dry_run: bool = False) -> EvictionPlan:
        return Maintenance(self.store).collect(limit, grace=grace, dry_run=dry_run)

    def left(self, *names: str) -> list[str]:
        return [name for name in names if self.store.lookup(key_of(name)) is not None]

    def bytes(self) -> int:
        """Those of all blobs, trees and quarantined files, each file once whatever its names."""
        found = {}
        for folder in ("blobs", "trees", "quarantine"):
            for path in (self.base / folder).rglob("*"):
                status = path.lstat()
                if not path.is_dir():
                    found[status.st_ino] = status.st_size
        return sum(found.values())

    def snapshot(self) -> dict[str, tuple[int, ...]]:
        """All that is in the store but the index, which only saves time."""
        return {
            str(path): (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
            for path in self.base.rglob("*")
            if "index" not in path.parts
            for s in [path.lstat()]
        }
