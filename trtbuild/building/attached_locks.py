"""Decides whether a lock that is attached to a record may be installed. Unless it is signed, a record is untrusted.

Installed packages run code. So each wheel of such a lock must be in a toolchain shipped with trtbuild, or a trusted key
must have signed the record, or the user must allow the lock. The indexes that it names are never asked.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trtbuild.config import schema
from trtbuild.errors import InputError, StoreError
from trtbuild.toolchains import builtin, lock
from trtbuild.toolchains.lock import Lock, PackagePin
from trtstore import Invalid, Malformed, Record, Store, trusted_signers

OPTION = "executor.allow_lock"
MAX_BYTES = 16 << 20  # of a lock
_SHOWN = 6  # packages in an error


def find(store: Store, record: Record, name: str, step: str, digest: str, conf: schema.Config) -> Lock:
    """The lock with this digest: the attachment `name` of the record, or a file that the user names.

    Raises StoreError if there is none, InputError if it may not be used.
    """
    for allowed in conf.executor.allow_lock:
        if "/" in allowed or allowed.endswith(".txt"):
            named = lock.read(Path(allowed).expanduser(), OPTION)
            if named.digest == digest:
                return named  # with its indexes, as the file is the user's own
    attached = _read(store, record, name, step)
    if attached is None or attached.digest != digest:
        raise StoreError(f"the lock of {step}'s toolchain, {digest[:12]}, is not with the record of {record.key[:12]}")
    unknown = _unknown(attached)
    if unknown and digest not in conf.executor.allow_lock and not _signed(store, record, conf.store):
        names = ", ".join(f"{pin.name} {pin.version}" for pin in unknown[:_SHOWN])
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise InputError(
            f"the record of {record.key[:12]} brings its own lock for {step}, which no trusted key signed, with "
            f"packages that no shipped toolchain has: {names}{more}",
            option="rebuild",
            hint=f"what it installs would run here; to allow that: {OPTION}=[{digest}]",
        )
    return replace(attached, indexes=())


def _read(store: Store, record: Record, name: str, step: str) -> Lock | None:
    attached = record.attachments.get(name)
    if attached is None or attached.size > MAX_BYTES:
        return None
    with store.open_blob(attached.digest, attached.size) as file:
        text = bytes(file.read(attached.size)).decode("utf-8", errors="replace")
    return lock.parse(text, "rebuild", step, f"the lock of {step} in the record of {record.key[:12]}")


def _unknown(attached: Lock) -> list[PackagePin]:
    """The packages with a wheel that no shipped toolchain has under that name and version."""
    known: dict[tuple[str, str], set[str]] = {}
    for name in builtin.names():
        for pin in builtin.load(name).pins:
            known.setdefault((pin.name, pin.version), set()).update(pin.hashes)
    return [pin for pin in attached.pins if not known.get((pin.name, pin.version), set()).issuperset(pin.hashes)]


def _signed(store: Store, record: Record, conf: schema.StoreConf) -> bool:
    """Whether a key that the user trusts for such an artifact signed the record. Raises InputError."""
    try:
        return bool(trusted_signers(store.envelope(record.key), record, conf.trusted))
    except Malformed:
        return False  # another record was stored in its place
    except Invalid as trouble:
        raise InputError(trouble.message, option="store.trusted", hint=trouble.hint) from None
