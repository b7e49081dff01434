"""The words of a command line about a team store: which one, whose signature counts, and which artifacts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from trtstore.cli.output import Output
from trtstore.errors import Invalid
from trtstore.format.digest import is_hex
from trtstore.format.trust import TrustPolicy
from trtstore.remote.remote import Remote
from trtstore.store import Store
from trtstore.team import admin
from trtstore.team.open import open_team
from trtstore.upkeep import query

if TYPE_CHECKING:  # it loads what signatures take
    from trtstore.team.team import Team

TEAM = "TRTSTORE_TEAM"
REFUSED = 4

#: Finds the team store's URL where no argument names one.
DefaultTeam = Callable[[], str | None]


class Teams:
    """The team store that a command line is about."""

    def __init__(self, default: DefaultTeam | None) -> None:
        self._default = default

    def url(self, args: argparse.Namespace) -> str:
        """Raises Invalid where none is named."""
        url = getattr(args, "team", None) or os.environ.get(TEAM) or (self._default() if self._default else None)
        if not url:
            raise Invalid("no team store was named", f"--team s3://bucket/prefix, or set {TEAM}")
        return str(url)

    def open(self, store: Store, args: argparse.Namespace, output: Output) -> Team:
        """The team store under the policy of `--trust`."""
        return open_team(self.url(args), store, TrustPolicy(args.trust), args.trusted, output.warn)


def looking(verb: argparse.ArgumentParser) -> None:
    """Add `--team`, for a verb that else looks at the local store."""
    verb.add_argument("--team", metavar="URL", nargs="?", const="", help=f"use the team store (default: ${TEAM})")
    add_trust_options(verb)


def add_trust_options(verb: argparse.ArgumentParser) -> None:
    """Add what says whose signature counts.

    >>> parser, add_verb = command_parser("demo", "A demonstration.", "")
    >>> add_trust_options(add_verb("ls", lambda args: 0, "List all."))
    >>> parser.parse_args(["ls", "--trust", "warn"]).trust
    'warn'
    """
    verb.add_argument(
        "--trust",
        choices=[policy.value for policy in TrustPolicy],
        default="require",
        help="signature of a record: require a trusted one, warn if there is none, or off (default: require)",
    )
    verb.add_argument(
        "--trusted",
        metavar="PUBLIC_KEY",
        action="append",
        default=[],
        help="one more trusted key, besides those of `trtstore trust ls`",
    )


def remote_keys(remote: Remote, what: list[str]) -> list[str]:
    prefixes, labels = query.split(what)
    keys = [word for word in prefixes if is_hex(word)]
    short = [word for word in prefixes if not is_hex(word)]
    everything = list(remote.keys()) if short else []
    for prefix in short:
        matching = [key for key in everything if key.startswith(prefix)]
        if len(matching) != 1 or len(prefix) < query.MIN_PREFIX:
            raise query.NotThere(f"{len(matching)} keys of {remote} begin with {prefix}", "`trtstore ls --team`")
        keys += matching
    if labels:
        keys += [row.summary.key for row in admin.rows(remote, labels, lambda _: None)]
    return list(dict.fromkeys(keys))
