"""What must not be used any more: signed revocations of digests, and the copies of them that a local store keeps.

A revocation is a DSSE envelope like a record's, of an in-toto statement about one digest, of an artifact or of a blob:

    {"_type":…,"subject":[{"name":"revoked","digest":{"sha256":"<64 hex>"}}],
     "predicateType":"urn:trtstore:revocation:v1","predicate":{"reason":"…","revokedOn":"2026-01-02T03:04:05Z"}}
"""

from __future__ import annotations

import datetime
import secrets
from dataclasses import dataclass

from trtstore import envelopes, strictjson
from trtstore.digest import ALGORITHM, hex_of, is_hex
from trtstore.envelopes import STATEMENT, Envelope
from trtstore.errors import Invalid, Malformed, translated
from trtstore.layout import Layout, entries, read_bounded

PREDICATE_TYPE = "urn:trtstore:revocation:v1"
SUBJECT = "revoked"
MAX_BYTES = 1 << 16  # of the envelope


@dataclass(frozen=True)
class Revocation:
    """The digits of what is revoked, why, and when as ISO 8601: words for people."""

    digits: str
    reason: str
    when: str

    def __str__(self) -> str:
        return f"{self.digits[:12]} was revoked on {self.when}: {self.reason}"


def statement(digest: str, reason: str) -> Envelope:
    """An unsigned revocation of "sha256:<64 hex>", of now. Raises Invalid where the reason is none."""
    try:
        envelopes.text(reason, "the reason")
        said = {
            "_type": STATEMENT,
            "subject": [{"name": SUBJECT, "digest": {ALGORITHM: hex_of(digest)}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "reason": reason,
                "revokedOn": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        }
    except Malformed as trouble:
        raise Invalid(str(trouble)) from None
    return Envelope(strictjson.canonical(said), ())


def parse(data: bytes, digits: str) -> tuple[Envelope, Revocation]:
    """The revocation in an envelope, which must be that of `digits`. Raises Malformed."""
    what = "the revocation"
    envelope = envelopes.parse(data, MAX_BYTES, what)
    said = envelopes.statement(envelope, what)
    subject = strictjson.fields(said["subject"][0], f"{what}'s subject", {"name": str, "digest": dict})
    digest = strictjson.fields(subject["digest"], "the subject's digest", {ALGORITHM: str})[ALGORITHM]
    told = strictjson.fields(said["predicate"], f"{what}'s predicate", {"reason": str, "revokedOn": str})
    if said["predicateType"] != PREDICATE_TYPE or subject["name"] != SUBJECT:
        raise Malformed("the statement is no revocation")
    if digest != digits or not is_hex(digits):
        raise Malformed(f"the revocation is of {digest[:100]!r}")
    for name in ("reason", "revokedOn"):
        envelopes.text(told[name], f"{what}'s {name}")
    return envelope, Revocation(digits, told["reason"], told["revokedOn"])


def keep(layout: Layout, digits: str, data: bytes) -> None:
    """Keep a revocation whose signature was checked. Raises NotWritable and the like."""
    with translated(layout.root):
        folder = layout.make(layout.revoked)
        temporary = folder / f".{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:
                file.write(data)
            layout.sync(temporary)
            temporary.replace(folder / digits)
        finally:
            temporary.unlink(missing_ok=True)
        layout.sync(folder)


def found(layout: Layout) -> dict[str, Revocation]:
    """The revocations that are kept, by digits; one that does not parse counts all the same.

    Raises Invalid where their folder is a link, OSError.
    """
    names = [path.name for path in entries(layout.own(layout.revoked)) if is_hex(path.name)]
    return {name: _read(layout, name) for name in names}


def of(layout: Layout, digits: str) -> Revocation | None:
    """Why `digits` must not be used, or None where nothing says so. Raises OSError."""
    try:
        (layout.revoked / digits).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _read(layout, digits)


def _read(layout: Layout, digits: str) -> Revocation:
    try:
        return parse(read_bounded(layout.revoked / digits, MAX_BYTES) or b"", digits)[1]
    except Malformed:
        return Revocation(digits, "the revocation cannot be read", "an unknown day")
