"""The revocations of a team store: learnt before anything is taken from it, signed by who may, and listed.

`revoked/<digest>.<who>` is one revocation by one signer, so that nobody's hides another's; `revoked/<digest>` is the
first of them, for readers of earlier releases. `revlist` has the list by which a reader sees that one is kept from it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from trtstore import issues, revlist, revoked, signing, trust
from trtstore.deadlines import Pool
from trtstore.digest import hash_bytes, hex_of
from trtstore.envelopes import Envelope
from trtstore.errors import Corrupt, Invalid, Malformed, NotWritable, Unreachable, Untrusted
from trtstore.issues import Memory
from trtstore.layout import VERSION, Layout
from trtstore.remote import Remote
from trtstore.revlist import Listing
from trtstore.revoked import Kept, Revocation
from trtstore.signing import Signer
from trtstore.trust import EVERYTHING, Policy, Role, Trusted, holds

REVOKED = f"{VERSION}/revoked/"
MAX_NAMES = 2 * revlist.MAX_DIGESTS  # of revocations in one team store
CANDIDATES = 8  # of lists that are looked at from the newest on: names may be taken by anything
MOST_TAKEN = 1000  # of such names that a signer looks through, and takes away
TOLD = 5  # revocations that count for nothing and are told one by one
KEPT = 3  # versions of the list that stay
ROUNDS = 20  # attempts to be the one who signs the next version
SKEW = datetime.timedelta(days=1)  # by which clocks may differ

_TAIL = re.compile(r"([0-9a-f]{64})(\.[0-9a-f]{16})?")
_VERSION = re.compile(r"[0-9]{8}")
_MEND = (
    "whoever may write there may be hiding revocations, or the list was not refreshed: a key with role=revoke signs it "
    "anew, `trtstore revoke --refresh`"
)


class Revocations:
    """Those of `remote`, as far as `trusted` keys signed them; what counts is kept in the local store of `layout`.

    `stale` says why they may not be all, where a key with role=revoke is trusted and its list is not as it should be.
    """

    def __init__(
        self,
        remote: Remote,
        layout: Layout,
        policy: Policy,
        trusted: Sequence[Trusted],
        tell: Callable[[str], None],
    ) -> None:
        self._remote, self._layout, self._policy = remote, layout, policy
        self._trusted, self._tell = trusted, tell
        self._listers = [one for one in trusted if Role.revoke in one.roles]
        self._memory = Memory(layout, str(remote), revlist.NAME, revlist.MAX_BYTES, revlist.issue_of)
        self._synced = False
        self._passed: list[str] = []  # why revocations count for nothing
        self.stale: Untrusted | None = None

    def sync(self, mending: bool = False) -> None:
        """Learn them, once. Those that no trusted key signed are told, and count for nothing.

        Nor is it told that the list is not as it should be where the caller is `mending` that.
        Raises Unreachable and the like: who cannot ask what was revoked takes nothing.
        """
        if self._synced:
            return
        tails = self._tails()
        known: dict[str, set[str]] = {}
        here = set(revoked.digests(self._layout))
        for tail in tails:
            digits = tail[:64]
            if digits in here and digits not in known:
                known[digits] = {one.source for one in revoked.of_digest(self._layout, digits)}
        with Pool(8) as pool:
            unknown = [tail for tail in tails if tail not in known.get(tail[:64], ())]
            found = list(pool.map(self._one, unknown))
        revoked.keep(self._layout, [one for one in found if one is not None])
        for words in self._passed[:TOLD]:
            self._tell(words)
        if len(self._passed) > TOLD:
            self._tell(f"{len(self._passed) - TOLD} more revocations of {self._remote} are passed over")
        if self._listers and self._policy is not Policy.off:
            try:
                self._learn_list()
            except Untrusted as trouble:
                self.stale = trouble
                if not mending:
                    self._tell(f"{trouble.message}; {trouble.hint}" if trouble.hint else trouble.message)
        self._synced = True

    def refuse_stale(self) -> None:
        """Raises Untrusted where revocations may be hidden, and the policy then takes nothing."""
        if self.stale is not None and self._policy is Policy.require:
            raise self.stale

    def revoke(
        self, digest: str, reason: str, signer: Signer, labels: Mapping[str, str] | None
    ) -> Revocation:
        """Sign that "sha256:<64 hex>", of an artifact or a blob, must not be used, here and for all who read this.

        Raises Invalid, NotWritable, Unreachable and the like.
        """
        self.check_signer(signer, labels)
        data = signing.sign(revoked.statement(digest, reason), signer).encode()
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
            raise Invalid(
                f"the key {signer.name} revokes nothing here", "`trtstore trust ls` shows its roles"
            )
        revoked.keep(self._layout, [done])
        if self.may_list(signer):
            self.issue(signer, [digits])
        return done.revocation

    def issue(self, signer: Signer, more: Iterable[str] = (), valid: float | None = None) -> Listing:
        """Sign the list anew, with all that is revoked and `more`, for `valid` seconds; as long as before for None.

        Nothing that another one lists meanwhile is lost: a version is created once, and the next one has what it has.
        Raises Invalid, Untrusted where there is another list than was seen before, NotWritable, Unreachable, ….
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
            last, garbage = self._last()
            made = revlist.following(last, [*more, *self._all()], valid)
            name = revlist.name(made.issue.version)
            data = signing.sign(made.statement(), signer).encode()
            if not objects.create(name, data):
                if self._listed(made.issue.version) is not None:
                    continue  # somebody else signed that one: the next one has its digests, too
                objects.replace(name, data)
                if objects.read(name, revlist.MAX_BYTES) != data:
                    continue
            self._memory.keep(data)
            self.stale = None
            self._tidy(made.issue.version, garbage)
            if next(iter(self._lists()), None) is None:
                raise Unreachable(
                    f"no reader sees the list of revocations of {self._remote}: too many of its numbers are taken "
                    "by something else",
                    f"remove what is no list below {revlist.PREFIX}, and sign it once more",
                )
            return made
        raise Unreachable(f"others sign the list of revocations of {self._remote} all the time", "try again")

    def copy_to(self, target: Remote) -> None:
        """Put the revocations that count, and the newest list, into another team store as they are."""
        self.sync()
        there = {one.name for one in target.objects.listed(REVOKED)}
        for tail in self._tails():
            kept = [one for one in revoked.of_digest(self._layout, tail[:64]) if one.source == tail]
            if kept and kept[0].envelope and REVOKED + tail not in there:
                target.objects.create(REVOKED + tail, kept[0].envelope)
        newest = next(iter(self._lists()), None)
        if newest is not None:
            target.objects.create(revlist.name(newest[1].issue.version), newest[0])

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
        return trust.lines_of(signer.public, self._trusted)

    def _tails(self) -> list[str]:
        names = [one.name.rpartition("/")[2] for one in self._remote.objects.listed(REVOKED)]
        tails = [name for name in names if _TAIL.fullmatch(name)]
        if len(tails) > MAX_NAMES:
            raise Corrupt(f"{self._remote} has {len(tails)} revocations, and may have {MAX_NAMES}")
        return tails

    def _one(self, tail: str) -> Kept | None:
        """The revocation that is the object `tail`, where it counts for something."""
        data = self._remote.objects.read(REVOKED + tail, revoked.MAX_BYTES)
        return None if data is None else self._judge(data, tail)

    def _judge(self, data: bytes, tail: str) -> Kept | None:
        digits, _, who = tail.partition(".")
        by = [
            one for one in self._trusted if who in ("", _who(one.key))
        ]  # a name is its signer's, or anybody's
        try:
            envelope, said = revoked.parse(data, digits)
        except Malformed as trouble:
            self._passed.append(f"a revocation of {self._remote} is passed over: {trouble}")
            return None
        signed = signing.signed_by(envelope, by)
        scopes = [scope for one in signed if (scope := one.revokes()) is not None]
        if not scopes:
            why = f"{signed[0]} may not revoke" if signed else "no trusted key signed it"
            self._passed.append(f"the revocation of {digits[:12]} in {self._remote} is passed over: {why}")
            return None
        return Kept(said, tail, tuple(scopes) if all(scopes) else (EVERYTHING,), data)

    def _learn_list(self) -> None:
        """Check the list, and keep what it has. Raises Untrusted where it is not as it should be."""
        found = next(iter(self._lists()), None)
        if found is None:
            raise Untrusted(
                f"{self._remote} has no list of revocations that a key with role=revoke signed", _MEND
            )
        data, listing = found
        self._memory.check(listing.issue, self._remote)
        now = datetime.datetime.now(datetime.UTC)
        if listing.expires <= now:
            raise Untrusted(
                f"the list of revocations of {self._remote} counted until {issues.written(listing.expires)}",
                _MEND,
            )
        if issues.moment(listing.issue.issued, revlist.NAME) > now + SKEW:
            raise Untrusted(
                f"the list of revocations of {self._remote} was signed on {listing.issue.issued}, which is to come",
                "set the clock of this machine",
            )
        words = f"it is on the list of revocations of {self._remote}, version {listing.issue.version}"
        revoked.keep(
            self._layout,
            [
                Kept(Revocation(digits, words, listing.issue.issued), revlist.NAME, (EVERYTHING,))
                for digits in listing.revoked
                if revoked.of(self._layout, digits, None) is None
            ],
        )
        self._memory.keep(data)

    def _versions(self) -> list[int]:
        """The numbers that are taken, the highest first."""
        names = [one.name.rpartition("/")[2] for one in self._remote.objects.listed(revlist.PREFIX)]
        return sorted((int(name) for name in names if _VERSION.fullmatch(name)), reverse=True)

    def _lists(self, garbage: list[int] | None = None) -> Iterable[tuple[bytes, Listing]]:
        """The newest lists that count, the newest first; numbers that are taken by something else go to `garbage`."""
        for version in self._versions()[: CANDIDATES if garbage is None else MOST_TAKEN]:
            found = self._listed(version)
            if found is not None:
                yield found
            elif garbage is not None:
                garbage.append(version)

    def _listed(self, version: int) -> tuple[bytes, Listing] | None:
        """The list of this number, where a key with role=revoke signed it."""
        try:
            data = self._remote.objects.read(revlist.name(version), revlist.MAX_BYTES)
            if data is None:
                return None
            envelope, listing = revlist.parse(data)
        except (Corrupt, Malformed):
            return None
        counts = listing.issue.version == version and signing.signed_by(envelope, self._listers)
        return (data, listing) if counts else None

    def _last(self) -> tuple[Listing | None, list[int]]:
        """The list to go on from, and the numbers above it that are taken by what is no list."""
        garbage: list[int] = []
        found = next(iter(self._lists(garbage)), None)
        seen = self._memory.seen()
        last = None if seen is None else revlist.parse(seen)[1]
        if found is None or last is None:
            return (last if found is None else found[1]), garbage
        if found[1].issue.series != last.issue.series:
            self._memory.check(found[1].issue, self._remote)
        newest, other = (found[1], last) if found[1].issue.version >= last.issue.version else (last, found[1])
        revoked_ = tuple(sorted({*newest.revoked, *other.revoked}))
        return Listing(newest.issue, newest.expires, revoked_), garbage

    def _all(self) -> list[str]:
        """The digits in this store of which a revocation counts for everything."""
        found = {tail[:64] for tail in self._tails()}
        return [digits for digits in found if revoked.of(self._layout, digits, None) is not None]

    def _tidy(self, version: int, garbage: list[int]) -> None:
        """Take away old versions, and what has the place of newer ones and is no list."""
        old = [each for each in self._versions() if each <= version - KEPT]
        with suppress(NotWritable):  # who may not delete leaves them
            for each in (*old, *(one for one in garbage if one > version)):
                self._remote.objects.delete(revlist.name(each))


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
