"""Wheels of toolchains in a team store: an artifact whose key is the lock and the Python, signed like any other.

They are where the user's indexes need not be reached, and count for no more than what those give: whatever their record
says, the installer takes just the wheels whose sha256 the lock has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from trtbuild.toolchains import install
from trtbuild.toolchains.lock import Lock
from trtbuild.toolchains.pythons import Python
from trtstore import Expected, Record, Store

PREDICATE_TYPE = "urn:trtbuild:wheels:v1"

#: Finds the folder with the wheels of a lock for a Python; None if the team store has none.
Wheels = Callable[[Lock, Python], Path | None]


def nowhere(_lock: Lock, _python: Python) -> Path | None:
    """Wheels that are in no store."""
    return None


def key_of(lock: Lock, python: Python) -> str:
    """The key of the wheels: they depend on the lock, and on which of its wheels this Python takes."""
    fields = {"wheels": 1, "lock": lock.digest, "abi": python.abi, "machine": python.machine}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _labels(lock: Lock, python: Python) -> dict[str, str]:
    return {"step": "wheels", "toolchain": lock.title, "python": python.tag}


def expected(lock: Lock, python: Python) -> Expected:
    """The question for the wheels. Their record is not known beforehand; each wheel's sha256 is in the lock."""
    return Expected(key_of(lock, python), _labels(lock, python), None)


def publish(lock: Lock, python: Python, store: Store, say: Callable[[str], None]) -> Record:
    """The wheels of `lock` as an artifact of the local store, downloaded where they are not there.

    Raises InputError, StoreFailure.
    """
    key = key_of(lock, python)
    record = store.use(key, count=False)
    if record is not None:
        return record
    with store.scratch() as work:
        wheels = work / "wheels"
        wheels.mkdir()
        say(f"fetching the wheels of {lock.title} …")
        install.download(lock, python, wheels, work, lambda _done, _of: None)
        return store.publish(
            key,
            wheels,
            predicate_type=PREDICATE_TYPE,
            predicate={"lock": lock.digest, "abi": python.abi, "machine": python.machine},
            labels=_labels(lock, python),
        )
