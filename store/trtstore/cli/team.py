"""The verbs of `trtstore` about a store that a team shares: keys and trust, push and pull, revoke, mirror."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from trtstore.cli import keys as keycli
from trtstore.cli.arguments import AddVerb, a_size, a_span
from trtstore.cli.output import Output
from trtstore.cli.progress import Progress
from trtstore.cli.team_args import REFUSED, TEAM, Teams, add_trust_options, remote_keys
from trtstore.cli.team_views import affected, affected_lines
from trtstore.errors import Corrupt, Invalid, StoreFailure, Untrusted, as_store_failures
from trtstore.exchange.layered import Layered
from trtstore.format.digest import digest_of, is_hex
from trtstore.format.trust import TrustPolicy, trusted_lines
from trtstore.store import Store
from trtstore.team import admin, gc, open, versioned
from trtstore.units import format_size, shown
from trtstore.upkeep import query

if TYPE_CHECKING:  # it loads what signatures take
    from trtstore.team.signing import Signer


def add(command: AddVerb, teams: Teams) -> None:
    """Add the verbs."""

    def verb(name: str, run: Callable[..., int], about: str) -> argparse.ArgumentParser:
        added = command(name, lambda *given: run(teams, *given), about)
        add_trust_options(added)
        if name != "mirror":
            added.add_argument("--team", metavar="URL", help=f"the team store (default: ${TEAM})")
        if name in ("push", "revoke", "policy"):
            added.add_argument("--key", metavar="NAME", help="the key to sign with, if you have several")
        return added

    keycli.add(command)
    push = verb("push", _push, "sign artifacts and copy them to the team store")
    push.add_argument("what", nargs="*", metavar="WHAT")
    push.add_argument("--all", action="store_true", help="push the whole store")
    push.add_argument("--pending", action="store_true", help="push what could not be pushed when it was built")
    pull = verb("pull", _pull, "copy artifacts from the team store; verifies every byte")
    pull.add_argument("what", nargs="*", metavar="WHAT")
    pull.add_argument("--all", action="store_true", help="pull the whole team store")
    revoke = verb("revoke", _revoke, "sign that nobody may use an artifact any more")
    revoke.add_argument("digest", metavar="DIGEST", nargs="?", help="sha256:… of an artifact or a file, or KEY")
    revoke.add_argument("--reason", help="the reason, for people")
    revoke.add_argument(
        "--refresh",
        action="store_true",
        help="renew the list of revocations before it expires; needs a key with role=revoke",
    )
    revoke.add_argument("--valid", metavar="SPAN", type=a_span, help="how long that list is valid, such as 30d")
    mirror = verb("mirror", _mirror, "copy one team store to another, with its signatures")
    mirror.add_argument("source", metavar="FROM")
    mirror.add_argument("target", metavar="TO")
    policy = verb("policy", _policy, "show or sign the retention policy that `gc --team` follows")
    policy.add_argument("--max-size", metavar="SIZE", type=a_size, help="500GB: above it the oldest are removed")
    policy.add_argument("--keep", metavar="SPAN", type=a_span, help="90d: older artifacts are removed")


def _push(teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    with as_store_failures(store.root, reading=True):
        waiting = store.pending.waiting() if args.pending else []
    keys = [*waiting, *(store.keys() if args.all else query.select(store, args.what))]
    if not keys and not args.pending:
        raise Invalid("nothing was named", "name keys or labels, or --all, or --pending")
    team, done, refused = teams.open(store, args, output), [], 0
    signer: Signer | None = None
    for key in dict.fromkeys(keys):
        record = query.find_record(store, key) if len(keys) == 1 else store.lookup(key, on_problem=output.warn)
        if record is None:
            refused += 1
            continue
        doubt = store.doubt(key)
        signer = signer or open.open_signer(args.key)  # which may take a passphrase: once
        if doubt is not None and not doubt.lets_sign(trusted_lines(signer.public, team.trusted)):
            refused += 1
            output.warn(f"{key[:12]} {doubt}: it is not pushed; build it again, or push it from where it was built")
            store.pending.remove(key)
            continue
        progress = Progress(f"pushing {key[:12]}", record.bytes)
        try:
            pushed = team.push(store, key, signer, progress.tell)
        except (Corrupt, Untrusted) as trouble:
            if len(keys) == 1:
                raise
            refused += 1
            output.warn(f"{key[:12]} is not pushed: {trouble}")
            continue
        finally:
            progress.close()
        store.pending.remove(key)
        line = f"pushed, {format_size(pushed.bytes)} sent" if pushed.new else "was there"
        done.append({"key": key, "new": pushed.new, "sent_bytes": pushed.bytes})
        if not output.json:
            output.say({}, [f"{key} {line}"])
    if output.json or not (done or refused):
        output.say({"pushed": done, "refused": refused}, ["nothing waits to be pushed"])
    return REFUSED if refused else 0


def _pull(teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    team = teams.open(store, args, output)
    team.sync()  # what is here already may have been revoked
    keys = list(team.keys()) if args.all else remote_keys(team.remote, args.what)
    if not keys and not args.all:
        raise Invalid("nothing was named", "name keys or labels, or --all")
    failed, done = 0, []
    for key in keys:
        was = store.lookup(key, on_problem=output.warn) is not None
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


def _revoke(teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    if args.refresh and args.digest is None:
        listing = teams.open(store, args, output).revocations.issue(open.open_signer(args.key), (), args.valid)
        until, version = versioned.written(listing.expires), listing.issue.version
        output.say(
            {"version": version, "revoked": len(listing.revoked), "expires": until},
            [
                f"signed version {version} of the list of revocations: {len(listing.revoked)} revoked, "
                f"valid until {until}"
            ],
        )
        return 0
    if args.digest is None or args.reason is None or args.refresh or args.valid is not None:
        raise Invalid(
            "what is to be revoked, and why?",
            "trtstore revoke DIGEST --reason WHY; or --refresh [--valid 30d]",
        )
    given, labels = args.digest.removeprefix("sha256:"), None
    if args.digest.startswith("sha256:"):
        digest = args.digest
    elif is_hex(given) and not list(store.keys(given)):
        digest = digest_of(given)
    else:
        record = query.named_by(store, query.find_key(store, given))
        digest, labels = record.manifest, record.labels
    team = teams.open(store, args, output)
    signer = open.open_signer(args.key)
    before = team.revocations.standing(digest, signer, labels)
    done = before or team.revoke(digest, args.reason, signer, labels)
    hit = affected(store)
    line = f"revoked {digest}: {shown(done.reason)}"
    if before is not None:
        by = next(iter(trusted_lines(signer.public, team.trusted)), signer.name)
        line = f"{digest} is revoked already, by {by} on {shown(done.when)}: {shown(done.reason)}"
        if done.reason != args.reason:
            line += "; that reason stays"
    output.say(
        {
            "digest": digest,
            "reason": done.reason,
            "revoked": done.when,
            "already": before is not None,
            "affected": hit,
        },
        [line, *team.revocations.reach(signer), *affected_lines(hit)],
    )
    return 0


def _mirror(_teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    source = open.open_team(args.source, store, TrustPolicy(args.trust), args.trusted, output.warn)
    target = open.at(args.target, store._layout)
    target.check_writable()
    source.revocations.copy_to(target)  # first: no reader gets there what was revoked here
    failed, new, seen = 0, 0, 0
    for key in list(source.keys()):
        try:
            judged = source.judged(key)
            if judged is None:
                continue
            seen += 1
            progress = Progress(f"copying {key[:12]}")
            new += admin.mirror(source, target, judged, progress.tell)
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


def _policy(teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    team = teams.open(store, args, output)
    if args.max_size is not None or args.keep is not None:
        keep = None if args.keep is None else round(args.keep / 86_400)
        if keep == 0:
            raise Invalid("--keep counts in days, and this is less than half of one", "write --keep 1d or more")
        open.put_policy(team, gc.RetentionPolicy(args.max_size, keep), open.open_signer(args.key))
    policy = open.read_policy(team)
    most = "no limit" if policy.max_bytes is None else f"{format_size(policy.max_bytes)} at most"
    kept = "for ever" if policy.keep_days is None else f"for {policy.keep_days} days"
    output.say({"max_bytes": policy.max_bytes, "keep_days": policy.keep_days}, [f"{team}: {most}, kept {kept}"])
    return 0
