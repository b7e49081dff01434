"""Whose word counts for what: trusted public keys, each with a scope, as one line of text; and the user's own list.

    ed25519:MCowBQ…= name=ci model=llama*,smollm2 compiler=onnxruntime

A word after the key that is not `name=` is a scope: the record's label of that name must match one of the patterns.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path

from platformdirs import user_config_path

from trtstore.errors import Invalid, translated
from trtstore.layout import read_bounded

ALGORITHM = "ed25519"
KEY_BYTES = 32
FOLDER = "TRTSTORE_CONFIG"  # the variable that names the folder of keys and of the list
MAX_LIST = 1 << 20


class Policy(Enum):
    """What a record from elsewhere needs: a trusted signature, or a word to the user where it has none, or nothing."""

    require = "require"
    warn = "warn"
    off = "off"


@dataclass(frozen=True)
class Trusted:
    """A public key as "ed25519:<base64 of 32 bytes>", a name for people, and label -> patterns that it may sign for."""

    key: str
    name: str = ""
    scope: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        """The name, else the beginning of the key."""
        return self.name or f"{self.key[:18]}…"

    def line(self) -> str:
        """What `parse` reads."""
        words = [self.key] + ([f"name={self.name}"] if self.name else [])
        return " ".join(
            [*words, *(f"{label}={','.join(some)}" for label, some in sorted(self.scope.items()))]
        )

    def beyond(self, labels: Mapping[str, str]) -> str | None:
        """Which label is not in the key's scope, in words; None where all are."""
        for label, patterns in self.scope.items():
            value = labels.get(label, "")
            if not any(fnmatchcase(value, pattern) for pattern in patterns):
                return f"{label}={value}"
        return None


def raw(key: str) -> bytes:
    """The 32 bytes of "ed25519:<base64>". Raises Invalid."""
    algorithm, _, text = key.partition(":")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if algorithm != ALGORITHM or len(data) != KEY_BYTES:
        raise Invalid(
            f"{key[:80]!r} is no public key: one is {ALGORITHM}: and 44 characters of base64",
            "`trtstore keys new NAME` prints one, and `trtstore keys ls` those that there are",
        )
    return data


def parse(line: str) -> Trusted:
    """The key and scope of one line. Raises Invalid."""
    words = line.split()
    if not words:
        raise Invalid("an empty line is no public key")
    raw(words[0])
    name, scope = "", {}
    for word in words[1:]:
        label, equals, patterns = word.partition("=")
        if not equals or not label or not all(patterns.split(",")):
            raise Invalid(
                f"{word!r} is no scope", "write label=pattern, such as model=llama* or compiler=tensorrt"
            )
        if label == "name":
            name = patterns
        else:
            scope[label] = tuple(patterns.split(","))
    return Trusted(words[0], name, scope)


def folder() -> Path:
    """Where the user's keys and list are: $TRTSTORE_CONFIG, else the platform's folder for configuration."""
    named = os.environ.get(FOLDER)
    return Path(named).expanduser().absolute() if named else user_config_path("trtstore")


def listed() -> list[Trusted]:
    """The keys of the user's own list. Raises Invalid where a line of it is none, NotReadable and the like."""
    path = folder() / "trusted"
    with translated(path, reading=True):
        data = read_bounded(path, MAX_LIST)
    lines = (data or b"").decode("utf-8", "replace").splitlines()
    return [parse(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def save(found: Iterable[Trusted]) -> None:
    """Make `found` the user's list. Raises NotWritable and the like."""
    path = folder() / "trusted"
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".trusted.{secrets.token_hex(8)}")
        try:
            temporary.write_text("".join(f"{one.line()}\n" for one in found), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
