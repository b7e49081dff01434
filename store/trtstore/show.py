"""Every word and every JSON document that `trtstore` answers with: results on stdout, errors on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from trtstore import access, words
from trtstore.decide import Decision, Plan
from trtstore.errors import translated
from trtstore.pins import Pin
from trtstore.query import Row
from trtstore.records import Record
from trtstore.roots import Root
from trtstore.store import Store
from trtstore.table import table
from trtstore.upkeep import Upkeep
from trtstore.verify import Finding
from trtstore.worth import HORIZON

SCHEMA = 1
SHORT = 12  # digits of a key in a listing

SORTS: Mapping[str, Callable[[Row], Any]] = {
    "used": lambda row: -row.summary.used,
    "age": lambda row: -row.summary.stored,
    "size": lambda row: -row.summary.bytes,
    "hits": lambda row: -row.hits,
    "saved": lambda row: -(row.saved or 0.0),
    "label": lambda row: sorted(row.summary.labels.items()),
}


@dataclass(frozen=True)
class Output:
    """Text for people, or one JSON document."""

    json: bool

    def say(self, document: Mapping[str, Any], lines: Iterable[str]) -> None:
        if self.json:
            sys.stdout.writelines(_document({"schema": SCHEMA, **document}))
        else:
            sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()

    def fail(self, message: str, hint: str | None, code: int) -> None:
        print(f"error: {message}" + (f"\nhint: {hint}" if hint else ""), file=sys.stderr)
        if self.json:
            self.say({"error": {"message": message, "hint": hint, "exit_code": code}}, ())


def _document(fields: Mapping[str, Any]) -> Iterator[str]:
    """JSON, a field a line; an iterator is a list of one item a line, of which never all are in memory."""
    before = "{"
    for name, value in fields.items():
        yield f"{before}{json.dumps(name)}: "
        before = ",\n"
        if not isinstance(value, Iterator):
            yield json.dumps(value)
            continue
        yield "["
        for number, item in enumerate(value):
            yield (",\n" if number else "\n") + json.dumps(item)
        yield "]"
    yield "}\n"


def rows(output: Output, found: list[Row], *, sort: str, reverse: bool, full: bool) -> None:
    """The listing of `trtstore ls`."""
    found = sorted(found, key=SORTS[sort], reverse=reverse)
    if output.json:
        output.say({"records": (_row(row) for row in found)}, ())
        return
    # Equal labels are one object, and there are few: what is said of each is said once.
    kinds = {id(row.summary.labels): row.summary.labels for row in found}
    counted = Counter(name for labels in kinds.values() for name in labels)
    names = sorted(counted, key=lambda name: (-counted[name], name))
    cells = {it: [labels.get(name, "") for name in names] for it, labels in kinds.items()}
    now = time.time()
    lines = [
        [
            row.summary.key if full else row.summary.key[:SHORT],
            *cells[id(row.summary.labels)],
            words.size(row.summary.bytes) if row.summary.manifest or row.summary.bytes else "unusable",
            words.span(now - row.summary.stored),
            words.span(now - row.summary.used),
            str(row.hits),
            "" if row.saved is None else words.seconds(row.saved),
        ]
        for row in found
    ]
    heads = ["KEY", *map(str.upper, names), ">SIZE", ">AGE", ">USED", ">HITS", ">SAVED"]
    output.say({}, table(heads, lines))


def _row(row: Row) -> dict[str, Any]:
    it = row.summary
    return {
        "key": it.key,
        "digest": f"sha256:{it.manifest}" if it.manifest else None,
        "bytes": it.bytes,
        "files": it.files,
        "labels": dict(it.labels),
        "stored": it.stored,
        "used": it.used,
        "hits": row.hits,
        "seconds": row.seconds,
        "saved_seconds": row.saved,
    }


def record(output: Output, store: Store, it: Record) -> None:
    """`trtstore show`."""
    with translated(store.root, reading=True):
        listed = access.read_manifest(store.layout, it.manifest)
    tree = store.layout.tree(it.manifest.partition(":")[2])
    keepers = _keepers(store, it)
    document = {
        "key": it.key,
        "digest": it.manifest,
        "bytes": it.bytes,
        "labels": dict(it.labels),
        "files": [asdict(entry) for entry in listed.entries],
        "attachments": {name: asdict(file) for name, file in it.attachments.items()},
        "path": str(tree) if tree.is_dir() else None,
        "kept_by": keepers,
        "predicate_type": it.predicate_type,
        "predicate": dict(it.predicate),
    }
    lines = [
        f"key      {it.key}",
        f"digest   {it.manifest}",
        *(f"{name:<8} {value}" for name, value in sorted(it.labels.items())),
        f"size     {words.size(it.bytes)} in {it.files} file{'s' if it.files != 1 else ''}",
        f"path     {tree if tree.is_dir() else 'not made yet: `trtstore path` makes it'}",
        *(f"kept     {keeper}" for keeper in keepers),
        "",
        *table(
            ["MODE", ">SIZE", "SHA-256", "FILE"],
            [[e.mode, words.size(e.size), e.sha256[:SHORT], e.path] for e in listed.entries],
        ),
    ]
    for name, file in it.attachments.items():
        lines += ["", f"{name}: {store.blob_path(file.digest)} ({words.size(file.size)})"]
    lines += ["", f"made as the record says ({it.predicate_type}):"]
    lines += [f"  {line}" for line in json.dumps(it.predicate, indent=2, sort_keys=True).splitlines()[1:-1]]
    output.say(document, lines)


def _keepers(store: Store, it: Record) -> list[str]:
    upkeep, digits = Upkeep(store), it.manifest.partition(":")[2]
    found = [f"by a root: {root.link}" for root in upkeep.roots() if root.tree == digits]
    pin = upkeep.pins().get(it.key)
    return found if pin is None else [*found, _pin(pin)]


def _pin(pin: Pin) -> str:
    return f"pinned: {pin.note}" if pin.note else "pinned"


def differences(output: Output, first: Record, second: Record, found: Sequence[tuple[str, Any, Any]]) -> None:
    """`trtstore diff`."""
    document = {
        "first": first.key,
        "second": second.key,
        "same_files": first.manifest == second.manifest,
        "differences": [{"field": name, "first": one, "second": two} for name, one, two in found],
    }
    lines = [f"{name}  {_value(one)} → {_value(two)}" for name, one, two in found]
    if first.manifest == second.manifest:
        lines.append("the files are the same, byte for byte")
    output.say(document, lines)


def _value(value: Any) -> str:
    return "(absent)" if value is None else value if isinstance(value, str) else json.dumps(value)


def findings(output: Output, found: Sequence[Finding], read: int, seconds: float) -> None:
    """`trtstore verify`."""
    document = {
        "read_bytes": read,
        "seconds": round(seconds, 3),
        "damaged": [
            {
                "kind": one.kind,
                "name": one.name,
                "problem": one.problem,
                "keys": list(one.keys),
                "quarantined": None if one.moved_to is None else str(one.moved_to),
            }
            for one in found
        ],
    }
    lines = []
    for one in found:
        lines.append(f"damaged  {one.kind} {one.name[:SHORT]}: {one.problem}")
        if one.moved_to is not None:
            lines.append(f"         moved to {one.moved_to}")
        lines += [f"         {key[:SHORT]} is a miss until it is built or fetched again" for key in one.keys]
    rate = f"{words.size(read / seconds)}/s" if seconds > 0 else ""
    lines.append(
        f"{len(found) or 'nothing'} damaged; read {words.size(read)} in {words.seconds(seconds)}, {rate}"
    )
    output.say(document, lines)


def plan(output: Output, found: Plan, *, dry_run: bool, everything: bool) -> None:
    """`trtstore gc`."""
    if output.json:
        document = {
            "dry_run": dry_run,
            "limit_bytes": found.limit,
            "before_bytes": found.before,
            "after_bytes": found.after,
            "met": found.met,
            "decisions": (_decision(one) for one in found.decisions),
        }
        output.say(document, ())
        return
    gone = "would go" if dry_run else "gone"
    lines = [
        [
            gone if one.remove else "stays",
            one.kind,
            one.name[:SHORT],
            words.size(one.bytes),
            " ".join(value for _, value in sorted(one.labels.items())),
            _why(one),
        ]
        for one in found.decisions
        if everything or (one.remove and (one.bytes or one.kind != "tree"))
    ]
    shown = table(["", "KIND", "NAME", ">BYTES", "LABELS", "WHY"], lines)
    output.say({}, chain(shown, _closing(found, dry_run=dry_run, everything=everything)))


def _closing(found: Plan, *, dry_run: bool, everything: bool) -> Iterator[str]:
    reasons = Counter(one.reason for one in found.decisions if not one.remove and one.kind == "record")
    for why, count in () if everything else reasons.most_common():
        yield f"{count} artifact{'s stay' if count > 1 else ' stays'}: {why}"
    after = found.after
    limit = "" if found.limit is None else f"; the limit is {words.size(found.limit)}"
    verb = "would free" if dry_run else "freed"
    yield f"{verb} {words.size(found.before - after)} of {words.size(found.before)}{limit}"
    if not found.met:
        over = words.size(after - (found.limit or 0))
        yield f"{over} above the limit: all that is left must stay (`--all` says why)"


def _why(one: Decision) -> str:
    if one.worth is None:
        return one.reason
    it = one.worth
    built = f"{'' if it.known else 'about '}{words.seconds(it.seconds)} to build"
    used = f"used {it.hits} time{'' if it.hits == 1 else 's'}, {words.ago(it.idle)}"
    chance = f"{it.chance:.0%} chance of use in {HORIZON:.0f} days"
    return f"{one.reason}: {built} x {chance} ({used}) = {it.density * 1e9:.3g} s a GB"


def _decision(one: Decision) -> dict[str, Any]:
    worth = None if one.worth is None else {**one.worth._asdict(), "density": one.worth.density}
    return {
        "kind": one.kind,
        "name": one.name,
        "remove": one.remove,
        "reason": one.reason,
        "bytes": one.bytes,
        "labels": dict(one.labels),
        "worth": worth,
    }


def roots(output: Output, found: Sequence[Root], pinned: Mapping[str, Pin]) -> None:
    """`trtstore roots`."""
    document = {
        "roots": [{"link": str(one.link), "digest": one.tree and f"sha256:{one.tree}"} for one in found],
        "pins": [asdict(pin) for pin in pinned.values()],
    }
    lines = [f"root  {(one.tree or 'dead')[:SHORT]:<{SHORT}}  {one.link}" for one in found]
    lines += [f"pin   {pin.key[:SHORT]}  {pin.note}".rstrip() for pin in pinned.values()]
    output.say(document, lines)


def stats(output: Output, store: Store, found: Sequence[Row], planned: Plan, *, by: str) -> None:
    """`trtstore stats`."""
    groups: dict[str, list[Row]] = {}
    for row in found:
        groups.setdefault(row.summary.labels.get(by, ""), []).append(row)
    total, garbage = sum(row.summary.bytes for row in found), planned.before - planned.after
    document = {
        "root": str(store.root),
        "artifacts": len(found),
        "artifact_bytes": total,
        "disk_bytes": planned.before,
        "garbage_bytes": garbage,
        **_sums(found),
        "by": {name: {"artifacts": len(rows_), **_sums(rows_)} for name, rows_ in sorted(groups.items())},
    }
    lines = table(
        [by.upper(), ">ARTIFACTS", ">SIZE", ">HITS", ">BUILT IN", ">SAVED"],
        [[name or "-", *_cells(rows_)] for name, rows_ in sorted(groups.items())] + [["all", *_cells(found)]],
    )
    waste = f", {words.size(garbage)} of it garbage" if garbage else ""
    output.say(document, [*lines, f"{words.size(planned.before)} on disk{waste}, in {store.root}"])


def _sums(found: Sequence[Row]) -> dict[str, Any]:
    return {
        "bytes": sum(row.summary.bytes for row in found),
        "hits": sum(row.hits for row in found),
        "build_seconds": sum(row.seconds or 0.0 for row in found),
        "saved_seconds": sum(row.saved or 0.0 for row in found),
    }


def _cells(found: Sequence[Row]) -> list[str]:
    sums = _sums(found)
    spans = [words.seconds(sums["build_seconds"]), words.seconds(sums["saved_seconds"])]
    return [str(len(found)), words.size(sums["bytes"]), str(sums["hits"]), *spans]
