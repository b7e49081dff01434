"""Whether a lock that came with a record may install what it names: a record is a stranger's word until it is signed.

What a lock installs is run. So each wheel of it is one of a toolchain that ships, or a trusted key signed the record,
or the user names the lock. An index that it names is never asked.
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
    """The lock with this digest that is the attachment `name`, or in a file that the user names.

    Raises StoreError where neither is there, InputError where it may not be used.
    """
    for allowed in conf.executor.allow_lock:
        if "/" in allowed or allowed.endswith(".txt"):
            named = lock.read(Path(allowed).expanduser(), OPTION)
            if named.digest == digest:
                return named  # the user's own file: its indexes are the user's, too
    attached = _read(store, record, name, step)
    if attached is None or attached.digest != digest:
        raise StoreError(
            f"the lock of {step}'s toolchain, {digest[:12]}, is not with the record of {record.key[:12]}"
        )
    unknown = _unknown(attached)
    if unknown and digest not in conf.executor.allow_lock and not _signed(store, record, conf.store):
        names = ", ".join(f"{pin.name} {pin.version}" for pin in unknown[:_SHOWN])
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise InputError(
            f"the record of {record.key[:12]} brings its own lock for {step}, which no trusted key signed, with "
            f"packages of no toolchain that ships: {names}{more}",
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


def _unknown(lock: Lock) -> list[PackagePin]:
    """The packages with a wheel that no toolchain of this release has under that name and version."""
    known: dict[tuple[str, str], set[str]] = {}
    for name in builtin.names():
        for pin in builtin.load(name).pins:
            known.setdefault((pin.name, pin.version), set()).update(pin.hashes)
    return [pin for pin in lock.pins if not known.get((pin.name, pin.version), set()).issuperset(pin.hashes)]


def _signed(store: Store, record: Record, conf: schema.StoreConf) -> bool:
    """Whether a key that the user trusts for such an artifact signed the record. Raises InputError."""
    try:
        return bool(trusted_signers(store.envelope(record.key), record, conf.trusted))
    except Malformed:
        return False  # another record has come in its place
    except Invalid as trouble:
        raise InputError(trouble.message, option="store.trusted", hint=trouble.hint) from None
