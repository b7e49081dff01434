"""The command `trtstore`: list a store, pin artifacts, verify it, collect garbage, export it, share it with a team."""

from __future__ import annotations

import argparse
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from trtstore.cli import arguments, bundle, show, show_gc, team, team_views
from trtstore.cli.arguments import BAD_INPUT, CommandParser, a_size, a_span
from trtstore.cli.output import Describe, Output, undescribed
from trtstore.cli.progress import Progress
from trtstore.cli.team_args import DefaultTeam, Teams, looking
from trtstore.disk.locks import Holder
from trtstore.errors import Invalid, StoreFailure, as_store_failures
from trtstore.marks import doubts
from trtstore.store import Store
from trtstore.upkeep import query
from trtstore.upkeep.maintenance import GRACE, Maintenance

ROOT = "TRTSTORE_ROOT"
NOT_THERE, REFUSED, INTERRUPTED = 3, 4, 130

_EPILOG = """\
KEY is the beginning of a key: at least 4 digits, and enough to tell it from all others. WHAT is one or more keys, or
label=value for all artifacts with that label.
exit codes: 0, 2 bad input, 3 not in the store, 4 the store refused or is damaged, 130 interrupted.
"""


def run_trtstore(
    argv: Sequence[str] | None = None,
    default_root: Callable[[], Path] | None = None,
    default_team: DefaultTeam | None = None,
    describe: Describe = undescribed,
) -> int:
    """Run one command line; returns its exit code.

    The defaults say where the stores are if no option does. `describe` turns what a record's maker wrote into words.

    >>> run_trtstore(["--store", "store", "pin", key, "--note", "the release of May"])
    pinned abababababababababababababababababababababababababababababababab
    0
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding has not
    os.umask(os.umask(0o022) | 0o022)  # nothing that is made here may be written to by others
    gc.disable()  # one command makes few cycles and perhaps millions of objects, which each pass would visit
    args = _parser(default_team).parse_args(sys.argv[1:] if argv is None else argv)
    output = Output(getattr(args, "json", False), describe)
    try:
        store = Store.open(_root(getattr(args, "store", None), default_root))
        code: int = args.run(store, args, output)
        return code
    except query.NotThere as failure:
        return _failed(output, failure, NOT_THERE)
    except Invalid as failure:
        return _failed(output, failure, BAD_INPUT)
    except StoreFailure as failure:
        return _failed(output, failure, REFUSED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our stdout has gone
        return 141


def _ls(store: Store, args: argparse.Namespace, output: Output) -> int:
    if args.affected:
        return team_views.revoked_here(store, output)
    extra, labels = query.split(args.labels)
    if extra:
        raise Invalid(f"{extra[0]!r} is no label", "filters are written label=value: trtstore ls quant=int8")
    progress = Progress("reading new records")
    rows = query.rows(store, labels, progress.count)
    progress.close()
    with as_store_failures(store.root, reading=True):
        marked = {key: doubts.of(store._layout, key) for key in doubts.found(store._layout)}
    unsigned = {key for key, doubt in marked.items() if doubt is not None and doubt.unsigned}
    show.rows(output, rows, sort=args.sort, reverse=args.reverse, full=args.full, doubted=unsigned)
    return 0


def _show(store: Store, args: argparse.Namespace, output: Output) -> int:
    show.record(output, store, query.find_record(store, query.find_key(store, args.key)))
    return 0


def _diff(store: Store, args: argparse.Namespace, output: Output) -> int:
    first, second = (query.find_record(store, query.find_key(store, key)) for key in (args.first, args.second))
    show.differences(output, first, second, query.differences(store, first, second))
    return 0


def _path(store: Store, args: argparse.Namespace, output: Output) -> int:
    key = query.find_key(store, args.key)
    query.find_record(store, key)
    record = store.use(key, verify="always" if args.verify else "never")
    if record is None:
        raise StoreFailure(f"{key} is damaged", "`trtstore verify` says how; build it again")
    tree = store.materialise(record)
    output.say({"key": key, "path": str(tree.path), "materialised": tree.method}, [str(tree.path)])
    return 0


def _verify(store: Store, args: argparse.Namespace, output: Output) -> int:
    keys = query.select(store, args.what) if args.what else None
    upkeep = Maintenance(store)
    progress = Progress("verifying", upkeep.size(keys))
    findings = upkeep.verify(keys, on_bytes=progress.add)
    progress.close()
    show.findings(output, findings, progress.done, progress.seconds)
    return REFUSED if findings else 0


def _gc(store: Store, args: argparse.Namespace, output: Output) -> int:
    def on_wait(holder: Holder) -> None:
        print(f"waiting for {holder.who}", file=sys.stderr)

    progress = Progress("reading new records")
    plan = Maintenance(store).collect(
        args.max_size, grace=args.grace, dry_run=args.dry_run, on_parsed=progress.count, on_wait=on_wait
    )
    progress.close()
    show_gc.plan(output, plan, dry_run=args.dry_run, everything=args.all)
    return 0


def _pin(store: Store, args: argparse.Namespace, output: Output) -> int:
    # A key that is not here yet can be pinned: a release may be pinned before it is built.
    key = args.key if len(args.key) == 64 else query.find_key(store, args.key)
    Maintenance(store).pin(key, args.note)
    output.say({"key": key, "pinned": True}, [f"pinned {key}"])
    return 0


def _unpin(store: Store, args: argparse.Namespace, output: Output) -> int:
    upkeep = Maintenance(store)
    pinned = [key for key in upkeep.pins() if key.startswith(args.key)]
    if len(pinned) != 1:
        raise query.NotThere(f"{len(pinned)} pinned keys begin with {args.key}", "`trtstore roots` shows the pins")
    upkeep.unpin(pinned[0])
    output.say({"key": pinned[0], "pinned": False}, [f"unpinned {pinned[0]}"])
    return 0


def _roots(store: Store, _args: argparse.Namespace, output: Output) -> int:
    upkeep = Maintenance(store)
    show.roots(output, upkeep.roots(), upkeep.pins())
    return 0


def _stats(store: Store, args: argparse.Namespace, output: Output) -> int:
    progress = Progress("reading new records")
    plan = Maintenance(store).collect(dry_run=True, on_parsed=progress.count)
    disk, garbage = plan.before, plan.before - plan.after
    toolchains = [one.bytes for one in plan.decisions if one.kind == "toolchain"]
    del plan  # which says something of every record
    rows = query.rows(store, {}, progress.count)
    progress.close()
    show.stats(output, store, rows, disk, garbage, toolchains, by=args.by)
    return 0


def _parser(default_team: DefaultTeam | None) -> CommandParser:
    parser, command = arguments.command_parser("trtstore", __doc__, _EPILOG)
    ls = command("ls", _ls, "list artifacts, the most recently used first")
    ls.add_argument("labels", nargs="*", metavar="LABEL=VALUE", help="list only artifacts with this label")
    ls.add_argument("--sort", choices=sorted(show.SORTS), default="used", help="sort by (default: used)")
    ls.add_argument("--reverse", action="store_true", help="reverse the order")
    ls.add_argument("--full", action="store_true", help="show whole keys")
    ls.add_argument(
        "--affected",
        action="store_true",
        help="list revoked artifacts, and the links to them",
    )
    one = command("show", _show, "show everything about one artifact")
    one.add_argument("key", metavar="KEY")
    diff = command("diff", _diff, "compare two artifacts, field by field and file by file")
    diff.add_argument("first", metavar="KEY")
    diff.add_argument("second", metavar="KEY")
    path = command("path", _path, "print the folder of an artifact, and make it if it does not exist")
    path.add_argument("key", metavar="KEY")
    path.add_argument("--verify", action="store_true", help="read and check every byte first")
    verify = command("verify", _verify, "read every byte, and quarantine damaged files (exit code 4 if there are any)")
    verify.add_argument("what", nargs="*", metavar="WHAT", help="keys or label=value (default: the whole store)")
    verify.add_argument("--repair", action="store_true", help="with --team: repair from the local store")
    verify.add_argument("--quick", action="store_true", help="with --team: check only signatures and sizes")
    collect = command("gc", _gc, "remove garbage and, with --max-size, the artifacts cheapest to lose; says why")
    _gc_parser(collect)
    pin = command("pin", _pin, "keep an artifact until you unpin it")
    pin.add_argument("key", metavar="KEY")
    pin.add_argument("--note", default="", help="the reason, for people")
    command("unpin", _unpin, "let gc remove a pinned artifact again").add_argument("key", metavar="KEY")
    command("roots", _roots, "list what keeps artifacts from gc: links made by out=…, and pins")
    stats = command("stats", _stats, "show totals: artifacts, bytes, and what sharing and reuse saved")
    stats.add_argument("--by", metavar="LABEL", default="step", help="group by this label (default: step)")
    bundle.add(command)
    teams = Teams(default_team)
    for local, theirs in (
        (ls, team_views.rows),
        (verify, team_views.verify),
        (collect, team_views.gc),
        (stats, team_views.stats),
    ):
        looking(local)
        local.set_defaults(run=partial(_either, teams, local.get_default("run"), theirs))
    team.add(command, teams)
    return parser


def _either(
    teams: Teams,
    local: Callable[..., int],
    theirs: Callable[..., int],
    store: Store,
    args: argparse.Namespace,
    output: Output,
) -> int:
    """The verb of the local store, or with `--team` that of the team's."""
    return local(store, args, output) if args.team is None else theirs(teams, store, args, output)


def _gc_parser(gc: argparse.ArgumentParser) -> None:
    gc.add_argument("--max-size", metavar="SIZE", type=a_size, help="200GB, 10GiB; without it only garbage is removed")
    gc.add_argument(
        "--grace", metavar="SPAN", type=a_span, default=GRACE, help="keep what was used so lately (default: 1h)"
    )
    gc.add_argument("--dry-run", action="store_true", help="show what would be removed, and remove nothing")
    gc.add_argument("--key", metavar="NAME", help="with --team: the key that renews the list of revocations")
    gc.add_argument("--all", action="store_true", help="list the artifacts that stay, too, each with its reason")


def _root(named: str | None, default_root: Callable[[], Path] | None) -> Path:
    chosen = named or os.environ.get(ROOT)
    if chosen:
        return Path(chosen).expanduser()
    if default_root is None:
        raise Invalid("which store?", f"--store PATH, or set {ROOT}")
    return default_root()


def _failed(output: Output, failure: StoreFailure, code: int) -> int:
    output.fail(failure.message, failure.hint, code)
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
