"""The verbs `trtstore export` and `trtstore import`: artifacts as one file, judged where they arrive."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from trtstore import units
from trtstore.cli.arguments import AddVerb
from trtstore.cli.output import Output
from trtstore.cli.progress import Progress
from trtstore.errors import Invalid, Malformed, StoreFailure, Untrusted, as_store_failures
from trtstore.exchange import bundle
from trtstore.format import trust
from trtstore.format.trust import TrustPolicy
from trtstore.marks.doubts import Doubt
from trtstore.store import Store
from trtstore.team import open, trust_list
from trtstore.transfer.protocols import Readable
from trtstore.upkeep import query

REFUSED = 4


def add(command: AddVerb) -> None:
    """Add the two verbs."""
    export = command("export", _export, "write artifacts to one file, for a machine without a network")
    export.add_argument("what", nargs="*", metavar="WHAT")
    export.add_argument("--all", action="store_true", help="export the whole store")
    export.add_argument("-o", "--output", metavar="FILE", required=True, help="`-` is standard output")
    export.add_argument("--key", metavar="NAME", help="also sign each record with this key, for readers who trust it")
    take = command("import", _import, "add the artifacts of such a file; verifies every byte and each signature")
    take.add_argument("file", metavar="FILE")
    take.add_argument(
        "--trusted",
        metavar="PUBLIC_KEY",
        action="append",
        default=[],
        help="one more trusted key, besides those of `trtstore trust ls`",
    )
    take.add_argument(
        "--trust-unsigned",
        action="store_true",
        help="also accept artifacts that no trusted key signed: they are marked, and never pushed from here",
    )


def _export(store: Store, args: argparse.Namespace, output: Output) -> int:
    keys = list(store.keys()) if args.all else query.select(store, args.what)
    if not keys:
        raise Invalid("nothing was named", "name keys or labels, or --all")
    sign = bundle.as_it_is if args.key is None else _signing(store, args.key, output)
    progress, left_out = Progress("writing"), 0
    with store.scratch():  # for as long as this is held no collector takes what is used from now on
        usable = [key for key in keys if store.use(key, count=False, on_problem=output.warn) is not None]
        left_out = len(keys) - len(usable)
        if not usable:
            query.find_record(store, keys[0])
        keys = usable
        if args.output == "-":
            count = bundle.export_to(store, keys, sys.stdout.buffer, progress.tell, sign=sign)
            sys.stdout.buffer.flush()
        else:
            count = bundle.export_file(store, keys, Path(args.output), progress.tell, sign=sign)
    progress.close()
    shown = f"wrote {count} artifacts ({units.format_size(progress.done)}) to {args.output}"
    if args.output == "-":
        output.warn(shown)
    else:
        output.say({"file": args.output, "artifacts": count, "bytes": progress.done, "keys": keys}, [shown])
    if left_out:
        output.warn(f"{left_out} that cannot be used were left out")
    return REFUSED if left_out else 0


def _signing(store: Store, name: str, output: Output) -> bundle.Sign:
    """Puts the signature of the key `name` under each record that may have it."""
    signer = open.open_signer(name)
    lines = trust.trusted_lines(signer.public, trust_list.listed())

    def sign(key: str, envelope: bytes) -> bytes:
        doubt = store.doubt(key)
        if doubt is not None and not doubt.lets_sign(lines):
            output.warn(f"{key[:12]} {doubt}: {signer.name} does not sign it")
            return envelope
        try:
            return open.signed(envelope, signer)
        except Malformed as trouble:
            raise StoreFailure(f"{key} cannot be signed: {trouble}", "build it again") from None

    return sign


def _import(store: Store, args: argparse.Namespace, output: Output) -> int:
    progress, refused = Progress("reading"), dict[str, Untrusted]()
    where = "standard input" if args.file == "-" else units.shown(Path(args.file).name)
    judge, unsigned = _judgement(store, args, where, output)
    with ExitStack() as opened:
        file: Readable = sys.stdin.buffer
        if args.file != "-":
            with as_store_failures(Path(args.file), reading=True):
                file = opened.enter_context(Path(args.file).open("rb"))
        received = list(bundle.import_from(store, file, progress.add, judge=judge, on_refused=refused.__setitem__))
    progress.close()
    for trouble in list(refused.values())[:5]:
        output.warn(trouble.message)
    new = sum(one.new for one in received)
    output.say(
        {
            "artifacts": [{"key": one.record.key, "new": one.new} for one in received],
            "refused": [{"key": key, "reason": trouble.message} for key, trouble in refused.items()],
        },
        [f"{one.record.key} {'new' if one.new else 'was here'}" for one in received],
    )
    counts = f"{new} new, {len(received) - new} were here"
    output.warn(f"{counts}, {len(refused)} refused" if refused else counts)
    taken = [one for one in received if one.new and one.record.key in unsigned]
    if taken:
        output.warn(f"{len(taken)} came unsigned, on your word: they are not pushed from here")
    if refused:
        output.warn(f"hint: {_mend(args)}")
    return REFUSED if refused else 0


def _judgement(store: Store, args: argparse.Namespace, where: str, output: Output) -> tuple[bundle.Judgement, set[str]]:
    """The judge of the file's records, and the keys that it takes although no trusted key signed them."""
    unsigned: set[str] = set()
    for line in args.trusted:
        trust.parse(line)
    policy = TrustPolicy.off if args.trust_unsigned else TrustPolicy.require
    # Without the package no signature can be checked: then a user's word is all that there is.
    blind = args.trust_unsigned and find_spec("securesystemslib") is None
    judge = None if blind else open.judge(where, store._layout, policy, args.trusted, output.warn)

    def judgement(key: str, envelope: bytes) -> Doubt | None:
        doubt = Doubt(where) if judge is None else judge.doubt(judge.judge(key, envelope))
        if doubt is not None and doubt.unsigned:
            unsigned.add(key)
        return doubt

    return judgement, unsigned


def _mend(args: argparse.Namespace) -> str:
    if args.trust_unsigned:
        return "what was revoked has to be built again"
    return (
        "trust the key of who built them (`trtstore trust add PUBLIC_KEY`, or --trusted), and let them be signed where "
        "they come from (`trtstore export --key NAME`); --trust-unsigned takes them on your word alone"
    )
