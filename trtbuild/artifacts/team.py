"""The team's store as one run uses it: asked after our own, given what is built where that was wanted.

Where it cannot be reached a build goes on without it, and says so; what it should have been given waits in our store
for `trtstore push --pending`.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from getpass import getuser
from typing import TYPE_CHECKING

from trtbuild.artifacts.once import Once
from trtbuild.config import locations, schema
from trtbuild.errors import InputError, StoreError
from trtstore import (
    Corrupt,
    Doubt,
    Held,
    Invalid,
    LeaseOutcome,
    Leases,
    NotReadable,
    Record,
    Store,
    StoreFailure,
    TrustPolicy,
    Unreachable,
    check_team,
    deadline,
    format_size,
    format_span,
    open_signer,
    open_team,
    trusted_lines,
)

if TYPE_CHECKING:
    from trtstore import Signer, Team

#: Seconds for which a store that asked what was revoked need not ask again.
FRESH = 300.0
#: Seconds at most that a command goes on for, once it has answered from our own store, to ask what was revoked.
AFTERWARDS = 3.0
#: Seconds after which it is told that nobody could say what was revoked.
LONG = 86_400.0
PENDING = "`trtstore push --pending` shares it later"


class Sharing:
    """What `config` says of the team's store, beside our own `store`. `note` is told what a user should know."""

    def __init__(self, config: schema.StoreConf, store: Store, note: Callable[[str], None]) -> None:
        self._config = config
        self._store = store
        self._note = note
        self._learned = False
        self._asked = False  # in this run
        self._given: dict[str, Record] = {}
        self._expected: dict[str, Mapping[str, str]] = {}
        self._mine = _Mine()
        self.once = Once(note)  # of all that looks in the stores of this command

    @cached_property
    def url(self) -> str | None:
        """Of the team's store, as far as that can be checked without loading anything; None where none is named.

        Raises InputError.
        """
        url = locations.team(self._config.team)
        if url is not None:
            with _told("store.team"):
                check_team(url, self._config.trusted)
        elif self._config.write:
            raise InputError(
                "there is no team store to write to", option="store.write", hint="name it: store.team=URL"
            )
        return url

    @cached_property
    def team(self) -> Team | None:
        """The team's store; None where none is named. Asks nothing of it. Raises InputError, StoreError."""
        if self.url is None:
            return None
        policy = TrustPolicy(self._config.trust.value)
        with _told("store.team"):
            found = open_team(
                self.url,
                self._store,
                policy,
                self._config.trusted,
                self.once,
                self._config.patience,
            )
        found.judge.strict = True  # all that is asked for here has labels
        found.expected.update(self._expected)
        self._expected = found.expected
        return found

    def expect(self, labels: Mapping[str, Mapping[str, str]]) -> None:
        """Labels by key of what will be asked for, which the scopes of trusted keys are held to."""
        self._expected.update(labels)

    def admits(self, key: str, doubt: Doubt) -> bool:
        """Whether our own store's `key`, of which `doubt` is known, may be used: those who signed it are trusted for
        what is asked for, or a user took it unsigned."""
        return doubt.unsigned or doubt.admits(self._expected.get(key, {}))

    def learn(self, most: float | None = None) -> None:
        """Ask what was revoked, if that is not known of the last minutes: what is here may be refused by now.

        It takes `most` seconds at most, or store.patience. A team's store that does not answer is told, and asked
        again after as long. Raises InputError, StoreError.
        """
        if self.url is None or self._learned:
            return
        self._learned = True
        asked = self._store.index.get("asked", self.url)
        if isinstance(asked, float) and 0 <= time.time() - asked < FRESH:
            return  # and a hit of our own store loads nothing of all this
        team = self.team
        if team is None or team.down is not None:
            return
        self._asked = True
        try:
            with deadline(self._config.patience if most is None else min(most, self._config.patience)):
                team.sync()
        except (Unreachable, Corrupt, NotReadable) as trouble:
            team.went_down(trouble)
        else:
            self._store.index.put("learnt", self.url, time.time())
        self._store.index.put("asked", self.url, time.time())

    def gave(self, record: Record) -> None:
        """Our own store had it, and nobody was asked whether it was revoked: see `afterwards`."""
        if self.url is not None:
            self._given[record.key] = record

    def afterwards(self) -> None:
        """Once a command has answered from our own store: was what it gave revoked meanwhile?

        Raises StoreError where it was, InputError where the team's store cannot be asked at all.
        """
        if self.url is None or not self._given:
            return
        self.learn(AFTERWARDS)
        given, self._given = self._given, {}
        for key in given if self._asked else ():
            said: list[str] = []
            if self._store.lookup(key, on_problem=said.append) is None:
                raise StoreError(
                    "what was given just now must not be used: " + ("; ".join(said) or f"{key[:12]} is gone"),
                    option="store.team",
                    hint="build it again: from now on it counts as absent here",
                )
        self._tell_age()

    def _tell_age(self) -> None:
        """Where nobody could say for long what was revoked: whoever keeps the network from us may hide it."""
        index = self._store.index
        learnt = index.get("learnt", str(self.url))
        if not isinstance(learnt, float):
            index.put("learnt", str(self.url), time.time())  # from now on it is counted
            return
        age = time.time() - learnt
        if age > LONG:
            self._note(f"for {format_span(age)} {self.url} could not be asked what was revoked")

    @cached_property
    def signer(self) -> Signer:
        """Who signs what is pushed. Raises InputError, StoreError."""
        with _told("store.key"):
            return open_signer(self._config.key)

    def may_sign(self) -> None:
        """Whether what is to be shared can be signed, as far as that is known without a network.

        Raises InputError, StoreError.
        """
        team = self.team
        if team is not None and self._config.write:
            with _told("store.write"):
                team.check_signer(self.signer)

    def ready(self) -> None:
        """Before a build whose result is to be shared: may this one write, and sign? Raises InputError, StoreError.

        Nothing is asked where nothing is to be written, or the team's store was not reached before.
        """
        self.may_sign()
        team = self.team
        if team is None or not self._config.write:
            return
        with _told("store.write"):
            try:
                if team.down is None:
                    team.remote.check_writable()
            except Unreachable as trouble:
                team.went_down(trouble)

    def signed(self, key: str) -> str:
        """Who signed what was fetched, as words before others."""
        names = () if self.team is None else self.team.signers(key)
        return f"signed by {' and '.join(names)}, " if names else ""

    def refuse_doubt(self, key: str) -> None:
        """Raises StoreError where the team may have `key` after all: it was not reached, or is not believed."""
        team = self.team
        trouble = None if team is None else team.refused.get(key) or team.down
        if team is None or trouble is None:
            return
        self.once.drop(trouble.message)  # the error says it
        words = trouble.message
        if trouble is not team.down and key[:12] not in words and str(team) not in words:
            words = f"{key[:12]} of {team} is refused: {words}"
        raise StoreError(words, option="store.team", hint=trouble.hint)

    @contextmanager
    def alone(
        self,
        key: str,
        expected: Callable[[], float | None],
        look: Callable[[], Record | None],
        waiting: Callable[[str], None],
        refresh: bool,
    ) -> Iterator[LeaseOutcome[Record]]:
        """Be the only machine of the team that builds `key`, or have what another one built; see `leases`.

        With `refresh` nobody is waited for: it builds again what is there.
        """
        team = self.team
        if team is None or team.down is not None or refresh:
            yield LeaseOutcome(None, None)
            return
        leases = Leases(
            team.remote.objects,
            owner=f"{_user()}, process {os.getpid()}",
            host=socket.gethostname(),
            heartbeat=self._config.heartbeat,
            patience=self._config.patience,
            write=self._config.write,
            on_problem=self._note,
        )
        with leases.hold(
            key, expected=expected, look=look, on_wait=lambda state: waiting(f"waiting for {state.words()}")
        ) as outcome:
            outer, self._mine.held = self._mine.held, outcome.held
            try:
                yield outcome
            finally:
                self._mine.held = outer

    def tell(self, what: str, done: int, total: int) -> None:
        """How far the step is that is being made, for those who wait for it."""
        if self._mine.held is not None and total:
            self._mine.held.tell(f"{what}, {100 * done // total} %")

    def share(self, record: Record, held: Held | None, progress: Callable[[str, int, int], None]) -> None:
        """Give the team what was built here. Raises StoreError where it refuses; what is here stays, and waits."""
        team = self.team
        if team is None or not self._config.write:
            return
        name = record.labels.get("step", record.key[:12])
        doubt = self._store.doubt(record.key)
        if doubt is not None and not doubt.lets_sign(trusted_lines(self.signer.public, team.trusted)):
            self._note(f"{name}: not shared: it {doubt}, and {self.signer.name} does not sign it")
            return
        if held is not None and held.lost:
            self._note(f"{name}: another machine took over meanwhile; what the team has first, it keeps")
        try:
            if team.down is not None:
                raise team.down
            done = team.push(
                self._store,
                record.key,
                self.signer,
                lambda done, whole: progress(f"push {name}", done, whole),
            )
        except Unreachable as trouble:
            self._store.pending.add(record.key)
            self._note(f"{name}: not shared, {trouble.message}; {PENDING}")
        except StoreFailure as trouble:
            self._store.pending.add(record.key)
            raise StoreError(
                f"{name} was built and is kept here, and cannot be shared: {trouble.message}",
                option="store.write",
                hint="; ".join(filter(None, (trouble.hint, PENDING))),
            ) from None
        else:
            self._store.pending.remove(record.key)
            said = f"{format_size(done.bytes)} to {team}"
            if not done.new:
                kept = (
                    f"and has what of it was damaged anew: {format_size(done.bytes)}"
                    if done.bytes
                    else "and keeps it"
                )
                said = f"{team} has one already, {kept}"
            self._note(f"{name:<8} shared    {said}")


class _Mine(threading.local):
    """The lease that this thread holds: those of a sweep build side by side."""

    held: Held | None = None


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


@contextmanager
def _told(option: str) -> Iterator[None]:
    try:
        yield
    except Invalid as trouble:
        raise InputError(trouble.message, option=option, hint=trouble.hint) from None
    except StoreFailure as trouble:
        raise StoreError(trouble.message, option=option, hint=trouble.hint) from None
