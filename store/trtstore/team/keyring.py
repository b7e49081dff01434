"""Private keys on this machine: files that only their owner can read, or one in the environment, as in CI."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from trtstore.disk.layout import entries, read_bounded
from trtstore.errors import Invalid, as_store_failures
from trtstore.team import trust_list

PASSPHRASE = "TRTSTORE_PASSPHRASE"  # noqa: S105  # the name of a variable
PRIVATE = "TRTSTORE_SIGNING_KEY"  # the variable that holds a private key, as PEM
MAX_PEM = 1 << 16

_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")


@dataclass(frozen=True)
class KeyPair:
    """A key pair of this user: its name, and its public half as "ed25519:<base64>"."""

    name: str
    public: str


def folder() -> Path:
    """Where they are."""
    return trust_list.folder() / "keys"


def keep(name: str, pem: bytes, public: str) -> None:
    """Keep a new pair. Raises Invalid for a name that is none or is taken, NotWritable, StoreFailure."""
    if _NAME.fullmatch(name) is None:
        raise Invalid(f"{name!r} is no name for a key", "letters, digits, `.`, `_` and `-`, at most 64")
    place = folder()
    with as_store_failures(place):
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o700)
        try:
            fd = os.open(place / f"{name}.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise Invalid(f"there is a key {name} already", "choose another name: keys are not replaced") from None
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
        (place / f"{name}.pub").write_text(f"{public} name={name}\n", encoding="ascii")


def found() -> list[KeyPair]:
    """The pairs that there are, by name. Raises NotReadable, StoreFailure."""
    with as_store_failures(folder(), reading=True):
        names = [path.stem for path in entries(folder()) if path.suffix == ".pem"]
        pairs = []
        for name in names:
            text = (read_bounded(folder() / f"{name}.pub", MAX_PEM) or b"").decode("ascii", "replace")
            pairs.append(KeyPair(name, text.split()[0] if text.split() else ""))
        return pairs


def choose(name: str | None) -> tuple[bytes, str]:
    """(PEM, its name) of the key `name`, else of the environment's, else of the only one. Raises Invalid."""
    if name is None and os.environ.get(PRIVATE):
        return os.environ[PRIVATE].encode(), f"${PRIVATE}"
    names = [one.name for one in found()]
    if name is None and len(names) != 1:
        shown = f"there are {len(names)}: {', '.join(names)}" if names else "there is none"
        hint = "name one: store.key=NAME, or trtstore … --key NAME" if names else "`trtstore keys new NAME` makes one"
        raise Invalid(f"no key was named to sign with, and {shown}", f"{hint}; in CI, set {PRIVATE}")
    chosen = names[0] if name is None else name
    if chosen not in names:
        raise Invalid(f"there is no key {chosen!r} in {folder()}", f"keys: {', '.join(names) or 'none'}")
    path = folder() / f"{chosen}.pem"
    with as_store_failures(path, reading=True):
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise Invalid(f"others can read the private key {path}", f"chmod 600 {path}, and consider a new key")
        data = read_bounded(path, MAX_PEM)
    if data is None:
        raise Invalid(f"{path} is no regular file of at most {MAX_PEM} bytes")
    return data, chosen
