"""What the team store's tests share: places whose objects can be changed behind its back, machines, writers."""

from __future__ import annotations

import urllib.error
from dataclasses import dataclass, field
from pathlib import Path

from tests.store.support import FILES, KEY, publish, write_files
from tests.support.seaweed import Seaweed
from trtstore import Record, Store, opening, signing
from trtstore.layered import Layered
from trtstore.signing import Signer
from trtstore.team import Team
from trtstore.trust import Policy, Trusted, parse

LABELS = {"model": "llama-7b", "target": "h100", "compiler": "tensorrt"}


@dataclass(frozen=True)
class Place:
    """Where a team store is, and its objects as somebody has them who goes past the client."""

    url: str
    server: Seaweed | None = None
    path: str = ""
    folder: Path | None = None

    def get(self, name: str) -> bytes:
        if self.folder is not None:
            return (self.folder / name).read_bytes()
        assert self.server is not None
        return self.server.file(f"{self.path}/{name}")

    def put(self, name: str, data: bytes) -> None:
        if self.folder is not None:
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.write_bytes(data)
        else:
            assert self.server is not None
            self.server.file(f"{self.path}/{name}", data, method="PUT")

    def remove(self, name: str) -> None:
        if self.folder is not None:
            (self.folder / name).unlink()
        else:
            assert self.server is not None
            self.server.file(f"{self.path}/{name}", method="DELETE")

    def has(self, name: str) -> bool:
        try:
            self.get(name)
        except (FileNotFoundError, urllib.error.HTTPError):
            return False
        return True


@dataclass
class Machine:
    """A store of its own and what it believes; `told` is what its user was told."""

    store: Store
    url: str
    trusted: tuple[str, ...] = ()
    policy: Policy = Policy.require
    told: list[str] = field(default_factory=list)

    def team(self) -> Team:
        """A fresh connection, as of a new process."""
        return opening.team(self.url, self.store.layout, self.policy, self.trusted, self.told.append)

    def pull(self, key: str = KEY) -> Record | None:
        """The artifact of `key` from the team's store, if it is there and believed."""
        from_there = Layered(self.store, [self.team()])
        return from_there.lookup(key, on_problem=self.told.append)


def machine(folder: Path, place: Place, *trusted: str, policy: Policy = Policy.require) -> Machine:
    return Machine(Store.open(folder, durability="fast"), place.url, trusted, policy)


def writer(name: str = "ci") -> Signer:
    """A new key pair of this test's."""
    signing.new(name, None)
    return signing.signer(name)


def make(store: Store, folder: Path, key: str = KEY, files: dict[str, bytes] | None = None, **more) -> Record:
    """Publish an artifact in `store`, from files in a new folder."""
    write_files(folder, FILES if files is None else files)
    return publish(store, folder, key, **{"labels": LABELS, **more})


def trusted(signer: Signer, scope: str = "") -> Trusted:
    return parse(f"{signer.public} {scope}")
