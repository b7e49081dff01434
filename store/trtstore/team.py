"""A store that a team shares: what it says is believed as far as it is signed, and nothing of it that was revoked.

Every record is judged before anything that it names is asked for: is it of this key, did a trusted key sign it, is that
key trusted for such artifacts, was the artifact revoked. What is not believed is a miss, and the user is told.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from trtstore import blobs, envelopes, records, revoked, signing, teamgc
from trtstore.access import named_blobs
from trtstore.ahead import Ahead
from trtstore.deadlines import Pool
from trtstore.digest import hex_of, is_hex
from trtstore.envelopes import Envelope
from trtstore.errors import Corrupt, Invalid, Malformed, NotReadable, StoreFailure, Unreachable, Untrusted
from trtstore.layout import VERSION, Layout
from trtstore.manifest import Manifest
from trtstore.protocols import OnProgress, Readable, Reader, ignore_progress
from trtstore.records import Record
from trtstore.remote import Pushed, Remote
from trtstore.revoked import Revocation
from trtstore.signing import Signer
from trtstore.trust import Policy, Trusted

log = logging.getLogger("trtstore")

REVOKED = f"{VERSION}/revoked/"
NO_KEY = "trust the key of who builds for you: `trtstore trust add PUBLIC_KEY`, or store.trusted in a config"


@dataclass(frozen=True)
class Judged:
    """A record that is believed: its bytes, what they say, and the trusted keys that signed it (none by policy)."""

    envelope: bytes
    record: Record
    signers: tuple[Trusted, ...]


class Team:
    """A `Reader` of `remote` under a policy; revocations that it meets are kept in the local store of `layout`.

    Once the remote was unreachable (`down`) it is not asked again: a build goes on without it, and does not wait each
    time. `refused` are the records that were there and not believed, by key. `expected` are the labels by key that who
    asks would give: a scope must hold these, too. Else a key that is trusted for one model could sign for the key of
    another, and call it by the name of its own.
    """

    def __init__(
        self,
        remote: Remote,
        layout: Layout,
        policy: Policy,
        trusted: Sequence[Trusted],
        *,
        on_problem: Callable[[str], None] = log.warning,
    ) -> None:
        self.remote = remote
        self.policy = policy
        self.trusted = tuple(trusted)
        self._layout = layout
        self._tell = on_problem
        self._believed: dict[str, Judged] = {}
        self._synced = False
        self._ahead = Ahead()
        self.expected: dict[str, Mapping[str, str]] = {}
        self.down: StoreFailure | None = None
        self.refused: dict[str, Corrupt] = {}

    def __str__(self) -> str:
        return str(self.remote)

    def lookup(self, key: str, *, on_problem: Callable[[str], None] | None = None) -> Record | None:
        """The record of `key` if it is there and believed, else None: what is wrong is told. Raises NotWritable and
        the like where a revocation cannot be kept here."""
        tell = on_problem or self._tell
        try:
            found = self.judged(key)
        except Untrusted as trouble:
            if key not in self.refused:  # said once
                tell(trouble.message + (f"; {trouble.hint}" if trouble.hint else ""))
            self.refused[key] = trouble
            return None
        except (Unreachable, NotReadable, Corrupt) as trouble:
            self.went_down(trouble)
            return None
        return None if found is None else found.record

    def went_down(self, trouble: StoreFailure) -> None:
        """It is not asked again. Told once."""
        if self.down is None:
            self.down = trouble
            self._tell(f"going on without the team's store: {trouble.message}")

    def judged(self, key: str) -> Judged | None:
        """The record of `key` and who signed it, or None where there is none. Raises Untrusted, Unreachable, …"""
        if self.down is not None:
            raise self.down
        if key not in self._believed:
            data = self.remote.find(key)
            if data is None:
                return None
            self.sync()
            self._believed[key] = self._judge(key, data)
        return self._believed[key]

    def _judge(self, key: str, data: bytes) -> Judged:
        try:
            envelope = envelopes.parse(data, records.MAX_BYTES, "the record")
            record = records.parse(data, key)
        except Malformed as trouble:
            raise Untrusted(f"{key[:12]} of {self} is refused: {trouble}") from None
        self._refuse_revoked(key, hex_of(record.manifest))
        if self.policy is Policy.off:
            return Judged(data, record, ())
        signers, why = self._signers(envelope, record)
        if signers:
            return Judged(data, record, tuple(signers))
        if self.policy is Policy.require:
            hint = None if self.trusted else NO_KEY
            raise Untrusted(f"{key[:12]} of {self} is refused: {why}", hint)
        self._tell(f"{key[:12]} of {self} is taken although {why} (store.trust=warn)")
        return Judged(data, record, ())

    def _signers(self, envelope: Envelope, record: Record) -> tuple[list[Trusted], str]:
        """Those who signed and are trusted for such a record; where there is none, why."""
        if not envelope.signatures:
            return [], "nobody signed it"
        signed = signing.signed_by(envelope, self.trusted)
        expected = self.expected.get(record.key, record.labels)
        beyond = {one.key: one.beyond(record.labels) or one.beyond(expected) for one in signed}
        inside = [one for one in signed if beyond[one.key] is None]
        if inside:
            return inside, ""
        if signed:
            return [], f"{signed[0]} signed it, and is not trusted for {beyond[signed[0].key]}"
        return [], "no trusted key signed it" if self.trusted else "no key is trusted"

    def _refuse_revoked(self, key: str, digits: str) -> None:
        revocation = revoked.of(self._layout, digits)
        if revocation is not None:
            raise Untrusted(f"{key[:12]} of {self} is refused: {revocation}", "it has to be built again")

    def sync(self) -> None:
        """Learn the revocations, once. Those that no trusted key signed are told, and count for nothing.

        Raises Unreachable and the like: who cannot ask what was revoked takes nothing.
        """
        if self._synced:
            return
        known = revoked.found(self._layout)
        names = [one.name.rpartition("/")[2] for one in self.remote.objects.listed(REVOKED)]
        with Pool(8) as pool:
            unknown = [name for name in names if is_hex(name) and name not in known]
            found = list(pool.map(self._revocation, unknown))
        for digits, data in zip(unknown, found, strict=True):
            if data is not None:
                revoked.keep(self._layout, digits, data)
        self._synced = True

    def _revocation(self, digits: str) -> bytes | None:
        data = self.remote.objects.read(REVOKED + digits, revoked.MAX_BYTES)
        if data is None:
            return None
        try:
            envelope, _ = revoked.parse(data, digits)
        except Malformed as trouble:
            self._tell(f"a revocation of {self} is passed over: {trouble}")
            return None
        if not self.signed(envelope):
            self._tell(f"the revocation of {digits[:12]} in {self} is passed over: no trusted key signed it")
            return None
        return data

    def signers(self, key: str) -> tuple[str, ...]:
        """The names of the trusted keys that signed the record of `key`, as far as it was looked up. A key may be
        trusted by several lines."""
        found = self._believed.get(key)
        return () if found is None else tuple(dict.fromkeys(map(str, found.signers)))

    def signed(self, envelope: Envelope) -> bool:
        """Whether a trusted key, for whatever it is trusted, signed it."""
        return bool(signing.signed_by(envelope, self.trusted))

    def keys(self) -> Iterator[str]:
        """The keys that have a record, sorted, believed or not. Raises Unreachable and the like."""
        return self.remote.keys()

    def envelope(self, key: str) -> bytes:
        """The very bytes that were judged. Raises Untrusted, Unreachable and the like."""
        found = self.judged(key)
        if found is None:
            raise Untrusted(f"{key} is not in {self}")
        return found.envelope

    def manifest(self, record: Record) -> Manifest:
        """As `listed`; and its small blobs that the local store lacks are asked for, side by side, as they will be."""
        found = self.listed(record)
        self._ahead.begin(
            self.remote,
            {
                digits: size
                for digits, size in named_blobs(record, found).items()
                if blobs.problem(self._layout, digits, size, mend=False) is not None
            },
        )
        return found

    def listed(self, record: Record) -> Manifest:
        """The list of the record's files, none of which was revoked. Raises Untrusted, Corrupt, Unreachable."""
        try:
            found = self.remote.manifest(record)
            named = named_blobs(record, found)
            for digits in named if self._layout.revoked.is_dir() else ():
                self._refuse_revoked(record.key, digits)
        except Malformed as trouble:
            raise Corrupt(f"{record.key[:12]} of {self} is refused: {trouble}") from None
        except Corrupt as trouble:
            self.refused[record.key] = trouble
            raise
        return found

    @contextmanager
    def open_blob(self, digest: str, size: int) -> Iterator[Readable]:
        """The bytes of "sha256:<64 hex>". Raises Corrupt, Unreachable and the like."""
        data = self._ahead.take(hex_of(digest))
        if data is not None:
            yield io.BytesIO(data)
            return
        with self.remote.open_blob(digest, size) as file:
            yield file

    def doubt(self, digits: str) -> None:
        """The blob came, and was not what its name says: who writes may put it right."""
        self.remote.seen.doubt(digits)

    def push(
        self, source: Reader, key: str, signer: Signer, on_progress: OnProgress = ignore_progress
    ) -> Pushed:
        """Sign the record of `key` in `source` and put the artifact here, the record last.

        A record that is there, believed and whole stays; another (unsigned, by a key that is trusted no more, one
        whose blobs were lost or damaged) is replaced. Raises Invalid where `source` has no such artifact, or
        the signer is not one that this reader trusts; Untrusted for what was revoked; NotWritable, Unreachable, ….
        """
        self.check_signer(signer)
        data = source.envelope(key)
        try:
            record = records.parse(data, key)
            envelope = signing.sign(envelopes.parse(data, records.MAX_BYTES, "the record"), signer).encode()
        except Malformed as trouble:
            raise Invalid(f"{key} cannot be pushed: {trouble}") from None
        self.remote.check_writable()
        self.sync()
        self._refuse_revoked(key, hex_of(record.manifest))
        self.expected.setdefault(
            key, record.labels
        )  # what is there must be signed by a key for such an artifact
        if self._is_there(key):
            return Pushed(False, 0)
        sent = self.remote.push_blobs(source, record, on_progress)
        if self.remote.put_record(key, envelope):
            new = True
        elif new := not self._is_there(key):  # else somebody else was first
            self.remote.replace_record(key, envelope)
        # A collector that decided before the record was there may have taken a blob that was not sent again.
        again = self.remote.push_blobs(source, record, on_progress) if new else 0
        return Pushed(new, sent + again)

    def _is_there(self, key: str) -> bool:
        """Whether the record of `key` is believed, and all that it names is there, every byte of it read once."""
        self._believed.pop(key, None)
        try:
            found = self.judged(key)
            if found is None:
                return False
            lost = self.remote.missing(self, found.record)
            if lost:
                count, first = len(lost), next(iter(lost))[:12]
                raise Corrupt(f"{count} blobs of {key[:12]} of {self} are lost or damaged, such as {first}")
            return True
        except (Untrusted, Corrupt) as trouble:
            self._tell(f"{trouble.message}: it is replaced")
            return False

    def check_signer(self, signer: Signer) -> None:
        """Raises Invalid where the readers of this configuration would refuse what `signer` signs."""
        if self.policy is Policy.require and signer.public not in [one.key for one in self.trusted]:
            raise Invalid(
                f"the key {signer.name} is not trusted here, so what it signs would be refused at once",
                f"`trtstore trust add '{signer.public}'`, or add it to store.trusted",
            )

    def put_policy(self, policy: Envelope, signer: Signer) -> None:
        """Sign what collectors of this store go by. Raises Invalid, NotWritable, Unreachable and the like."""
        self.check_signer(signer)
        self.remote.objects.replace(teamgc.POLICY, signing.sign(policy, signer).encode())

    def revoke(self, digest: str, reason: str, signer: Signer) -> Revocation:
        """Sign that "sha256:<64 hex>", of an artifact or a blob, must not be used, here and for all who read this.

        Raises Invalid, NotWritable, Unreachable and the like.
        """
        self.check_signer(signer)
        data = signing.sign(revoked.statement(digest, reason), signer).encode()
        digits = hex_of(digest)
        if not self.remote.objects.create(REVOKED + digits, data):
            there = self._revocation(digits)
            if there is None:  # somebody squats on the name
                self.remote.objects.replace(REVOKED + digits, data)
            else:
                data = there
        revoked.keep(self._layout, digits, data)
        return revoked.parse(data, digits)[1]
