"""The lists of revocations in a team store: which one counts, and why what is there is not as it should be."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress

from trtstore.disk.layout import Layout
from trtstore.errors import Corrupt, Malformed, NotWritable, Untrusted
from trtstore.format.trust import Trusted
from trtstore.remote.remote import Remote
from trtstore.team import revocation_list, signing, versioned
from trtstore.team.revocation_list import RevocationList
from trtstore.team.versioned import VersionMemory

CANDIDATES = 8  # of lists that are looked at from the newest on: names may be taken by anything
MOST_TAKEN = 1000  # of such names that a signer looks through, and takes away
KEPT = 3  # versions of the list that stay
SKEW = datetime.timedelta(days=1)  # by which clocks may differ

_VERSION = re.compile(r"[0-9]{8}")
_MEND = (
    "whoever may write there may be hiding revocations, or the list was not refreshed: a key with role=revoke signs it "
    "anew, `trtstore revoke --refresh`"
)
_FIRST = (
    "whoever may write there may be hiding revocations, or none was signed yet: a key with role=revoke signs one, "
    "`trtstore revoke --refresh`"
)


class Lists:
    """Those of `remote` that one of `listers` signed; `memory` is the last one that this machine believed."""

    def __init__(self, remote: Remote, layout: Layout, listers: Sequence[Trusted]) -> None:
        self._remote, self._listers = remote, listers
        self.memory = VersionMemory(
            layout, str(remote), revocation_list.NAME, revocation_list.MAX_BYTES, revocation_list.issue_of
        )

    def newest(self) -> tuple[bytes, RevocationList] | None:
        """The newest list that counts, and its bytes."""
        return next(iter(self._found()), None)

    def current(self, unused: bool) -> tuple[bytes, RevocationList]:
        """As `newest`. Raises Untrusted where that is not as it should be; `unused` says that nothing was revoked."""
        newest = self.newest()
        if newest is None:
            raise self._missing(unused)
        listing = newest[1]
        self.memory.check(listing.issue, self._remote)
        now = datetime.datetime.now(datetime.UTC)
        if listing.expires <= now:
            raise Untrusted(
                f"the list of revocations of {self._remote} counted until {versioned.written(listing.expires)}",
                _MEND,
            )
        if versioned.moment(listing.issue.issued, revocation_list.NAME) > now + SKEW:
            raise Untrusted(
                f"the list of revocations of {self._remote} was signed on {listing.issue.issued}, which is to come",
                "set the clock of this machine",
            )
        return newest

    def _missing(self, unused: bool) -> Untrusted:
        """Why there should be a list. That somebody took it away shows only on a machine that has seen one: others
        are told of a beginning where the store is empty, and take nothing all the same."""
        seen = self.memory.seen()
        if seen is not None:
            version = revocation_list.issue_of(seen).version
            return Untrusted(
                f"{self._remote} has no list of revocations any more, and version {version} was seen before",
                _MEND,
            )
        if unused and not self._versions() and next(self._remote.listed_records(), None) is None:
            return Untrusted(
                f"{self._remote} is empty, and has no list of revocations yet",
                "sign one, with a key that has role=revoke: `trtstore revoke --refresh`",
            )
        return Untrusted(f"{self._remote} has no list of revocations that a key with role=revoke signed", _FIRST)

    def listed(self, version: int) -> tuple[bytes, RevocationList] | None:
        """The list of this number, where a key with role=revoke signed it."""
        try:
            data = self._remote.objects.read(revocation_list.name(version), revocation_list.MAX_BYTES)
            if data is None:
                return None
            envelope, listing = revocation_list.parse(data)
        except (Corrupt, Malformed):
            return None
        counts = listing.issue.version == version and signing.signed_by(envelope, self._listers)
        return (data, listing) if counts else None

    def last(self) -> tuple[RevocationList | None, list[int]]:
        """The newest list, and the numbers above it that something else than a list takes."""
        garbage: list[int] = []
        latest = next(iter(self._found(garbage)), None)
        seen = self.memory.seen()
        last = None if seen is None else revocation_list.parse(seen)[1]
        if latest is None or last is None:
            return (last if latest is None else latest[1]), garbage
        if latest[1].issue.series != last.issue.series:
            self.memory.check(latest[1].issue, self._remote)
        newest, other = (latest[1], last) if latest[1].issue.version >= last.issue.version else (last, latest[1])
        revoked_ = tuple(sorted({*newest.revoked, *other.revoked}))
        return RevocationList(newest.issue, newest.expires, revoked_), garbage

    def tidy(self, version: int, garbage: list[int]) -> None:
        """Remove old versions, and what takes the place of newer ones without being a list."""
        old = [each for each in self._versions() if each <= version - KEPT]
        with suppress(NotWritable):  # without the right to delete they stay
            for each in (*old, *(one for one in garbage if one > version)):
                self._remote.objects.delete(revocation_list.name(each))

    def _versions(self) -> list[int]:
        """The numbers that are taken, the highest first."""
        names = [one.name.rpartition("/")[2] for one in self._remote.objects.listed(revocation_list.PREFIX)]
        return sorted((int(name) for name in names if _VERSION.fullmatch(name)), reverse=True)

    def _found(self, garbage: list[int] | None = None) -> Iterable[tuple[bytes, RevocationList]]:
        """The newest lists that count, the newest first; numbers that are taken by something else go to `garbage`."""
        for version in self._versions()[: CANDIDATES if garbage is None else MOST_TAKEN]:
            document = self.listed(version)
            if document is not None:
                yield document
            elif garbage is not None:
                garbage.append(version)
