"""The toolchains that ship, in conf/toolchain: `<name>.in`, what a person pins, and its lock, `<name>.txt`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from trtbuild.errors import InputError
from trtbuild.toolchains import lock
from trtbuild.toolchains.lock import Lock

FOLDER = Path(str(files("trtbuild.conf"))) / "toolchain"


def names() -> list[str]:
    """Of all of them, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


@cache
def load(name: str) -> Lock:
    """The lock of the toolchain `name`. Raises InputError where there is none."""
    if name not in names():
        raise InputError(
            f"there is no toolchain {name!r}",
            option=name,
            hint=f"there are: {', '.join(names())}; or a lock's path",
        )
    return lock.read(FOLDER / f"{name}.txt", name)


def find(name: str) -> Lock:
    """The lock of a shipped toolchain, or (a path with `/` or `.txt`) that of a file. Raises InputError."""
    if "/" in name or name.endswith(".txt"):
        return lock.read(Path(name).expanduser(), name)
    return load(name)


def of_digest(digest: str) -> Lock | None:
    """The shipped lock with this digest, or None."""
    return next((found for name in names() if (found := load(name)).digest == digest), None)
