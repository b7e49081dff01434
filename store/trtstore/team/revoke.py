"""The revocations of a team store: signed and listed, and read before any artifact is taken from it.

`revoked/<digest>.<signer>` is one revocation by one signer, so that none hides another's; `revoked/<digest>` is the
first of them, for readers of earlier releases. `list_reader` has the list by which a reader sees that one is hidden.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from trtstore.deadlines import Pool
from trtstore.disk.layout import VERSION, Layout
from trtstore.errors import Corrupt, Invalid, Malformed, Unreachable, Untrusted
from trtstore.format import trust
from trtstore.format.digest import hash_bytes, hex_of
from trtstore.format.envelope import Envelope
from trtstore.format.trust import EVERYTHING, Role, Trusted, TrustPolicy, holds
from trtstore.marks import revocations
from trtstore.marks.revocations import KeptRevocation, Revocation
from trtstore.remote.remote import Remote
from trtstore.team import revocation_list, signing
from trtstore.team.list_reader import Lists
from trtstore.team.revocation_list import RevocationList
from trtstore.team.signing import Signer

REVOKED = f"{VERSION}/revoked/"
MAX_NAMES = 2 * revocation_list.MAX_DIGESTS  # of revocations in one team store
TOLD = 5  # how many revocations without effect are noted one by one
ROUNDS = 20  # attempts to be the one who signs the next version

_TAIL = re.compile(r"([0-9a-f]{64})(\.[0-9a-f]{16})?")


class Revocations:
    """The revocations in `remote` that `trusted` keys signed. Those that count are kept in the local store of `layout`.

    `stale` says why they may not be all, where a key with role=revoke is trusted and its list is not as it should be.
    """

    def __init__(
        self,
        remote: Remote,
        layout: Layout,
        policy: TrustPolicy,
        trusted: Sequence[Trusted],
        tell: Callable[[str], None],
    ) -> None:
        self._remote, self._layout, self._policy = remote, layout, policy
        self._trusted, self._tell = trusted, tell
        self._listers = [one for one in trusted if Role.revoke in one.roles]
        self._lists = Lists(remote, layout, self._listers)
        self._synced = False
        self._passed: list[str] = []  # why revocations count for nothing
        self.stale: Untrusted | None = None

    def sync(self, mending: bool = False) -> None:
        """Read them, once. Those that no trusted key signed are noted, and have no effect.

        Nor is it told that the list is not as it should be where the caller is `mending` that.
        Raises Unreachable, StoreFailure: who cannot ask what was revoked takes nothing.
        """
        if self._synced:
            return
        tails = self._tails()
        known: dict[str, set[str]] = {}
        here = set(revocations.digests(self._layout))
        for tail in tails:
            digits = tail[:64]
            if digits in here and digits not in known:
                known[digits] = {one.source for one in revocations.of_digest(self._layout, digits)}
        with Pool(8) as pool:
            unknown = [tail for tail in tails if tail not in known.get(tail[:64], ())]
            read = list(pool.map(self._one, unknown))
        revocations.keep(self._layout, [one for one in read if one is not None])
        for words in self._passed[:TOLD]:
            self._tell(words)
        if len(self._passed) > TOLD:
            self._tell(f"{len(self._passed) - TOLD} more revocations of {self._remote} are passed over")
        if self._listers and self._policy is not TrustPolicy.off:
            try:
                self._learn_list(unused=not tails)
            except Untrusted as trouble:
                self.stale = trouble
                if not mending:
                    self._tell(f"{trouble.message}; {trouble.hint}" if trouble.hint else trouble.message)
        self._synced = True

    def refuse_stale(self) -> None:
        """Raises Untrusted where revocations may be hidden, and the policy then takes nothing."""
        if self.stale is not None and self._policy is TrustPolicy.require:
            raise self.stale

    def revoke(self, digest: str, reason: str, signer: Signer, labels: Mapping[str, str] | None) -> Revocation:
        """Sign that "sha256:<64 hex>", of an artifact or a blob, must not be used, here and for all who read this.

        Raises Invalid, NotWritable, Unreachable, StoreFailure.
        """
        self.check_signer(signer, labels)
        data = signing.sign(revocations.statement(digest, reason), signer).encode()
        self._remote.check_writable()
        self.sync(mending=self.may_list(signer))
        digits = hex_of(digest)
        objects, tail = self._remote.objects, f"{digits}.{_who(signer.public)}"
        objects.create(REVOKED + digits, data)
        if not objects.create(REVOKED + tail, data):
            there = self._one(tail)
            if there is None:  # somebody squats on the name
                objects.replace(REVOKED + tail, data)
            else:
                data = there.envelope
        done = self._judge(data, tail)
        if done is None:
            raise Invalid(f"the key {signer.name} revokes nothing here", "`trtstore trust ls` shows its roles")
        revocations.keep(self._layout, [done])
        if self.may_list(signer):
            self.issue(signer, [digits])
        return done.revocation

    def standing(self, digest: str, signer: Signer, labels: Mapping[str, str] | None) -> Revocation | None:
        """What `signer` revoked before, where nothing is left for `revoke` to write; else None.

        Raises as `revoke`.
        """
        try:
            digits = hex_of(digest)
        except Malformed as trouble:
            raise Invalid(str(trouble)) from None
        self.check_signer(signer, labels)
        self.sync(mending=self.may_list(signer))
        tail = f"{digits}.{_who(signer.public)}"
        if not {digits, tail} <= set(self._tails()):
            return None
        mine = self._one(tail)
        if mine is None or (self.may_list(signer) and not self._lists_now(digits)):
            return None
        return mine.revocation

    def _lists_now(self, digits: str) -> bool:
        """Whether the list is as it should be, and has that digest."""
        newest = self._lists.newest()
        return self.stale is None and newest is not None and digits in newest[1].revoked

    def issue(self, signer: Signer, more: Iterable[str] = (), valid: float | None = None) -> RevocationList:
        """Sign the list anew, with all that is revoked and `more`, for `valid` seconds; as long as before for None.

        Nothing that another one lists meanwhile is lost: a version is created once, and the next one has what it has.
        Raises Invalid, Untrusted if the list is another one than was seen before, Unreachable, StoreFailure.
        """
        if not self.may_list(signer):
            raise Invalid(
                f"the key {signer.name} may not sign the list of revocations",
                f"trust it with role=revoke: {with_role(self._lines(signer), signer, Role.revoke)}",
            )
        self._remote.check_writable()
        self.sync(mending=True)
        objects = self._remote.objects
        for _ in range(ROUNDS):
            last, garbage = self._lists.last()
            made = revocation_list.following(last, [*more, *self._all()], valid)
            name = revocation_list.name(made.issue.version)
            data = signing.sign(made.statement(), signer).encode()
            if not objects.create(name, data):
                if self._lists.listed(made.issue.version) is not None:
                    continue  # somebody else signed that one: the next one has its digests, too
                objects.replace(name, data)
                if objects.read(name, revocation_list.MAX_BYTES) != data:
                    continue
            self._lists.memory.keep(data)
            self.stale = None
            self._lists.tidy(made.issue.version, garbage)
            if self._lists.newest() is None:
                raise Unreachable(
                    f"no reader sees the list of revocations of {self._remote}: too many of its numbers are taken "
                    "by something else",
                    f"remove what is no list below {revocation_list.PREFIX}, and sign it once more",
                )
            return made
        raise Unreachable(f"others sign the list of revocations of {self._remote} all the time", "try again")

    def copy_to(self, target: Remote) -> None:
        """Put the revocations that count, and the newest list, into another team store as they are."""
        self.sync()
        there = {one.name for one in target.objects.listed(REVOKED)}
        for tail in self._tails():
            kept = [one for one in revocations.of_digest(self._layout, tail[:64]) if one.source == tail]
            if kept and kept[0].envelope and REVOKED + tail not in there:
                target.objects.create(REVOKED + tail, kept[0].envelope)
        newest = self._lists.newest()
        if newest is not None:
            target.objects.create(revocation_list.name(newest[1].issue.version), newest[0])

    def check_signer(self, signer: Signer, labels: Mapping[str, str] | None) -> None:
        """Raises Invalid where a revocation of `signer` would count for nothing, or not for such records."""
        lines = self._lines(signer)
        scopes = [scope for one in lines if (scope := one.revokes()) is not None]
        if not scopes:
            raise Invalid(
                f"the key {signer.name} is not trusted here to revoke, so what it revokes would count for nothing",
                f"trust it with role=revoke: {with_role(lines, signer, Role.revoke)}",
            )
        if labels is not None and not any(holds(scope, labels) for scope in scopes):
            beyond = trust.beyond(scopes[0], labels)
            raise Invalid(
                f"the key {signer.name} is not trusted here for {beyond}, and may revoke what it may sign alone",
                f"to let it revoke anything: {with_role(lines, signer, Role.revoke)}",
            )

    def reach(self, signer: Signer) -> list[str]:
        """Where that is not all: for what a revocation of `signer` counts, in words."""
        lines = [one for one in self._lines(signer) if one.revokes() is not None]
        if not all(one.revokes() for one in lines):
            return []
        return [f"it counts for records with {' or '.join(one.words() for one in lines)} alone"]

    def may_list(self, signer: Signer) -> bool:
        """Whether readers here believe a list that `signer` signs."""
        return any(Role.revoke in one.roles for one in self._lines(signer))

    def _lines(self, signer: Signer) -> list[Trusted]:
        return trust.trusted_lines(signer.public, self._trusted)

    def _tails(self) -> list[str]:
        names = [one.name.rpartition("/")[2] for one in self._remote.objects.listed(REVOKED)]
        tails = [name for name in names if _TAIL.fullmatch(name)]
        if len(tails) > MAX_NAMES:
            raise Corrupt(f"{self._remote} has {len(tails)} revocations, and may have {MAX_NAMES}")
        return tails

    def _one(self, tail: str) -> KeptRevocation | None:
        """The revocation that is the object `tail`, where it counts for something."""
        data = self._remote.objects.read(REVOKED + tail, revocations.MAX_BYTES)
        return None if data is None else self._judge(data, tail)

    def _judge(self, data: bytes, tail: str) -> KeptRevocation | None:
        digits, _, who = tail.partition(".")
        by = [one for one in self._trusted if who in ("", _who(one.key))]  # a name is its signer's, or anybody's
        try:
            envelope, said = revocations.parse(data, digits)
        except Malformed as trouble:
            self._passed.append(f"a revocation of {self._remote} is passed over: {trouble}")
            return None
        signed = signing.signed_by(envelope, by)
        scopes = [scope for one in signed if (scope := one.revokes()) is not None]
        if not scopes:
            why = f"{signed[0]} may not revoke" if signed else "no trusted key signed it"
            self._passed.append(f"the revocation of {digits[:12]} in {self._remote} is passed over: {why}")
            return None
        return KeptRevocation(said, tail, tuple(scopes) if all(scopes) else (EVERYTHING,), data)

    def _learn_list(self, unused: bool) -> None:
        """Check the list, and keep its revocations. Raises Untrusted if it is not as it should be."""
        data, listing = self._lists.current(unused)
        words = f"it is on the list of revocations of {self._remote}, version {listing.issue.version}"
        revocations.keep(
            self._layout,
            [
                KeptRevocation(Revocation(digits, words, listing.issue.issued), revocation_list.NAME, (EVERYTHING,))
                for digits in listing.revoked
                if revocations.of(self._layout, digits, None) is None
            ],
        )
        self._lists.memory.keep(data)

    def _all(self) -> list[str]:
        """The digits in this store of which a revocation counts for everything."""
        digests = {tail[:64] for tail in self._tails()}
        return [digits for digits in digests if revocations.of(self._layout, digits, None) is not None]


def _who(public: str) -> str:
    """Whose name it is that a revocation has: of its signer's key."""
    return hash_bytes(trust.raw(public))[:16]


def with_role(lines: Sequence[Trusted], signer: Signer, role: Role) -> str:
    """As words of a hint, the command that gives the key of `signer` a role beside those that it has."""
    line = lines[0] if lines else Trusted(signer.public, signer.name.lstrip("$"), roles=())
    roles = tuple(each for each in Role if each in (*line.roles, role))
    return f"`trtstore trust add '{Trusted(line.key, line.name, line.scope, roles).line()}'`, wherever it must count"


def signed(envelope: Envelope, trusted: Sequence[Trusted], role: Role) -> list[Trusted]:
    """Those of `trusted` that have `role` and signed."""
    return signing.signed_by(envelope, [one for one in trusted if role in one.roles])
