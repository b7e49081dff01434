"""What must not be used any more: signed revocations of digests, and the copies of them that a local store keeps.

A revocation is a DSSE envelope like a record's, of an in-toto statement about one digest, of an artifact or of a blob:

    {"_type":…,"subject":[{"name":"revoked","digest":{"sha256":"<64 hex>"}}],
     "predicateType":"urn:trtstore:revocation:v1","predicate":{"reason":"…","revokedOn":"2026-01-02T03:04:05Z"}}

It counts for the records that its signer may speak of: each copy says which these are, as it was judged when it came.
Several signers may revoke one digest; their copies lie in one file, and none hides another.
"""

from __future__ import annotations

import base64
import datetime
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trtstore.disk import locks
from trtstore.disk.layout import Layout, entries, read_bounded
from trtstore.errors import Invalid, Malformed, as_store_failures
from trtstore.format import canonical_json
from trtstore.format import envelope as envelopes
from trtstore.format.digest import ALGORITHM, hex_of, is_hex
from trtstore.format.envelope import STATEMENT, Envelope
from trtstore.format.trust import EVERYTHING, Scope, holds
from trtstore.marks import doubts
from trtstore.units import shown

PREDICATE_TYPE = "urn:trtstore:revocation:v1"
SUBJECT = "revoked"
MAX_BYTES = 1 << 16  # of the envelope
MAX_KEPT = 4 << 20  # of what a local store keeps of one digest
UNREADABLE = "?"  # the source of what cannot be read

_ALL = (EVERYTHING,)


@dataclass(frozen=True)
class Revocation:
    """The digits of what is revoked, and for people why, and when (ISO 8601)."""

    digits: str
    reason: str
    when: str

    def __str__(self) -> str:
        return f"{self.digits[:12]} was revoked on {shown(self.when)}: {shown(self.reason)}"


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
    return Envelope(canonical_json.canonical(said), ())


def parse(data: bytes, digits: str) -> tuple[Envelope, Revocation]:
    """The revocation in an envelope, which must be that of `digits`. Raises Malformed."""
    what = "the revocation"
    envelope = envelopes.parse(data, MAX_BYTES, what)
    said = envelopes.statement(envelope, what)
    subject = canonical_json.fields(said["subject"][0], f"{what}'s subject", {"name": str, "digest": dict})
    digest = canonical_json.fields(subject["digest"], "the subject's digest", {ALGORITHM: str})[ALGORITHM]
    told = canonical_json.fields(said["predicate"], f"{what}'s predicate", {"reason": str, "revokedOn": str})
    if said["predicateType"] != PREDICATE_TYPE or subject["name"] != SUBJECT:
        raise Malformed("the statement is no revocation")
    if digest != digits or not is_hex(digits):
        raise Malformed(f"the revocation is of {digest[:100]!r}")
    for name in ("reason", "revokedOn"):
        envelopes.text(told[name], f"{what}'s {name}")
    return envelope, Revocation(digits, told["reason"], told["revokedOn"])


@dataclass(frozen=True)
class KeptRevocation:
    """A revocation in a local store: `source` names where it came from, and it counts for records in `scopes`."""

    revocation: Revocation
    source: str
    scopes: tuple[Scope, ...]
    envelope: bytes = b""  # none where the digest was on a list

    def counts(self, labels: Mapping[str, str] | None) -> bool:
        """Whether it is about records with these labels, None where they are not known."""
        return any(holds(scope, labels) for scope in self.scopes)


def keep(layout: Layout, revocations: Sequence[KeptRevocation]) -> None:
    """Keep revocations that were judged, beside what is kept of their digests from elsewhere.

    Raises NotWritable, StoreFailure.
    """
    if not revocations:
        return
    with as_store_failures(layout.root):
        layout.make(layout.locks)
        folder = layout.make(layout.revoked)
        with locks.exclusive(layout.lock("revoked")):  # two that learn of one digest at once keep both
            for one in revocations:
                digits = one.revocation.digits
                others = [each for each in of_digest(layout, digits) if each.source != one.source]
                temporary = folder / f".{secrets.token_hex(8)}"
                try:
                    with temporary.open("xb") as file:
                        file.write(_encode([*others, one]))
                    if one.envelope:
                        layout.sync(temporary)  # else an empty file may be left: it counts for everything, as this does
                    temporary.replace(folder / digits)
                finally:
                    temporary.unlink(missing_ok=True)
            layout.sync(folder)


def found(layout: Layout) -> dict[str, list[KeptRevocation]]:
    """The revocations that are kept, by digits; what does not parse counts for everything.

    Raises Invalid where their folder is a link, OSError.
    """
    return {name: of_digest(layout, name) for name in digests(layout)}


def digests(layout: Layout) -> list[str]:
    """The digits of all that a revocation is kept of. Raises as `found`."""
    return [path.name for path in entries(layout.own(layout.revoked)) if is_hex(path.name)]


def of(layout: Layout, digits: str, labels: Mapping[str, str] | None) -> Revocation | None:
    """The revocation that forbids `digits` in a record with `labels`, or None. Raises OSError."""
    return next((each.revocation for each in of_digest(layout, digits) if each.counts(labels)), None)


def of_digest(layout: Layout, digits: str) -> list[KeptRevocation]:
    """All that is kept of one digest. Raises OSError."""
    place = layout.revoked / digits
    try:
        place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        data = read_bounded(place, MAX_KEPT) or b""
        return _decode(data, digits)
    except Malformed:
        return [KeptRevocation(Revocation(digits, "the revocation cannot be read", "an unknown day"), UNREADABLE, _ALL)]


def _encode(revocations: Sequence[KeptRevocation]) -> bytes:
    return canonical_json.canonical(
        {
            "schema": 1,
            "revocations": [
                {
                    "source": one.source,
                    "reason": one.revocation.reason,
                    "when": one.revocation.when,
                    "scopes": [{label: list(some) for label, some in scope.items()} for scope in one.scopes],
                    "envelope": base64.b64encode(one.envelope).decode("ascii"),
                }
                for one in revocations
            ],
        }
    )


def _decode(data: bytes, digits: str) -> list[KeptRevocation]:
    """What one file of revoked/ holds. Before there were scopes that was the envelope itself, which counts for all."""
    said = canonical_json.parse(data, "the revocation")
    if isinstance(said, dict) and "payload" in said:
        return [KeptRevocation(parse(data, digits)[1], digits, _ALL, data)]
    said = canonical_json.fields(said, "the revocation", {"schema": int, "revocations": list})
    if said["schema"] != 1 or not said["revocations"]:
        raise Malformed("the revocation is of another schema")
    kinds = {"source": str, "reason": str, "when": str, "scopes": list, "envelope": str}
    kept = []
    for one in said["revocations"]:
        told = canonical_json.fields(one, "a revocation", kinds)
        scopes = doubts.scopes(told["scopes"])
        envelope = envelopes.unbase64(told["envelope"], "a revocation")
        kept.append(KeptRevocation(Revocation(digits, told["reason"], told["when"]), told["source"], scopes, envelope))
    return kept
