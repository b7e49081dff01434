"""What collectors of a team store go by: signed by a key with role=gc, and never older than one that was seen."""

from __future__ import annotations

import datetime
from contextlib import suppress
from typing import TYPE_CHECKING

from trtstore.disk.layout import VERSION
from trtstore.errors import Invalid, Malformed
from trtstore.format.canonical_json import Json
from trtstore.format.envelope import Envelope, parse
from trtstore.format.trust import Role, Trusted
from trtstore.team import signing, versioned
from trtstore.team.gc import RetentionPolicy
from trtstore.team.versioned import Issue, VersionMemory

if TYPE_CHECKING:
    from trtstore.team.signing import Signer
    from trtstore.team.team import Team

POLICY = f"{VERSION}/policy"
NAME = "policy"
PREDICATE_TYPE_1 = "urn:trtstore:policy:v1"  # of releases before versions
PREDICATE_TYPE = "urn:trtstore:policy:v2"
MAX_BYTES = 1 << 16


def read(team: Team) -> RetentionPolicy:
    """The policy of a team store. Raises Invalid where there is none that a key with role=gc signed, Untrusted where
    it is older than one that was seen, Unreachable, StoreFailure"""
    data = team.remote.objects.read(POLICY, MAX_BYTES)
    if data is None:
        raise Invalid(
            f"{team} has no policy",
            "a key with role=gc signs one: trtstore policy --max-size 500GB --keep 90d",
        )
    try:
        envelope, policy, issue = parsed(data)
    except Malformed as trouble:
        raise Invalid(f"the policy of {team} is refused: {trouble}") from None
    if not signing.signed_by(envelope, [one for one in team.trusted if Role.gc in one.roles]):
        signed = signing.signed_by(envelope, team.trusted)
        hint = None
        if signed:
            roles = tuple(role for role in Role if role in (*signed[0].roles, Role.gc))
            line = Trusted(signed[0].key, signed[0].name, signed[0].scope, roles).line()
            hint = f"if it may say what goes, trust it with role=gc: `trtstore trust add '{line}'`"
        why = f"{signed[0]} signed it, which has no role=gc" if signed else "no trusted key signed it"
        raise Invalid(f"the policy of {team} is refused: {why}", hint)
    memory = _memory(team)
    memory.check(issue, team)
    memory.keep(data)
    return policy


def put(team: Team, policy: RetentionPolicy, signer: Signer) -> None:
    """Sign what collectors go by, and put it there in place of what was there before, whose next version it is.

    Raises Invalid where the readers of this configuration would refuse it, NotWritable, Unreachable, StoreFailure.
    """
    team.check_signer(signer, Role.gc)
    memory, last, now = _memory(team), None, datetime.datetime.now(datetime.UTC)
    data = team.remote.objects.read(POLICY, MAX_BYTES)
    if data is not None:
        with suppress(Malformed):
            envelope, _, there = parsed(data)
            if signing.signed_by(envelope, [one for one in team.trusted if Role.gc in one.roles]):
                last = there
    seen = memory.seen()
    if seen is not None and (last is None or issue_of(seen).version >= last.version):
        last = issue_of(seen)
    issue = versioned.first(now) if last is None or not last.version else last.next(now)
    signed = signing.sign(statement(policy, issue), signer).encode()
    team.remote.objects.replace(POLICY, signed)
    memory.keep(signed)


def statement(policy: RetentionPolicy, issue: Issue | None = None) -> Envelope:
    """It, unsigned; without an issue as releases before versions wrote it."""
    said: dict[str, Json] = {"maxBytes": policy.max_bytes, "keepDays": policy.keep_days}
    if issue is None:
        return versioned.enclosed(NAME, PREDICATE_TYPE_1, said)
    said |= {"series": issue.series, "version": issue.version, "issuedOn": issue.issued}
    return versioned.enclosed(NAME, PREDICATE_TYPE, said)


def issue_of(data: bytes) -> Issue:
    """Which version of the policy is in an envelope. Raises Malformed."""
    return parsed(data)[2]


def _memory(team: Team) -> VersionMemory:
    return VersionMemory(team.layout, str(team), NAME, MAX_BYTES, issue_of)


def parsed(data: bytes) -> tuple[Envelope, RetentionPolicy, Issue]:
    """The policy in an envelope, of which no signature was checked; one without a version is 0. Raises Malformed."""
    envelope = parse(data, MAX_BYTES, "the policy")
    kind, document = versioned.opened(envelope, NAME, "the policy")
    fields = {"maxBytes", "keepDays"}
    if kind == PREDICATE_TYPE:
        fields |= {"series", "version", "issuedOn"}
    if kind not in (PREDICATE_TYPE, PREDICATE_TYPE_1) or document.keys() != fields:
        raise Malformed("the statement is no policy")
    if not all(document[name] is None or _is_count(document[name]) for name in ("maxBytes", "keepDays")):
        raise Malformed("the policy's limits are no numbers")
    issue = Issue("", 0, "") if kind == PREDICATE_TYPE_1 else versioned.parse(document, "the policy")
    return envelope, RetentionPolicy(document["maxBytes"], document["keepDays"]), issue


def _is_count(value: Json) -> bool:
    return type(value) is int and value >= 0
