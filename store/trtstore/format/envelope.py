"""DSSE envelopes of in-toto statements: parsed strictly, and written in one form.

https://github.com/secure-systems-lab/dsse/blob/master/envelope.md
"""

from __future__ import annotations

import base64
import unicodedata
from dataclasses import dataclass

from trtstore.errors import Malformed
from trtstore.format import canonical_json
from trtstore.format.canonical_json import Json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
MAX_SIGNATURES = 16
MAX_VALUE = 1024  # characters of a text for people, or of a keyid


@dataclass(frozen=True)
class Signature:
    """One signature over the payload's pre-authentication encoding: whose it claims to be, and base64."""

    keyid: str
    sig: str


@dataclass(frozen=True)
class Envelope:
    """A payload, as it was signed, and its signatures, of which none has been checked."""

    payload: bytes
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """The envelope as canonical JSON."""
        return canonical_json.canonical(
            {
                "payloadType": PAYLOAD_TYPE,
                "payload": base64.b64encode(self.payload).decode("ascii"),
                "signatures": [{"keyid": one.keyid, "sig": one.sig} for one in self.signatures],
            }
        )


def parse(data: bytes, limit: int, what: str) -> Envelope:
    """The envelope in `data`, of at most `limit` bytes; `what` names it in errors. Raises Malformed.

    Signatures are checked for their form only: whether one is wanted, and trusted, is the caller's policy.
    """
    if len(data) > limit:
        raise Malformed(f"{what} is longer than {limit} bytes")
    fields_of = canonical_json.fields(
        canonical_json.parse(data, what),
        f"{what}'s envelope",
        {"payloadType": str, "payload": str, "signatures": list},
    )
    if fields_of["payloadType"] != PAYLOAD_TYPE:
        raise Malformed(f"{what}'s payload is not of the type {PAYLOAD_TYPE}")
    return Envelope(unbase64(fields_of["payload"], what), _signatures(fields_of["signatures"], what))


def statement(envelope: Envelope, what: str) -> dict[str, Json]:
    """The in-toto statement that is the payload, with one subject. Raises Malformed."""
    said = canonical_json.fields(
        canonical_json.parse_canonical(envelope.payload, f"{what}'s statement"),
        f"{what}'s statement",
        {"_type": str, "subject": list, "predicateType": str, "predicate": dict},
    )
    if said["_type"] != STATEMENT:
        raise Malformed(f"{what}'s statement is not of the type {STATEMENT}")
    if len(said["subject"]) != 1:
        raise Malformed(f"{what}'s statement must have one subject")
    return said


def unbase64(data: str, what: str) -> bytes:
    """The bytes of standard base64 with padding, in its one spelling. Raises Malformed."""
    try:
        decoded = base64.b64decode(data, validate=True)
    except ValueError as error:  # binascii.Error is one, and so is text beyond ASCII
        raise Malformed(f"{what}'s base64 is broken: {error}") from None
    # One spelling only: the decoder lets stray bits in the last character pass.
    if base64.b64encode(decoded).decode("ascii") != data:
        raise Malformed(f"{what}'s base64 is not the canonical one")
    return decoded


def text(value: str, what: str, limit: int = MAX_VALUE) -> str:
    """`value` if it is 1 to `limit` characters that a terminal may be shown. Raises Malformed."""
    if not 1 <= len(value) <= limit or any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise Malformed(f"{what} must be 1 to {limit} characters without control characters")
    return value


def _signatures(items: list[Json], what: str) -> tuple[Signature, ...]:
    if len(items) > MAX_SIGNATURES:
        raise Malformed(f"{what} has more than {MAX_SIGNATURES} signatures")
    signatures = []
    for one in items:
        fields = canonical_json.fields(one, "a signature", {"keyid": str, "sig": str})
        text(fields["keyid"], "a signature's keyid")
        unbase64(fields["sig"], what)
        signatures.append(Signature(fields["keyid"], fields["sig"]))
    return tuple(signatures)
