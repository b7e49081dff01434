"""A team store by its URL: what that takes (a client for buckets, signatures) is loaded only when one is named."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from trtstore.deadlines import PATIENCE
from trtstore.disk.layout import Layout
from trtstore.errors import Invalid
from trtstore.format import envelope as envelopes
from trtstore.format import record as records
from trtstore.format import trust
from trtstore.format.record import Record
from trtstore.format.trust import Trusted, TrustPolicy
from trtstore.index.index import Index
from trtstore.remote.connect import checked, connect
from trtstore.remote.remote import Remote
from trtstore.remote.seen import Seen
from trtstore.store import Store
from trtstore.team import trust_list

if TYPE_CHECKING:
    from trtstore.team.gc import RetentionPolicy
    from trtstore.team.judge import Judge
    from trtstore.team.signing import Signer
    from trtstore.team.team import Team


def open_team(
    url: str,
    store: Store,
    policy: TrustPolicy,
    trusted: Iterable[str],
    on_problem: Callable[[str], None],
    patience: float = PATIENCE,
) -> Team:
    """The team store at `url`; no request is made yet. `trusted` are lines in addition to those of the user's list.
    `patience` is how many seconds each question may take.

    Raises Invalid for another URL, a malformed line, or a package that is not installed.

    >>> open_team(url, store, TrustPolicy.require, [], print).lookup("cd" * 32) is None
    True
    """
    keys = [*map(trust.parse, trusted), *trust_list.listed()]
    remote = at(url, store._layout, patience)
    team: Team = _module("trtstore.team.team", "a team store").Team(
        remote, store._layout, policy, keys, on_problem=on_problem
    )
    return team


def at(url: str, layout: Layout, patience: float = PATIENCE) -> Remote:
    """The artifacts at `url`; the store of `layout` remembers which blobs it has read. Raises Invalid."""
    return Remote(connect(url, patience), Seen(url, Index(layout.index)), patience)


def trusted_signers(envelope: bytes, record: Record, trusted: Iterable[str]) -> list[Trusted]:
    """The keys that the user trusts for such an artifact and that signed the `envelope` of `record`.

    `trusted` are lines beside those of the user's own list. Raises Invalid as `open_team`, Malformed for no envelope.

    >>> trusted_signers(store.envelope(key), record, [])
    []
    """
    envelope_read = envelopes.parse(envelope, records.MAX_BYTES, "the record")
    keys = [*map(trust.parse, trusted), *trust_list.listed()]
    if not envelope_read.signatures or not keys or records.parse(envelope, record.key) != record:
        return []
    signed: list[Trusted] = _module("trtstore.team.signing", "a signature").signed_by(envelope_read, keys)
    return [one for one in signed if one.beyond(record.labels) is None]


def judge(
    where: object,
    layout: Layout,
    policy: TrustPolicy,
    trusted: Iterable[str],
    on_problem: Callable[[str], None],
) -> Judge:
    """Who judges records that came from `where`; `trusted` as for `open_team`. Raises Invalid."""
    keys = [*map(trust.parse, trusted), *trust_list.listed()]
    judge_: Judge = _module("trtstore.team.judge", "a judgement of signatures").Judge(
        where, policy, keys, layout, on_problem
    )
    return judge_


def check_team(url: str, trusted: Iterable[str]) -> None:
    """Raises Invalid as `open_team`, for what can be seen without loading anything.

    >>> check_team("s3://bucket/team", trusted=[])
    """
    checked(url)
    for line in trusted:
        trust.parse(line)


def open_signer(name: str | None) -> Signer:
    """As `signing.signer`.

    >>> open_signer("ci").name
    'ci'
    """
    signer: Signer = _module("trtstore.team.signing", "signing").signer(name)
    return signer


def signed(data: bytes, signer: Signer) -> bytes:
    """The record in `data` with the signature of `signer` beside those that it has. Raises Malformed."""
    parsed = envelopes.parse(data, records.MAX_BYTES, "the record")
    made: bytes = _module("trtstore.team.signing", "signing").sign(parsed, signer).encode()
    return made


def new_key(name: str, passphrase: str | None) -> str:
    """As `signing.new`."""
    made: str = _module("trtstore.team.signing", "signing").new(name, passphrase)
    return made


def read_policy(team: Team) -> RetentionPolicy:
    """As `policy.read`."""
    policy: RetentionPolicy = _module("trtstore.team.policy", "a policy").read(team)
    return policy


def put_policy(team: Team, policy: RetentionPolicy, signer: Signer) -> None:
    """As `policy.put`."""
    _module("trtstore.team.policy", "a policy").put(team, policy, signer)


def _module(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Invalid(
            f"{what} needs the package {error.name}, which is not installed", "pip install 'trtbuild[team]'"
        ) from None
