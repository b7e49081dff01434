"""Judges a record from elsewhere: who signed it, what that key is trusted for, and what was revoked.

Records of a team store and of a bundle are judged alike, before anything that they name is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trtstore.disk.layout import Layout
from trtstore.errors import Malformed, Untrusted
from trtstore.format import envelope as envelopes
from trtstore.format import record as records
from trtstore.format.digest import hex_of
from trtstore.format.envelope import Envelope
from trtstore.format.record import Record
from trtstore.format.trust import Trusted, TrustPolicy
from trtstore.marks import revocations
from trtstore.marks.doubts import Doubt
from trtstore.team import signing

NO_KEY = "trust the key of who builds for you: `trtstore trust add PUBLIC_KEY`, or store.trusted in a config"


@dataclass(frozen=True)
class Judged:
    """A record that is believed: its bytes, what they say, and the trusted keys that signed it (none by policy)."""

    envelope: bytes
    record: Record
    signers: tuple[Trusted, ...]


class Judge:
    """Judges what comes from `where` under a policy, by the keys that are trusted and the revocations of `layout`.

    `expected` maps each key to the labels that the caller would give: a signer's scope must hold these, too. Else a key
    that is trusted for one model could sign for the key of another, and call it by the name of its own. A `strict`
    judge takes nothing on the word of a key with a scope where no labels are expected.
    """

    def __init__(
        self,
        where: object,
        policy: TrustPolicy,
        trusted: Sequence[Trusted],
        layout: Layout,
        tell: Callable[[str], None],
    ) -> None:
        self.policy = policy
        self.trusted = tuple(trusted)
        self.expected: dict[str, Mapping[str, str]] = {}
        self.strict = False
        self._where, self._layout, self._tell = where, layout, tell

    def judge(self, key: str, data: bytes) -> Judged:
        """The record of `key` in `data`. Raises Untrusted."""
        try:
            envelope = envelopes.parse(data, records.MAX_BYTES, "the record")
            record = records.parse(data, key)
        except Malformed as trouble:
            raise Untrusted(f"{key[:12]} of {self._where} is refused: {trouble}") from None
        self.refuse_revoked(record, hex_of(record.manifest))
        signers, why = self._signers(envelope, record)
        if not signers and self.policy is TrustPolicy.require:
            hint = None if self.trusted else NO_KEY
            raise Untrusted(f"{key[:12]} of {self._where} is refused: {why}", hint)
        if not signers and self.policy is TrustPolicy.warn:
            self._tell(f"{key[:12]} of {self._where} is taken although {why} (store.trust=warn)")
        return Judged(data, record, tuple(signers))

    def doubt(self, judged: Judged) -> Doubt | None:
        """What is to be remembered against an artifact that is taken all the same."""
        if not judged.signers:
            return Doubt(str(self._where))
        if not all(one.scope for one in judged.signers):
            return None
        return Doubt(str(self._where), tuple(one.scope for one in judged.signers))

    def refuse_revoked(self, record: Record, digits: str) -> None:
        """Raises Untrusted if `digits`, of the record's artifact or of one of its blobs, was revoked."""
        revocation = revocations.of(self._layout, digits, record.labels)
        if revocation is not None:
            raise Untrusted(f"{record.key[:12]} of {self._where} is refused: {revocation}", "it has to be built again")

    def _signers(self, envelope: Envelope, record: Record) -> tuple[list[Trusted], str]:
        """The signers that are trusted for such a record; if there are none, the reason."""
        if not envelope.signatures:
            return [], "nobody signed it"
        signed = signing.signed_by(envelope, self.trusted)
        beyond = [(one, self._beyond(one, record)) for one in signed]
        inside = [one for one, why in beyond if why is None]
        if inside:
            return inside, ""
        if signed:
            return [], f"{signed[0]} signed it, and is not trusted for {beyond[0][1]}"
        return [], "no trusted key signed it" if self.trusted else "no key is trusted"

    def _beyond(self, one: Trusted, record: Record) -> str | None:
        expected = self.expected.get(record.key)
        if expected is None and self.strict and one.scope:
            return "what is asked for without labels"
        return one.beyond(record.labels) or one.beyond(record.labels if expected is None else expected)
