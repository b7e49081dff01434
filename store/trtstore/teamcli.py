"""The verbs of `trtstore` about a store that a team shares: keys and trust, push and pull, revoke, mirror."""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from trtstore import keyring, opening, pending, query, revoked, show, teamwork, trust
from trtstore.arguments import AddVerb
from trtstore.digest import digest_of, is_hex
from trtstore.errors import Corrupt, Invalid, StoreFailure, translated
from trtstore.layered import Layered
from trtstore.objects import connect
from trtstore.output import Output
from trtstore.progress import Progress
from trtstore.remote import Remote
from trtstore.store import Store
from trtstore.trust import Policy
from trtstore.upkeep import Upkeep
from trtstore.words import size

if TYPE_CHECKING:
    from trtstore.team import Team

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
        found = (
            getattr(args, "team", None)
            or os.environ.get(TEAM)
            or (self._default() if self._default else None)
        )
        if not found:
            raise Invalid("no team store was named", f"--team s3://bucket/prefix, or set {TEAM}")
        return str(found)

    def open(self, store: Store, args: argparse.Namespace, output: Output) -> Team:
        """The team store under the policy of `--trust`."""
        return opening.team(self.url(args), store.layout, Policy(args.trust), args.trusted, output.warn)


def add(command: AddVerb, default: DefaultTeam | None) -> None:
    """Add the verbs."""
    teams = Teams(default)
    _add_keys(command)
    push = command(
        "push", lambda *given: _push(teams, *given), "sign artifacts and put them into the team store"
    )
    push.add_argument("what", nargs="*", metavar="WHAT")
    push.add_argument("--all", action="store_true", help="the whole store")
    push.add_argument("--pending", action="store_true", help="what could not be shared when it was built")
    pull = command(
        "pull", lambda *given: _pull(teams, *given), "copy artifacts of the team store here, verified"
    )
    pull.add_argument("what", nargs="*", metavar="WHAT")
    pull.add_argument("--all", action="store_true", help="the whole team store")
    revoke = command(
        "revoke", lambda *given: _revoke(teams, *given), "sign that an artifact must not be used any more"
    )
    revoke.add_argument(
        "digest", metavar="DIGEST", help="sha256:… of an artifact or a file, or a KEY of this store"
    )
    revoke.add_argument("--reason", required=True, help="why, for people")
    mirror = command(
        "mirror", lambda *given: _mirror(*given), "copy one team store to another, signatures and all"
    )
    mirror.add_argument("source", metavar="FROM")
    mirror.add_argument("target", metavar="TO")
    for verb in (push, pull, revoke, mirror):
        trusting(verb)
    for verb in (push, pull, revoke):
        verb.add_argument("--team", metavar="URL", help=f"the team store (default: ${TEAM})")
    for verb in (push, revoke):
        verb.add_argument("--key", metavar="NAME", help="the key that signs, where there are several")


def trusting(verb: argparse.ArgumentParser) -> None:
    """Add what says whose signature counts."""
    verb.add_argument(
        "--trust",
        choices=[policy.value for policy in Policy],
        default="require",
        help="what a record needs: a trusted signature, else a warning, or nothing (default: require)",
    )
    verb.add_argument(
        "--trusted",
        metavar="PUBLIC_KEY",
        action="append",
        default=[],
        help="a key that counts, beside those of `trtstore trust ls`",
    )


def _add_keys(command: AddVerb) -> None:
    keys = command(
        "keys", _keys, "keys to sign with: `keys new NAME` prints the public one, `keys ls` all of them"
    )
    keys.add_argument("action", choices=["new", "ls"])
    keys.add_argument("name", nargs="?", metavar="NAME")
    keys.add_argument("--passphrase", action="store_true", help=f"ask for one (or set ${keyring.PASSPHRASE})")
    trusted = command(
        "trust", _trust, "whose signature counts here: `trust add PUBLIC_KEY`, `trust ls`, `trust rm NAME`"
    )
    trusted.add_argument("action", choices=["add", "ls", "rm"])
    trusted.add_argument(
        "key",
        nargs="*",
        metavar="PUBLIC_KEY",
        help="and what it may sign for: model=llama* compiler=onnxruntime",
    )


def _keys(_store: Store, args: argparse.Namespace, output: Output) -> int:
    if args.action == "ls":
        found = keyring.found()
        lines = [f"{one.public} name={one.name}" for one in found]
        output.say({"keys": [{"name": one.name, "public": one.public} for one in found]}, lines)
        return 0
    if args.name is None:
        raise Invalid("a new key needs a name", "trtstore keys new ci")
    passphrase = os.environ.get(keyring.PASSPHRASE)
    if args.passphrase and not passphrase:
        passphrase = getpass.getpass("passphrase: ")
        if not passphrase or getpass.getpass("again: ") != passphrase:
            raise Invalid("the two were not the same, or empty: no key was made")
    public = opening.new_key(args.name, passphrase)
    output.say({"name": args.name, "public": public}, [f"{public} name={args.name}"])
    return 0


def _trust(_store: Store, args: argparse.Namespace, output: Output) -> int:
    found = trust.listed()
    if args.action == "add":
        one = trust.parse(" ".join(args.key))
        found = [each for each in found if each.key != one.key] + [one]
        trust.save(found)
    elif args.action == "rm":
        wanted = " ".join(args.key)
        gone = [each for each in found if wanted in (each.key, each.name)]
        if not gone:
            raise query.NotThere(f"no trusted key is called {wanted!r}", "`trtstore trust ls` shows them")
        found = [each for each in found if each not in gone]
        trust.save(found)
    document = {
        "trusted": [{"key": each.key, "name": each.name, "scope": dict(each.scope)} for each in found]
    }
    output.say(document, [each.line() for each in found])
    return 0


def _push(teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    with translated(store.root, reading=True):
        waiting = pending.found(store.layout) if args.pending else []
    keys = [*waiting, *(store.keys() if args.all else query.select(store, args.what))]
    if not keys and not args.pending:
        raise Invalid("nothing was named", "name keys or labels, or --all, or --pending")
    team, done = teams.open(store, args, output), []
    for key in dict.fromkeys(keys):
        record = query.record_of(store, key)
        progress = Progress(f"pushing {key[:12]}", record.bytes)
        pushed = team.push(store, key, opening.signer(args.key), progress.tell)
        progress.close()
        pending.remove(store.layout, key)
        said = f"pushed, {size(pushed.bytes)} sent" if pushed.new else "was there"
        done.append({"key": key, "new": pushed.new, "sent_bytes": pushed.bytes})
        if not output.json:
            output.say({}, [f"{key} {said}"])
    if output.json or not done:
        output.say({"pushed": done}, ["nothing waits to be pushed"])
    return 0


def _pull(teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    team = teams.open(store, args, output)
    keys = list(team.keys()) if args.all else _remote_keys(team.remote, args.what)
    if not keys and not args.all:
        raise Invalid("nothing was named", "name keys or labels, or --all")
    failed, done = 0, []
    for key in keys:
        was = store.lookup(key) is not None
        progress = Progress(f"pulling {key[:12]}")
        layer = Layered(store, [team], on_progress=progress.tell)
        record = layer.lookup(key, on_problem=output.warn)
        progress.close()
        failed += record is None
        state = "refused" if record is None else "was here" if was else "new"
        done.append({"key": key, "state": state})
    if team.down is not None:
        raise team.down
    output.say({"pulled": done}, [f"{one['key']} {one['state']}" for one in done])
    return REFUSED if failed else 0


def _remote_keys(remote: Remote, what: list[str]) -> list[str]:
    prefixes, labels = query.split(what)
    found = [word for word in prefixes if is_hex(word)]
    short = [word for word in prefixes if not is_hex(word)]
    everything = list(remote.keys()) if short else []
    for prefix in short:
        matching = [key for key in everything if key.startswith(prefix)]
        if len(matching) != 1 or len(prefix) < query.MIN_PREFIX:
            raise query.NotThere(
                f"{len(matching)} keys of {remote} begin with {prefix}", "`trtstore ls --team`"
            )
        found += matching
    if labels:
        found += [row.summary.key for row in teamwork.rows(remote, labels, lambda _: None)]
    return list(dict.fromkeys(found))


def _revoke(teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    given = args.digest.removeprefix("sha256:")
    if args.digest.startswith("sha256:"):
        digest = args.digest
    elif is_hex(given) and not list(store.keys(given)):
        digest = digest_of(given)
    else:
        digest = query.record_of(store, query.key_of(store, given)).manifest
    team = teams.open(store, args, output)
    done = team.revoke(digest, args.reason, opening.signer(args.key))
    hit = affected(store)
    output.say(
        {"digest": digest, "reason": done.reason, "revoked": done.when, "affected": hit},
        [f"revoked {digest}: {done.reason}", *affected_lines(hit)],
    )
    return 0


def _mirror(store: Store, args: argparse.Namespace, output: Output) -> int:
    source = opening.team(args.source, store.layout, Policy(args.trust), args.trusted, output.warn)
    target = Remote(connect(args.target))
    target.check_writable()
    failed, new, seen = 0, 0, 0
    for key in list(source.keys()):
        try:
            judged = source.judged(key)
            if judged is None:
                continue
            seen += 1
            progress = Progress(f"copying {key[:12]}")
            new += teamwork.mirror(source, target, judged, progress.tell)
            progress.close()
        except StoreFailure as trouble:
            if source.down is not None or not isinstance(trouble, Corrupt):
                raise
            failed += 1
            output.warn(trouble.message)
    output.say(
        {"new": new, "there": seen - new, "refused": failed},
        [f"{new} new in {args.target}, {seen - new} were there, {failed} refused"],
    )
    return REFUSED if failed else 0


def affected(store: Store) -> list[dict[str, object]]:
    """The artifacts of `store` that a revocation is about, with the roots that lead to them. Raises as a read."""
    with translated(store.root, reading=True):
        known = revoked.found(store.layout)
        roots: dict[str, list[str]] = {}
        for root in Upkeep(store).roots():
            roots.setdefault(root.tree or "", []).append(str(root.link))
        found: list[dict[str, object]] = []
        for summary, blobs in Upkeep(store).catalog.named() if known else ():
            hit = [known[digits] for digits, _ in blobs if digits in known]
            if hit:
                found.append(
                    {
                        "key": summary.key,
                        "digest": digest_of(summary.manifest),
                        "labels": dict(summary.labels),
                        "reason": str(hit[0]),
                        "roots": roots.get(summary.manifest, []),
                    }
                )
    return found


def affected_lines(found: list[dict[str, object]]) -> list[str]:
    """Those in words."""
    lines = []
    for one in found:
        lines.append(f"affected  {str(one['key'])[:12]}  {one['reason']}")
        links = one["roots"]
        lines += [f"          used by {link}" for link in links] if isinstance(links, list) else []
    return lines


def rows(teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    """`trtstore ls --team`."""
    extra, labels = query.split(args.labels)
    if extra:
        raise Invalid(f"{extra[0]!r} is no label", "filters are written label=value: trtstore ls model=llama")
    progress = Progress("reading records")
    found = teamwork.rows(teams.open(store, args, output).remote, labels, progress.count)
    progress.close()
    show.rows(output, found, sort=args.sort, reverse=args.reverse, full=args.full)
    return 0
