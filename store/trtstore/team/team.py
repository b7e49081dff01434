"""A store that a team shares. It is believed as far as it is signed, and except for what was revoked.

Every record is judged before anything that it names is fetched: is it of this key, did a trusted key sign it, is that
key trusted for such artifacts, was the artifact revoked? A record that is not believed is a miss, with a note.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from trtstore.content import blobs
from trtstore.content.read import named_blobs
from trtstore.disk.layout import Layout
from trtstore.errors import (
    Corrupt,
    Invalid,
    Malformed,
    Mismatch,
    NotReadable,
    StoreFailure,
    Unreachable,
    Untrusted,
)
from trtstore.format import envelope as envelopes
from trtstore.format import record as records
from trtstore.format.digest import hex_of
from trtstore.format.manifest import Manifest
from trtstore.format.record import Record
from trtstore.format.trust import Role, Trusted, TrustPolicy, trusted_lines
from trtstore.marks.doubts import Doubt
from trtstore.marks.revocations import Revocation
from trtstore.remote.prefetch import Prefetch
from trtstore.remote.remote import Pushed, Remote
from trtstore.team import signing
from trtstore.team.judge import Judge, Judged
from trtstore.team.revoke import Revocations, with_role
from trtstore.team.signing import Signer
from trtstore.transfer.protocols import OnProgress, Readable, Reader, ignore_progress

log = logging.getLogger("trtstore")


class Team:
    """A `Reader` of `remote` under a policy; revocations that it meets are kept in the local store of `layout`.

    Once the remote was unreachable (`down`) it is not asked again: a build goes on without it, and does not wait each
    time. `refused` says, by key, why what is there was not taken. `expected` and `strict`: see `judge`.

    >>> team.push(store, key, signer).new
    True
    >>> team.lookup(key).labels["model"], team.signers(key)
    ('llama', ('ci',))
    """

    def __init__(
        self,
        remote: Remote,
        layout: Layout,
        policy: TrustPolicy,
        trusted: Sequence[Trusted],
        *,
        on_problem: Callable[[str], None] = log.warning,
    ) -> None:
        self.remote = remote
        self.policy = policy
        self.trusted = tuple(trusted)
        self.judge = Judge(remote, policy, self.trusted, layout, on_problem)
        self.expected = self.judge.expected
        self.revocations = Revocations(remote, layout, policy, self.trusted, on_problem)
        self.layout = layout
        self._tell = on_problem
        self._believed: dict[str, Judged] = {}
        self._prefetch = Prefetch()
        self.down: StoreFailure | None = None
        self.refused: dict[str, StoreFailure] = {}

    def __str__(self) -> str:
        return str(self.remote)

    def lookup(self, key: str, *, on_problem: Callable[[str], None] | None = None) -> Record | None:
        """The record of `key` if it is there and believed, else None, with a note.

        Raises NotWritable, StoreFailure if a revocation cannot be kept here.
        """
        tell = on_problem or self._tell
        try:
            judged = self.judged(key)
        except (Untrusted, Corrupt) as trouble:
            if key not in self.refused and trouble is not self.revocations.stale:  # said once
                tell(trouble.message + (f"; {trouble.hint}" if trouble.hint else ""))
            self.refused[key] = trouble
            return None
        except (Unreachable, NotReadable) as trouble:
            self.went_down(trouble)
            return None
        return None if judged is None else judged.record

    def went_down(self, trouble: StoreFailure) -> None:
        """It is not asked again. Told once."""
        if self.down is None:
            self.down = trouble
            self._tell(f"going on without the team store: {trouble.message}")

    def judged(self, key: str) -> Judged | None:
        """The record of `key` and its signers; None if there is none. Raises Untrusted, Unreachable, StoreFailure."""
        judged = self._found(key)
        if judged is not None:
            self.revocations.refuse_stale()
        return judged

    def _found(self, key: str) -> Judged | None:
        """As `judged`, by the revocations that were learnt, though there may be others."""
        if self.down is not None:
            raise self.down
        if key not in self._believed:
            data = self.remote.find(key)
            if data is None:
                return None
            self.sync()
            self._believed[key] = self.judge.judge(key, data)
        return self._believed[key]

    def sync(self) -> None:
        """Learn the revocations, once. Raises Unreachable, StoreFailure."""
        self.revocations.sync()

    def doubt(self, key: str) -> Doubt | None:
        """What is to be remembered against the artifact of `key`, which was looked up and believed."""
        judged = self._believed.get(key)
        return None if judged is None else self.judge.doubt(judged)

    def signers(self, key: str) -> tuple[str, ...]:
        """The names of the trusted keys that signed the record of `key`, as far as it was looked up. A key may be
        trusted by several lines."""
        judged = self._believed.get(key)
        return () if judged is None else tuple(dict.fromkeys(map(str, judged.signers)))

    def keys(self) -> Iterator[str]:
        """The keys that have a record, sorted, believed or not. Raises Unreachable, StoreFailure."""
        return self.remote.keys()

    def envelope(self, key: str) -> bytes:
        """The very bytes that were judged. Raises Untrusted, Unreachable, StoreFailure."""
        judged = self.judged(key)
        if judged is None:
            raise Untrusted(f"{key} is not in {self}")
        return judged.envelope

    def manifest(self, record: Record) -> Manifest:
        """As `listed`; also begins to fetch the small blobs that the local store lacks, side by side."""
        manifest = self.listed(record)
        self._prefetch.begin(
            self.remote,
            {
                digits: size
                for digits, size in named_blobs(record, manifest).items()
                if blobs.problem(self.layout, digits, size, mend=False) is not None
            },
        )
        return manifest

    def listed(self, record: Record) -> Manifest:
        """The list of the record's files, none of which was revoked. Raises Untrusted, Corrupt, Unreachable."""
        try:
            manifest = self.remote.manifest(record)
            named = named_blobs(record, manifest)
            for digits in named if self.layout.revoked.is_dir() else ():
                self.judge.refuse_revoked(record, digits)
        except Malformed as trouble:
            raise Corrupt(f"{record.key[:12]} of {self} is refused: {trouble}") from None
        return manifest

    @contextmanager
    def open_blob(self, digest: str, size: int) -> Iterator[Readable]:
        """The bytes of "sha256:<64 hex>". Raises Corrupt, Unreachable, StoreFailure."""
        data = self._prefetch.take(hex_of(digest))
        if data is not None:
            yield io.BytesIO(data)
            return
        with self.remote.open_blob(digest, size) as file:
            yield file

    def failed(self, key: str, trouble: StoreFailure) -> None:
        """The artifact of `key` is there and did not come whole: who must know a refusal from an absence finds it."""
        self.refused[key] = trouble
        if isinstance(trouble, Mismatch):
            self.suspect(trouble.digits)

    def suspect(self, digits: str) -> None:
        """The blob came with other bytes than its name says: a writer may repair it."""
        self.remote.seen.suspect(digits)

    def push(self, source: Reader, key: str, signer: Signer, on_progress: OnProgress = ignore_progress) -> Pushed:
        """Sign the record of `key` in `source` and put the artifact here, the record last.

        A record that is there, believed and whole stays; another (unsigned, by a key that is trusted no more, one
        whose blobs were lost or damaged) is replaced. Raises Invalid where `source` has no such artifact, or the
        signer is not trusted here with it; Untrusted for what was revoked, or came to `source` on less than the word
        of a key that is trusted for everything; NotWritable, Unreachable, StoreFailure.
        """
        self.check_signer(signer)
        data = sound_envelope(source, key, trusted_lines(signer.public, self.trusted))
        try:
            record = records.parse(data, key)
            envelope = signing.sign(envelopes.parse(data, records.MAX_BYTES, "the record"), signer).encode()
        except Malformed as trouble:
            raise Invalid(f"{key} cannot be pushed: {trouble}") from None
        self.check_signer(signer, labels=record.labels)
        self.remote.check_writable()
        self.sync()
        self.judge.refuse_revoked(record, hex_of(record.manifest))
        # What is there must be signed by a key for such an artifact.
        self.expected.setdefault(key, record.labels)
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
        """Whether the record of `key` is believed, and all its blobs are there; every byte is read once."""
        self._believed.pop(key, None)
        try:
            judged = self._found(key)
            if judged is None:
                return False
            lost = self.remote.missing(self, judged.record)
            if lost:
                count, first = len(lost), next(iter(lost))[:12]
                raise Corrupt(f"{count} blobs of {key[:12]} of {self} are lost or damaged, such as {first}")
            return True
        except (Untrusted, Corrupt) as trouble:
            self._tell(f"{trouble.message}: it is replaced")
            return False

    def check_signer(self, signer: Signer, role: Role = Role.publish, labels: Mapping[str, str] | None = None) -> None:
        """Raises Invalid where the readers of this configuration would refuse what `signer` signs as `role`: a record,
        with `labels` where these are known, a revocation, or the policy."""
        lines = trusted_lines(signer.public, self.trusted)
        if role is Role.revoke:
            self.revocations.check_signer(signer, labels)
        elif role is Role.gc and not any(role in one.roles for one in lines):
            raise Invalid(
                f"the key {signer.name} may not sign what collectors go by",
                f"trust it with role=gc: {with_role(lines, signer, role)}",
            )
        elif role is Role.publish and self.policy is TrustPolicy.require:
            if not lines:
                raise Invalid(
                    f"the key {signer.name} is not trusted here, so what it signs would be refused at once",
                    f"`trtstore trust add '{signer.public}'`, or add it to store.trusted",
                )
            _refuse_beyond(lines, signer, labels)

    def revoke(self, digest: str, reason: str, signer: Signer, labels: Mapping[str, str] | None = None) -> Revocation:
        """As `Revocations.revoke`; `labels` are those of the artifact, where they are known."""
        return self.revocations.revoke(digest, reason, signer, labels)


def sound_envelope(source: Reader, key: str, lines: Sequence[Trusted]) -> bytes:
    """The record of `key` in `source`, if the key that is trusted by `lines` may sign it. Raises Untrusted where it
    came there on less than the word of such a key."""
    while True:
        data = source.envelope(key)
        doubt = source.doubt(key)
        if doubt is not None and not doubt.lets_sign(lines):
            raise Untrusted(
                f"{key[:12]} {doubt}: it is not signed here",
                "build it again, or push it from where it was built; `trtstore mirror` keeps signatures",
            )
        if source.envelope(key) == data:  # else another one came between the two looks
            return data


def _refuse_beyond(lines: Sequence[Trusted], signer: Signer, labels: Mapping[str, str] | None) -> None:
    if labels is None:
        why = [None if Role.publish in one.roles else one.beyond({}) for one in lines]
    else:
        why = [one.beyond(labels) for one in lines]
    if all(why):
        raise Invalid(
            f"the key {signer.name} is not trusted here for {why[0]}, so what it signs would be refused at once",
            "another key may sign it (--key NAME), or this one has to be trusted with more (`trtstore trust add`)",
        )
