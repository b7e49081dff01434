"""What the team store's tests share: places whose objects can be changed behind its back, machines, writers."""

from __future__ import annotations

import os
import sys
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.store.support import FILES, KEY, publish, write_files
from tests.support import forks
from tests.support.cli import Done, Project
from trtstore import Record, Store
from trtstore.exchange.layered import Layered
from trtstore.format.trust import Trusted, TrustPolicy, parse
from trtstore.team import open, signing, trust_list
from trtstore.team.signing import Signer
from trtstore.team.team import Team

TRTSTORE = Path(sys.executable).with_name("trtstore")
CLOUDS = ("AWS_", "AZURE_", "GOOGLE_")  # how the variables begin that say who somebody is, and where
LABELS = {"model": "llama-7b", "target": "h100", "compiler": "tensorrt"}


class Server(Protocol):
    """A server whose objects can be had past the client under test."""

    def file(self, path: str, data: bytes | None = None, *, method: str = "GET") -> bytes: ...


@dataclass(frozen=True)
class Place:
    """Where a team store is, and its objects as somebody has them who goes past the client."""

    url: str
    server: Server | None = None
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


@dataclass(frozen=True)
class User:
    """Somebody with a machine of his own, the team's URL in his environment, and perhaps a key."""

    project: Project
    environment: Mapping[str, str]

    def trtbuild(self, *words: str, **more: str) -> Done:
        return self.project.trtbuild(*words, env={**self.environment, **more})

    def trtstore(self, *words: str, **more: str) -> Done:
        environment = self.project.environment({**self.environment, **more})
        return Done(*forks.run(TRTSTORE, words, self.project.root, environment, 120))

    @property
    def store(self) -> Store:
        return Store.open(self.project.store, durability="fast")


def user(folder: Path, place: Place, **more: str) -> User:
    """He has the credentials of this process, unless `more` has others."""
    folder.mkdir()
    found = {name: value for name, value in os.environ.items() if name.startswith(CLOUDS)}
    return User(
        Project(folder),
        {**found, "TRTBUILD_TEAM": place.url, trust_list.FOLDER: str(folder / "config"), **more},
    )


def believer(folder: Path, place: Place, signer: Signer, role: str = "publish,gc", **more: str) -> User:
    """As `user`, and trusts the key of CI."""
    made = user(folder, place, **more)
    assert made.trtstore("trust", "add", signer.public, "name=ci", f"role={role}").code == 0
    return made


def as_ci() -> dict[str, str]:
    """The variable that has the private key of `writer("ci")`, as CI has it."""
    return {"TRTSTORE_SIGNING_KEY": (trust_list.folder() / "keys" / "ci.pem").read_text()}


@dataclass
class Machine:
    """A store of its own and what it believes; `told` is what its user was told."""

    store: Store
    url: str
    trusted: tuple[str, ...] = ()
    policy: TrustPolicy = TrustPolicy.require
    told: list[str] = field(default_factory=list)

    def team(self) -> Team:
        """A fresh connection, as of a new process."""
        return open.open_team(self.url, self.store, self.policy, self.trusted, self.told.append)

    def patient(self, seconds: float) -> Team:
        """As `team`, for questions that may take so long."""
        return open.open_team(self.url, self.store, self.policy, self.trusted, self.told.append, seconds)

    def pull(self, key: str = KEY) -> Record | None:
        """The artifact of `key` from the team store, if it is there and believed."""
        from_there = Layered(self.store, [self.team()])
        return from_there.lookup(key, on_problem=self.told.append)


def machine(folder: Path, place: Place, *trusted: str, policy: TrustPolicy = TrustPolicy.require) -> Machine:
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
