"""The user's list of trusted keys, a line each, and the folder that it shares with private keys."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from platformdirs import user_config_path

from trtstore.disk.layout import read_bounded
from trtstore.errors import as_store_failures
from trtstore.format.trust import Trusted, parse

FOLDER = "TRTSTORE_CONFIG"  # the variable that names the folder of keys and of the list
MAX_LIST = 1 << 20


def folder() -> Path:
    """Where the user's keys and list are: $TRTSTORE_CONFIG, else the platform's folder for configuration."""
    named = os.environ.get(FOLDER)
    return Path(named).expanduser().absolute() if named else user_config_path("trtstore")


def listed() -> list[Trusted]:
    """The keys of the user's list. Raises Invalid for a malformed line, NotReadable, StoreFailure."""
    path = folder() / "trusted"
    with as_store_failures(path, reading=True):
        data = read_bounded(path, MAX_LIST)
    lines = (data or b"").decode("utf-8", "replace").splitlines()
    return [parse(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def save(lines: Iterable[Trusted]) -> None:
    """Make `found` the user's list. Raises NotWritable, StoreFailure."""
    path = folder() / "trusted"
    with as_store_failures(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".trusted.{secrets.token_hex(8)}")
        try:
            temporary.write_text("".join(f"{one.line()}\n" for one in lines), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
