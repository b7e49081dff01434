"""A toolchain's environments in the store: found, made once however many ask, and used through a Python here."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trtbuild.errors import InputError, StoreError
from trtbuild.toolchains import venv
from trtbuild.toolchains.install import install
from trtbuild.toolchains.lock import Lock
from trtbuild.toolchains.pythons import Python
from trtbuild.toolchains.team_wheels import Wheels, nowhere
from trtbuild.worker import matches
from trtstore import (
    SAMPLE,
    Environment,
    Environments,
    Holder,
    OnBytes,
    Store,
    Verify,
    as_store_failures,
    format_seconds,
    format_size,
    ignore_bytes,
    verify_environment,
)


class InstallReporter(Protocol):
    """Is told what happens while a toolchain is installed."""

    def step_started(self, name: str) -> None: ...
    def progress(self, what: str, done: int, total: int, unit: str) -> None: ...
    def note(self, words: str) -> None: ...
    def waiting(self, words: str) -> None: ...


def name_of(lock: Lock, python: Python) -> str:
    """The name of the environment. Different Pythons, machines or C libraries that share a store get different ones."""
    machine = "" if python.machine in python.abi else f"-{python.machine}"
    return f"{lock.digest}-{python.abi}{machine}"


@dataclass(frozen=True)
class ToolchainEnvironments:
    """The environments of one store. `wheels` may find those of a lock elsewhere than in the user's indexes."""

    store: Store
    watcher: InstallReporter
    wheels: Wheels = nowhere
    verify: Verify = "never"  # how often every byte is read before a use

    @property
    def environments(self) -> Environments:
        return self.store.environments

    def find(self, lock: Lock, python: Python) -> Environment | None:
        """Raises StoreFailure."""
        return self.environments.find(name_of(lock, python))

    def ensure(self, lock: Lock, python: Python, links: Path | None = None) -> Environment:
        """The environment, installed where it is not there: from the user's indexes, or from the wheels in `links`.

        Raises InputError where it cannot be installed, StoreFailure.
        """
        environment = self.find(lock, python)
        if environment is not None:
            return environment
        check(lock, python)
        name = name_of(lock, python)
        who = f"the toolchain {lock.title}, process {os.getpid()}"
        with self.environments.making(name, who=who, on_wait=self._waiting) as work:
            environment = self.find(lock, python)  # the one before may have made it
            return environment or self._make(name, lock, python, work, links)

    def _make(self, name: str, lock: Lock, python: Python, work: Path, links: Path | None) -> Environment:
        links = links or self.wheels(lock, python)
        what = f"installing the toolchain {lock.title}"
        download = lock.downloads.get((python.tag, python.machine))
        fetched = f", {format_size(download.bytes)} to fetch" if download and links is None else ""
        self.watcher.step_started(what + fetched)
        started = time.monotonic()

        def on_package(count: int, total: int) -> None:
            self.watcher.progress("packages", count, total, "packages")

        with as_store_failures(self.store.root):
            packages = install(lock, python, work / "files", work, on_package, links)
        took = time.monotonic() - started
        about = {
            "title": lock.title,
            "lock": lock.digest,
            "python": python.release,
            "packages": dict(sorted(packages.items())),
            "installer": "pip",
            "seconds": round(took, 3),
        }
        made = self.environments.keep(name, work / "files", about)
        took = time.monotonic() - started
        self.watcher.note(
            f"toolchain {lock.title}  installed  {format_seconds(took)}  {format_size(made.bytes)}  "
            f"{len(packages)} packages"
        )
        return made

    def _waiting(self, holder: Holder) -> None:
        self.watcher.waiting(f"waiting for {holder.who}, {time.time() - holder.started:.0f} s so far")

    def _check(self, environment: Environment, lock: Lock) -> None:
        always = self.verify == "always" or (self.verify == "sample" and secrets.randbelow(SAMPLE) == 0)
        stands = self.environments.check(environment, always=always)
        altered = list(stands.altered)
        if not altered and environment.about.get("lock") != lock.digest:
            altered = ["it is of another lock than its name says"]
        if stands.open:
            raise StoreError(
                f"the toolchain {lock.title} is not used: {stands.open[0]}",
                option="store.root",
                hint=f"chmod -R go-w {self.store.root}, where it is yours; then `trtbuild toolchain verify`",
            )
        if altered:
            more = f", and {len(altered) - 1} more" if len(altered) > 1 else ""
            raise StoreError(
                f"the toolchain {lock.title} in {environment.path} was altered: {altered[0]}{more}",
                option="executor",
                hint=f"trtbuild toolchain rm {environment.name[:12]}: the next use installs it anew",
            )

    @contextmanager
    def using(self, lock: Lock, python: Python, spare: Path) -> Iterator[Path]:
        """The interpreter of the environment, which stays until the end. `spare` is a folder of the caller's own.

        Raises as `ensure`, and StoreError where it is not as it was made, or another user may write to it.
        """
        while True:
            self.ensure(lock, python)
            with self.environments.using(name_of(lock, python)) as environment:
                if environment is not None:  # else it was removed in between
                    self._check(environment, lock)
                    yield venv.ensure(environment.local, environment.content, python, spare)
                    return


def altered(environment: Environment, store: Store, on_bytes: OnBytes = ignore_bytes) -> list[str]:
    """What is not as it was made, by every byte: its files, the links to Pythons, and who else may write there.

    Raises StoreFailure.
    """
    stands = store.environments.check(environment, always=True, on_bytes=on_bytes)
    wrong = [*stands.open, *(verify_environment(environment, on_bytes) if stands.open else stands.altered)]
    with as_store_failures(environment.path, reading=True):
        for place in sorted(environment.local.iterdir() if environment.local.is_dir() else ()):
            trouble = venv.trouble(place, environment.content)
            wrong += [] if trouble is None else [trouble]
    return wrong


def check(lock: Lock, python: Python) -> None:
    """Raises InputError where the lock says that it has no wheels for this Python."""
    if not lock.downloads or (python.tag, python.machine) in lock.downloads:
        return
    here = sorted(tag for tag, machine in lock.downloads if machine == python.machine)
    names = ", ".join(f"3.{tag.removeprefix('cp3')}" for tag in sorted(here, key=lambda tag: int(tag[3:])))
    if not names:
        machines = ", ".join(sorted({machine for _, machine in lock.downloads}))
        raise InputError(
            f"the toolchain {lock.title} has wheels for {machines}, and this machine is {python.machine}",
            option="executor",
            hint="a lock of your own may have more: `trtbuild toolchain lock`, then compiler.locks",
        )
    raise InputError(
        f"the toolchain {lock.title} has wheels for Python {names}, and {python.path} is {python.release}",
        option="executor.python",
        hint="name one of those: executor.python=/path/to/python3.12",
    )


def chosen(lock: Lock, python: Python) -> dict[str, str]:
    """package -> version that `lock` wants of `python`, of the packages that bytes depend on."""
    wanted = lock.wanted(python.markers)
    return {name: wanted[name].version for name in lock.chosen if name in wanted}


def holds(python: Python, lock: Lock) -> bool:
    """Whether the packages that bytes depend on are there in just the locked versions."""
    return all(matches(python.versions.get(name, ""), version) for name, version in chosen(lock, python).items())
