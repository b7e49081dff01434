"""The verbs `ls`, `stats`, `verify` and `gc` of a team store, and what of a local store was revoked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trtstore.cli import show
from trtstore.cli.output import Output
from trtstore.cli.progress import Progress
from trtstore.cli.team_args import REFUSED, Teams, remote_keys
from trtstore.errors import Invalid, as_store_failures
from trtstore.format.digest import digest_of
from trtstore.format.trust import Role
from trtstore.marks import revocations
from trtstore.store import Store
from trtstore.table import format_table
from trtstore.team import admin, open, versioned
from trtstore.team import gc as teamgc
from trtstore.team import verify as teamverify
from trtstore.units import format_seconds, format_size
from trtstore.upkeep import query
from trtstore.upkeep.maintenance import Maintenance

if TYPE_CHECKING:  # it loads what signatures take
    from trtstore.team.team import Team


def affected(store: Store) -> list[dict[str, object]]:
    """The artifacts of `store` that a revocation is about, with the roots that lead to them. Raises as a read."""
    with as_store_failures(store.root, reading=True):
        known = revocations.found(store._layout)
        roots: dict[str, list[str]] = {}
        for root in Maintenance(store).roots():
            roots.setdefault(root.tree or "", []).append(str(root.link))
        artifacts: list[dict[str, object]] = []
        for summary, blobs in Maintenance(store).catalog.named() if known else ():
            hit = [one.revocation for digits, _ in blobs for one in known.get(digits, ()) if one.counts(summary.labels)]
            if hit:
                artifacts.append(
                    {
                        "key": summary.key,
                        "digest": digest_of(summary.manifest),
                        "labels": dict(summary.labels),
                        "reason": str(hit[0]),
                        "roots": roots.get(summary.manifest, []),
                    }
                )
    return artifacts


def revoked_here(store: Store, output: Output) -> int:
    """`trtstore ls --affected`."""
    artifacts = affected(store)
    output.say({"affected": artifacts}, affected_lines(artifacts) or ["nothing that is here was revoked"])
    return REFUSED if artifacts else 0


def affected_lines(artifacts: list[dict[str, object]]) -> list[str]:
    """Those in words."""
    lines = []
    for one in artifacts:
        lines.append(f"affected  {str(one['key'])[:12]}  {one['reason']}")
        links = one["roots"]
        lines += [f"          used by {link}" for link in links] if isinstance(links, list) else []
    return lines


def gc(teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    """`trtstore gc --team`."""
    if args.max_size is not None:
        raise Invalid("a team store is collected by its signed policy", "trtstore policy --max-size SIZE")
    team = teams.open(store, args, output)
    gone = teamgc.collect(team, store._layout, open.read_policy(team), dry_run=args.dry_run)
    if not args.dry_run:
        _refresh(team, args.key, output)
    freed = sum(one.bytes for one in gone)
    verb = "would go" if args.dry_run else "went"
    output.say(
        {"dry_run": args.dry_run, "bytes": freed, "gone": [vars(one) for one in gone]},
        [
            *format_table(
                ["WHAT", "NAME", ">SIZE", "WHY"],
                [[one.kind, one.name.rpartition("/")[2][:12], format_size(one.bytes), one.why] for one in gone],
            ),
            f"{len(gone)} objects {verb}, {format_size(freed)}",
        ],
    )
    return 0


def _refresh(team: Team, name: str | None, output: Output) -> None:
    """Sign the list of revocations anew if this key may, so that a nightly collection keeps it from expiring."""
    if not any(Role.revoke in one.roles for one in team.trusted):
        return
    try:
        signer = open.open_signer(name)
    except Invalid as trouble:
        if name is not None:
            raise
        output.warn(f"the list of revocations is not signed anew: {trouble.message}")
        return  # a collection works without a key
    if team.revocations.may_list(signer):
        listing = team.revocations.issue(signer)
        output.warn(f"the list of revocations is valid until {versioned.written(listing.expires)}")
    else:
        output.warn(f"the list of revocations is not signed anew: {signer.name} has no role=revoke here")


def verify(teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    """`trtstore verify --team`."""
    team = teams.open(store, args, output)
    team.sync()
    keys = remote_keys(team.remote, args.what) if args.what else list(team.keys())
    progress = Progress("verifying")
    mend = teamverify.Mender(team, store) if args.repair else None
    problems = list(teamverify.verify(team, keys, every_byte=not args.quick, on_bytes=progress.add, mend=mend))
    progress.close()
    output.say(
        {"artifacts": len(keys), "read_bytes": progress.done, "problems": [vars(one) for one in problems]},
        [
            *(one.words if one.words.startswith(one.key[:12]) else f"{one.key[:12]}: {one.words}" for one in problems),
            _sum(problems, len(keys), progress.done),
        ],
    )
    return REFUSED if any(not one.mended for one in problems) else 0


def _sum(problems: Sequence[teamverify.Problem], artifacts: int, read: int) -> str:
    mended = sum(one.mended for one in problems)
    repaired = f", {mended} of it put right" if mended else ""
    return f"{len(problems) or 'nothing'} wrong with {artifacts} artifacts{repaired}; read {format_size(read)}"


def stats(teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    """`trtstore stats --team`."""
    remote = teams.open(store, args, output).remote
    progress = Progress("reading records")
    rows = admin.rows(remote, {}, progress.count)
    progress.close()
    blobs = [one.size for _, one in remote.listed_blobs()]
    groups: dict[str, list[query.Row]] = {}
    for row in rows:
        groups.setdefault(row.summary.labels.get(args.by, ""), []).append(row)
    sums = {
        name: {
            "artifacts": len(some),
            "bytes": sum(row.summary.bytes for row in some),
            "build_seconds": sum(row.seconds or 0.0 for row in some),
        }
        for name, some in sorted(groups.items())
    }
    lines = [
        [name or "-", str(one["artifacts"]), format_size(one["bytes"]), format_seconds(one["build_seconds"])]
        for name, one in sums.items()
    ]
    output.say(
        {
            "team": str(remote),
            "artifacts": len(rows),
            "stored_bytes": sum(blobs),
            "blobs": len(blobs),
            "by": sums,
        },
        [
            *format_table([args.by.upper(), ">ARTIFACTS", ">SIZE", ">BUILT IN"], lines),
            f"{format_size(sum(blobs))} in {len(blobs)} blobs, in {remote}",
        ],
    )
    return 0


def rows(teams: Teams, store: Store, args: argparse.Namespace, output: Output) -> int:
    """`trtstore ls --team`."""
    extra, labels = query.split(args.labels)
    if extra:
        raise Invalid(f"{extra[0]!r} is no label", "filters are written label=value: trtstore ls quant=int8")
    progress = Progress("reading records")
    listed = admin.rows(teams.open(store, args, output).remote, labels, progress.count)
    progress.close()
    show.rows(output, listed, sort=args.sort, reverse=args.reverse, full=args.full)
    return 0
