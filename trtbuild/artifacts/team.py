"""The team store as one run uses it: it is asked after the local store, and gets what is built here if so configured.

If it cannot be reached, a build goes on without it and says so. What could not be shared waits in the local store for
`trtstore push --pending`.
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

from trtbuild.artifacts.notes_once import NotesOnce
from trtbuild.config import locations, schema
from trtbuild.errors import InputError, StoreError
from trtbuild.planning.plan import Plan
from trtstore import (
    Corrupt,
    Doubt,
    HeldLease,
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
#: Seconds at most that a command goes on for, once it has answered from the local store, to ask what was revoked.
AFTERWARDS = 3.0
#: Seconds after which it is told that nobody could say what was revoked.
LONG = 86_400.0
PENDING = "`trtstore push --pending` shares it later"


class TeamStore:
    """The team store that `config` names, beside our own `store`. `note` is told what a user should know."""

    def __init__(self, config: schema.StoreConf, store: Store, note: Callable[[str], None]) -> None:
        self._config = config
        self._store = store
        self._note = note
        self._refreshed = False
        self._asked = False  # in this run
        self._served: dict[str, Record] = {}
        self._expected: dict[str, Mapping[str, str]] = {}
        self._own = _OwnLease()
        self.notes = NotesOnce(note)  # of all that looks in the stores of this command

    @cached_property
    def url(self) -> str | None:
        """The URL of the team store, checked as far as that needs no library; None if none is named.

        Raises InputError.
        """
        url = locations.team(self._config.team)
        if url is not None:
            with _as_errors_of("store.team"):
                check_team(url, self._config.trusted)
        elif self._config.write:
            raise InputError("there is no team store to write to", option="store.write", hint="name it: store.team=URL")
        return url

    @cached_property
    def connection(self) -> Team | None:
        """The opened team store; None if none is named. No request is made yet. Raises InputError, StoreError."""
        if self.url is None:
            return None
        policy = TrustPolicy(self._config.trust.value)
        with _as_errors_of("store.team"):
            team = open_team(
                self.url,
                self._store,
                policy,
                self._config.trusted,
                self.notes,
                self._config.patience,
            )
        team.judge.strict = True  # all that is asked for here has labels
        team.expected.update(self._expected)
        self._expected = team.expected
        return team

    def expect(self, plan: Plan) -> None:
        """Register the labels of the plan's steps before any lookup: the scope of a signer must cover them.

        Raises InputError, StoreError.
        """
        for step in plan.steps:
            self.expect_labels(step.key, step.labels)

    def expect_labels(self, key: str, labels: Mapping[str, str] | None) -> None:
        """As `expect`, for one key; no labels if they are not known."""
        if labels is not None:
            self._expected[key] = labels

    def admits(self, key: str, doubt: Doubt) -> bool:
        """Whether the artifact `key` of the local store may be used in spite of `doubt`.

        It may if its signers are trusted for the labels that were registered, or if a user accepted it unsigned.
        """
        return doubt.unsigned or doubt.admits(self._expected.get(key, {}))

    def refresh_revocations(self, most: float | None = None) -> None:
        """Ask the team store what was revoked, unless that was done in the last minutes.

        It takes at most `most` seconds, or store.patience. If the team store does not answer, that is noted, and it is
        asked again after a few minutes. Raises InputError, StoreError.
        """
        if self.url is None or self._refreshed:
            return
        self._refreshed = True
        last = self._store.index.get("asked", self.url)
        if isinstance(last, float) and 0 <= time.time() - last < FRESH:
            return  # and a hit of the local store loads nothing of all this
        team = self.connection
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

    def served(self, record: Record) -> None:
        """Remember that the local store gave `record` before anybody was asked for revocations: see `check_served`."""
        if self.url is not None:
            self._served[record.key] = record

    def check_served(self) -> None:
        """After a command has answered from the local store: was what it gave revoked meanwhile?

        Raises StoreError where it was, InputError where the team store cannot be asked at all.
        """
        if self.url is None or not self._served:
            return
        self.refresh_revocations(AFTERWARDS)
        given, self._served = self._served, {}
        for key in given if self._asked else ():
            problems: list[str] = []
            if self._store.lookup(key, on_problem=problems.append) is None:
                raise StoreError(
                    "what was given just now must not be used: " + ("; ".join(problems) or f"{key[:12]} is gone"),
                    option="store.team",
                    hint="build it again: from now on it counts as absent here",
                )
        self._tell_age()

    def _tell_age(self) -> None:
        """Note if revocations could not be read for long: an attacker who blocks the network can hide them."""
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
        """The key that signs what is pushed. Raises InputError, StoreError."""
        with _as_errors_of("store.key"):
            return open_signer(self._config.key)

    def check_signing(self) -> None:
        """Check that what will be shared can be signed, as far as that is known without the network.

        Raises InputError, StoreError.
        """
        team = self.connection
        if team is not None and self._config.write:
            with _as_errors_of("store.write"):
                team.check_signer(self.signer)

    def check_writable(self) -> None:
        """Before a build: check that its result can be signed and written. Raises InputError, StoreError.

        Makes no request if nothing will be written, or if the team store could not be reached before.
        """
        self.check_signing()
        team = self.connection
        if team is None or not self._config.write:
            return
        with _as_errors_of("store.write"):
            try:
                if team.down is None:
                    team.remote.check_writable()
            except Unreachable as trouble:
                team.went_down(trouble)

    def signers_note(self, key: str) -> str:
        """The signers of what was fetched, as the beginning of a sentence; empty if none are known."""
        names = () if self.connection is None else self.connection.signers(key)
        return f"signed by {' and '.join(names)}, " if names else ""

    def refuse_doubt(self, key: str) -> None:
        """Raises StoreError if the team store may have `key`: it was not reached, or its record was refused."""
        team = self.connection
        trouble = None if team is None else team.refused.get(key) or team.down
        if team is None or trouble is None:
            return
        self.notes.drop(trouble.message)  # the error says it
        words = trouble.message
        if trouble is not team.down and key[:12] not in words and str(team) not in words:
            words = f"{key[:12]} of {team} is refused: {words}"
        raise StoreError(words, option="store.team", hint=trouble.hint)

    @contextmanager
    def lease(
        self,
        key: str,
        expected: Callable[[], float | None],
        look: Callable[[], Record | None],
        waiting: Callable[[str], None],
        refresh: bool,
    ) -> Iterator[LeaseOutcome[Record]]:
        """Be the only machine of the team that builds `key`, or get what another one built; see `Leases`.

        With `refresh` there is no lease and no waiting: the build repeats what is there already.
        """
        team = self.connection
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
            outer, self._own.lease = self._own.lease, outcome.held
            try:
                yield outcome
            finally:
                self._own.lease = outer

    def report_progress(self, what: str, done: int, total: int) -> None:
        """Publish how far the step is, for the machines that wait for it."""
        if self._own.lease is not None and total:
            self._own.lease.tell(f"{what}, {100 * done // total} %")

    def share(self, record: Record, held: HeldLease | None, progress: Callable[[str, int, int], None]) -> None:
        """Push what was built here. Raises StoreError if the team store refuses it; it then waits for another push."""
        team = self.connection
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
            words = f"{format_size(done.bytes)} to {team}"
            if not done.new:
                kept = (
                    f"and has what of it was damaged anew: {format_size(done.bytes)}" if done.bytes else "and keeps it"
                )
                words = f"{team} has one already, {kept}"
            self._note(f"{name:<8} shared    {words}")


class _OwnLease(threading.local):
    """The lease that this thread holds: the threads of a sweep build side by side."""

    lease: HeldLease | None = None


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


@contextmanager
def _as_errors_of(option: str) -> Iterator[None]:
    try:
        yield
    except Invalid as trouble:
        raise InputError(trouble.message, option=option, hint=trouble.hint) from None
    except StoreFailure as trouble:
        raise StoreError(trouble.message, option=option, hint=trouble.hint) from None
