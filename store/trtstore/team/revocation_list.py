"""The list of all that was revoked: signed, numbered and dated, so that readers see when one is kept from them.

It is `revocations/<version, eight digits>` of a team store, a DSSE envelope of an in-toto statement:

    {"_type":…,"subject":[{"name":"revocations","digest":{"sha256":"<of the predicate's canonical JSON>"}}],
     "predicateType":"urn:trtstore:revocations:v1","predicate":{"series":"<32 hex>","version":7,
     "issuedOn":"2026-01-02T03:04:05Z","expiresOn":"2026-02-01T03:04:05Z","revoked":["<64 hex>",…]}}

A version is created, and never replaced: of two who sign at once, one sees the other's and signs the next.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from trtstore.disk.layout import VERSION
from trtstore.errors import Invalid, Malformed
from trtstore.format import envelope as envelopes
from trtstore.format.digest import is_hex
from trtstore.format.envelope import Envelope
from trtstore.team import versioned
from trtstore.team.versioned import Issue

PREFIX = f"{VERSION}/revocations/"
PREDICATE_TYPE = "urn:trtstore:revocations:v1"
NAME = "revocations"
MAX_DIGESTS = 100_000
MAX_BYTES = 12 << 20  # of the envelope: 8 MiB of payload as base64, and signatures
VALID = 30 * 86_400.0  # seconds, unless the signer or the version before says otherwise

_WHAT = "the list of revocations"


@dataclass(frozen=True)
class RevocationList:
    """Which version this is, until when it counts, and the digits of all that was revoked, sorted."""

    issue: Issue
    expires: datetime.datetime
    revoked: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """For which it was signed."""
        return (self.expires - versioned.moment(self.issue.issued, _WHAT)).total_seconds()

    def statement(self) -> Envelope:
        """It, unsigned. Raises Invalid where it is too long."""
        if len(self.revoked) > MAX_DIGESTS:
            raise Invalid(
                f"{len(self.revoked)} digests are revoked, and a list holds {MAX_DIGESTS}",
                "take a new place for the team store, and push what is good there",
            )
        return versioned.enclosed(
            NAME,
            PREDICATE_TYPE,
            {
                "series": self.issue.series,
                "version": self.issue.version,
                "issuedOn": self.issue.issued,
                "expiresOn": versioned.written(self.expires),
                "revoked": list(self.revoked),
            },
        )


def following(last: RevocationList | None, revoked: Iterable[str], valid: float | None) -> RevocationList:
    """The list after `last`, with `revoked` beside what that has, which counts for `valid` seconds from now on."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    kept = VALID if last is None else last.seconds
    until = now + datetime.timedelta(seconds=max(1, kept if valid is None else valid))
    issue = versioned.first(now) if last is None else last.issue.next(now)
    return RevocationList(issue, until, tuple(sorted({*(last.revoked if last else ()), *revoked})))


def name(version: int) -> str:
    """The object that is this version."""
    return f"{PREFIX}{version:08}"


def parse(data: bytes) -> tuple[Envelope, RevocationList]:
    """The list in an envelope, of which no signature was checked. Raises Malformed."""
    envelope = envelopes.parse(data, MAX_BYTES, _WHAT)
    kind, document = versioned.opened(envelope, NAME, _WHAT)
    if kind != PREDICATE_TYPE or document.keys() != {"series", "version", "issuedOn", "expiresOn", "revoked"}:
        raise Malformed("the statement is no list of revocations")
    revoked = document["revoked"]
    if not isinstance(revoked, list) or len(revoked) > MAX_DIGESTS:
        raise Malformed(f"{_WHAT} has no list of at most {MAX_DIGESTS}")
    if not all(isinstance(one, str) and is_hex(one) for one in revoked):
        raise Malformed(f"{_WHAT} has what is no digest")
    if any(one >= another for one, another in itertools.pairwise(revoked)):
        raise Malformed(f"{_WHAT} is not sorted")
    expires = document["expiresOn"]
    if not isinstance(expires, str):
        raise Malformed(f"{_WHAT} has no last day")
    issue = versioned.parse(document, _WHAT)
    until = versioned.moment(expires, _WHAT)
    if until <= versioned.moment(issue.issued, _WHAT):
        raise Malformed(f"{_WHAT} ends before it begins")
    return envelope, RevocationList(issue, until, tuple(revoked))


def issue_of(data: bytes) -> Issue:
    """As `parse`, which version it is."""
    return parse(data)[1].issue
