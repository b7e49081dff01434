"""Verifies the artifacts of a team store, and repairs those that the local store has whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtstore.content.read import named_blobs
from trtstore.disk.hashing import OnBytes
from trtstore.errors import Corrupt, Malformed, NotWritable, Untrusted
from trtstore.format.digest import digest_of, hex_of
from trtstore.format.record import Record
from trtstore.store import Store

if TYPE_CHECKING:  # it loads what signatures take
    from trtstore.team.team import Team


@dataclass(frozen=True)
class Problem:
    """What is wrong with an artifact of a team store, and whether that was put right."""

    key: str
    words: str
    mended: bool = False


MENDED = ": put right from the local store"


class Mender:
    """Repairs in a team store what `store` has whole, and says in words what became of it."""

    def __init__(self, team: Team, store: Store) -> None:
        self._remote, self._store = team.remote, store
        self._refused = ""  # why nothing can be written there

    def blobs(self, bad: Mapping[str, int]) -> str:
        """Of blobs, digits -> bytes. Raises Unreachable, StoreFailure."""
        left = 0
        for digits, size in bad.items():
            if self._store.blob_path(digest_of(digits)) is None:
                left += 1
                continue
            try:
                self._remote.send(self._store, {digits: size})
            except Corrupt:  # ours is damaged, too
                left += 1
            except NotWritable as trouble:
                self._refused = trouble.message
                break
        if self._refused:
            return f"; nothing can be put right: {self._refused}"
        return f"; {left} cannot be put right: the local store does not have them" if left else MENDED

    def manifest(self, record: Record) -> str:
        """Of the list of the record's files. Raises as `blobs`."""
        try:
            data = self._store.manifest(record).encode()
        except Corrupt:
            return "; it cannot be put right: the local store does not have it"
        try:
            self._remote.put_blob(hex_of(record.manifest), data)
        except NotWritable as trouble:
            return f"; it cannot be put right: {trouble.message}"
        return MENDED


def verify(
    team: Team,
    keys: Iterable[str],
    *,
    every_byte: bool,
    on_bytes: OnBytes,
    mend: Mender | None = None,
) -> Iterator[Problem]:
    """What is wrong with the artifacts of `keys`: signatures, what is missing, and with `every_byte` what is not what
    its name says. `mend` repairs what it can. Raises Unreachable, StoreFailure."""
    looked = _Looked(team, every_byte, on_bytes)
    for key in keys:
        judged = None
        try:
            judged = team.judged(key)
            if judged is None:
                raise Corrupt("there is no such record")
            wanted = needed(team, judged.record)
        except Untrusted as trouble:
            yield Problem(key, trouble.message)
            continue
        except Corrupt as trouble:
            said = "" if mend is None or judged is None else mend.manifest(judged.record)
            yield Problem(key, trouble.message + said, mended=said == MENDED)
            if judged is None or said != MENDED:
                continue
            wanted = needed(team, judged.record)
        bad, words = looked.at(wanted)
        if bad:
            said = "" if mend is None else mend.blobs(bad)
            if said == MENDED:
                looked.mended(bad)
            yield Problem(key, words + said, mended=said == MENDED)


class _Looked:
    """The blobs that were looked at: artifacts share some, and each is read once."""

    def __init__(self, team: Team, every_byte: bool, on_bytes: OnBytes) -> None:
        self._team, self._every_byte, self._on_bytes = team, every_byte, on_bytes
        self._sizes = {digits: one.size for digits, one in team.remote.listed_blobs()}
        self._whole: dict[str, bool] = {}

    def at(self, wanted: Mapping[str, int]) -> tuple[dict[str, int], str]:
        """Those of `wanted` that are lost or damaged, and words that say so."""
        lost = {digits: size for digits, size in wanted.items() if self._sizes.get(digits) != size}
        there = {digits: size for digits, size in wanted.items() if digits not in lost}
        damaged = {digits: size for digits, size in there.items() if not self._is_whole(digits, size)}
        said = (
            [f"{len(lost)} of its {len(wanted)} blobs are not there, such as {next(iter(lost))[:12]}"] if lost else []
        )
        said += [f"the blob {digits[:12]} is not what its name says" for digits in damaged]
        return lost | damaged, "; ".join(said)

    def _is_whole(self, digits: str, size: int) -> bool:
        if not self._every_byte:
            return True
        if digits not in self._whole:
            self._whole[digits] = self._team.remote.reads(digits, size, self._on_bytes)
            if not self._whole[digits]:
                self._team.suspect(digits)
        return self._whole[digits]

    def mended(self, blobs: Mapping[str, int]) -> None:
        """They are there now, as they should be."""
        self._sizes.update(blobs)
        self._whole.update(dict.fromkeys(blobs, True))


def needed(team: Team, record: Record) -> dict[str, int]:
    """Digits -> bytes of all that the record needs, except its manifest. Raises Corrupt, Unreachable, StoreFailure."""
    try:
        return named_blobs(record, team.listed(record))
    except Malformed as trouble:
        raise Corrupt(str(trouble)) from None
