"""What `trtstore` says of artifacts, roots and damage."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from trtstore import units
from trtstore.cli.output import Output
from trtstore.content import read as access
from trtstore.content.verify import Finding
from trtstore.errors import as_store_failures
from trtstore.format.labels import NEEDS, needs
from trtstore.format.record import Record
from trtstore.marks.pins import Pin
from trtstore.marks.roots import Root
from trtstore.store import Store
from trtstore.table import format_table
from trtstore.upkeep.maintenance import Maintenance
from trtstore.upkeep.query import Row

SHORT = 12  # digits of a key in a listing
#: Labels in a listing, and characters of each: a record must not make lines of any length.
MAX_COLUMNS, MAX_CELL = 16, 200

SORTS: Mapping[str, Callable[[Row], Any]] = {
    "used": lambda row: -row.used,
    "age": lambda row: -row.summary.stored,
    "size": lambda row: -row.summary.bytes,
    "hits": lambda row: -row.hits,
    "saved": lambda row: -(row.saved or 0.0),
    "label": lambda row: sorted(row.summary.labels.items()),
}


def rows(
    output: Output,
    listed: list[Row],
    *,
    sort: str,
    reverse: bool,
    full: bool,
    doubted: Set[str] = frozenset(),
) -> None:
    """The listing of `trtstore ls`; `doubted` are the keys of artifacts that no trusted key signed."""
    listed = sorted(listed, key=SORTS[sort], reverse=reverse)
    if output.json:
        output.say({"records": (_row(row, row.summary.key in doubted) for row in listed)}, ())
        return
    output.say({}, _listing(listed, doubted, full=full))


def _listing(rows: Sequence[Row], doubted: Set[str], *, full: bool) -> Iterator[str]:
    """The lines of `ls`, made one by one: widths are known beforehand, and what repeats is put in words once."""
    kinds = {id(row.summary.labels): row.summary.labels for row in rows}  # equal labels are one object
    if not kinds:
        return
    counted = Counter(name for labels in kinds.values() for name in labels if name != NEEDS)
    names = sorted(counted, key=lambda name: (-counted[name], name))[:MAX_COLUMNS]
    heads, *rest = format_table(
        [units.shown(name[:MAX_CELL]) for name in names],
        [[units.shown(labels.get(name, "")[:MAX_CELL]) for name in names] for labels in kinds.values()],
        pad=True,
    )
    cells = dict(zip(kinds, rest, strict=True))
    digits = 64 if full else SHORT
    size = lru_cache(None)(lambda count: f"{units.format_size(count):>8}")
    span = lru_cache(None)(lambda minutes: f"{units.format_span(minutes * 60):>8}")
    saved = lru_cache(None)(lambda spent: f"{units.format_seconds(spent):>11}".rstrip())
    yield f"{'KEY':<{digits}}  {heads.upper()}      SIZE       AGE      USED   HITS        SAVED"
    now = time.time()
    for it, hits, used, took in rows:
        bytes_ = size(it.bytes) if it.manifest or it.bytes else "unusable"
        spans = f"{span((now - it.stored) // 60)}  {span((now - used) // 60)}"
        uses = f"{hits:>5}  {saved(round(hits * took, 1))}" if hits and took is not None else f"{hits:>5}"
        doubt = "  doubted" if it.key in doubted else ""
        yield f"{it.key[:digits]}  {cells[id(it.labels)]}  {bytes_}  {spans}  {uses}{doubt}"


def _row(row: Row, doubted: bool) -> dict[str, Any]:
    it = row.summary
    return {
        "key": it.key,
        "digest": f"sha256:{it.manifest}" if it.manifest else None,
        "bytes": it.bytes,
        "files": it.files,
        "labels": dict(it.labels),
        "stored": it.stored,
        "used": row.used,
        "hits": row.hits,
        "seconds": row.seconds,
        "saved_seconds": row.saved,
        "doubted": doubted,
    }


def record(output: Output, store: Store, it: Record) -> None:
    """`trtstore show`."""
    with as_store_failures(store.root, reading=True):
        listed = access.read_manifest(store._layout, it.manifest)
    tree = store._layout.tree(it.manifest.partition(":")[2])
    keepers, doubt = _keepers(store, it), store.doubt(it.key)
    document = {
        "key": it.key,
        "digest": it.manifest,
        "bytes": it.bytes,
        "labels": dict(it.labels),
        "files": [asdict(entry) for entry in listed.entries],
        "attachments": {name: asdict(file) for name, file in it.attachments.items()},
        "path": str(tree) if tree.is_dir() else None,
        "kept_by": keepers,
        "doubt": None if doubt is None else str(doubt),
        "predicate_type": it.predicate_type,
        "predicate": dict(it.predicate),
    }
    lines = [
        f"key      {it.key}",
        f"digest   {it.manifest}",
        *(f"{units.shown(name):<8} {units.shown(value)}" for name, value in sorted(it.labels.items())),
        f"size     {units.format_size(it.bytes)} in {it.files} file{'s' if it.files != 1 else ''}",
        f"path     {tree if tree.is_dir() else 'not made yet: `trtstore path` makes it'}",
        *(f"kept     {keeper}" for keeper in keepers),
        *([] if doubt is None else [f"{'doubted' if doubt.unsigned else 'scope':<8} it {doubt}"]),
        *output.describe(it),
        "",
        *format_table(
            ["MODE", ">SIZE", "SHA-256", "FILE"],
            [[e.mode, units.format_size(e.size), e.sha256[:SHORT], e.path] for e in listed.entries],
        ),
    ]
    for name, file in it.attachments.items():
        lines += ["", f"{name}: {store.blob_path(file.digest)} ({units.format_size(file.size)})"]
    lines += ["", f"made as the record says ({it.predicate_type}):"]
    lines += [f"  {line}" for line in json.dumps(it.predicate, indent=2, sort_keys=True).splitlines()[1:-1]]
    output.say(document, lines)


def _keepers(store: Store, it: Record) -> list[str]:
    upkeep, digits = Maintenance(store), it.manifest.partition(":")[2]
    reasons = [f"by a root: {root.link}" for root in upkeep.roots() if root.tree == digits]
    for summary in upkeep.catalog.summaries():
        if it.key in needs(summary.labels):
            said = ", ".join(value for name, value in sorted(summary.labels.items()) if name != NEEDS)
            reasons.append(f"for {summary.key[:SHORT]}, which needs it: {said}")
    pin = upkeep.pins().get(it.key)
    return reasons if pin is None else [*reasons, _pin(pin)]


def _pin(pin: Pin) -> str:
    return f"pinned: {pin.note}" if pin.note else "pinned"


def differences(output: Output, first: Record, second: Record, fields: Sequence[tuple[str, Any, Any]]) -> None:
    """`trtstore diff`."""
    document = {
        "first": first.key,
        "second": second.key,
        "same_files": first.manifest == second.manifest,
        "differences": [{"field": name, "first": one, "second": two} for name, one, two in fields],
    }
    lines = [f"{name}  {_value(one)} → {_value(two)}" for name, one, two in fields]
    if first.manifest == second.manifest:
        lines.append("the files are the same, byte for byte")
    output.say(document, lines)


def _value(value: Any) -> str:
    return "(absent)" if value is None else value if isinstance(value, str) else json.dumps(value)


def findings(output: Output, damaged: Sequence[Finding], read: int, seconds: float) -> None:
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
            for one in damaged
        ],
    }
    lines = []
    for one in damaged:
        lines.append(f"damaged  {one.kind} {one.name[:SHORT]}: {one.problem}")
        if one.moved_to is not None:
            lines.append(f"         moved to {one.moved_to}")
        lines += [f"         {key[:SHORT]} is a miss until it is built or fetched again" for key in one.keys]
    rate = f"{units.format_size(read / seconds)}/s" if seconds > 0 else ""
    took = units.format_seconds(seconds)
    lines.append(f"{len(damaged) or 'nothing'} damaged; read {units.format_size(read)} in {took}, {rate}")
    output.say(document, lines)


def roots(output: Output, listed: Sequence[Root], pinned: Mapping[str, Pin]) -> None:
    """`trtstore roots`."""
    document = {
        "roots": [{"link": str(one.link), "digest": one.tree and f"sha256:{one.tree}"} for one in listed],
        "pins": [asdict(pin) for pin in pinned.values()],
    }
    lines = [f"root  {(one.tree or 'dead')[:SHORT]:<{SHORT}}  {one.link}" for one in listed]
    lines += [f"pin   {pin.key[:SHORT]}  {pin.note}".rstrip() for pin in pinned.values()]
    output.say(document, lines)


def stats(
    output: Output,
    store: Store,
    rows: Sequence[Row],
    disk: int,
    garbage: int,
    toolchains: Sequence[int],
    *,
    by: str,
) -> None:
    """`trtstore stats`; `disk` and `garbage` are bytes, `toolchains` those of each."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.summary.labels.get(by, ""), []).append(row)
    total = sum(row.summary.bytes for row in rows)
    document = {
        "root": str(store.root),
        "artifacts": len(rows),
        "artifact_bytes": total,
        "disk_bytes": disk,
        "garbage_bytes": garbage,
        "toolchains": len(toolchains),
        "toolchain_bytes": sum(toolchains),
        **_sums(rows),
        "by": {name: {"artifacts": len(rows_), **_sums(rows_)} for name, rows_ in sorted(groups.items())},
    }
    lines = format_table(
        [by.upper(), ">ARTIFACTS", ">SIZE", ">HITS", ">BUILT IN", ">SAVED"],
        [[name or "-", *_cells(rows_)] for name, rows_ in sorted(groups.items())] + [["all", *_cells(rows)]],
    )
    waste = f", {units.format_size(garbage)} of it garbage" if garbage else ""
    if toolchains:
        count = f"{len(toolchains)} toolchain{'s' if len(toolchains) > 1 else ''}"
        waste += f", {units.format_size(sum(toolchains))} in {count} that locks can make again"
    output.say(document, [*lines, f"{units.format_size(disk)} on disk{waste}, in {store.root}"])


def _sums(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "bytes": sum(row.summary.bytes for row in rows),
        "hits": sum(row.hits for row in rows),
        "build_seconds": sum(row.seconds or 0.0 for row in rows),
        "saved_seconds": sum(row.saved or 0.0 for row in rows),
    }


def _cells(rows: Sequence[Row]) -> list[str]:
    sums = _sums(rows)
    spans = [units.format_seconds(sums["build_seconds"]), units.format_seconds(sums["saved_seconds"])]
    return [str(len(rows)), units.format_size(sums["bytes"]), str(sums["hits"]), *spans]
