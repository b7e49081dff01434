"""Garbage collection: removes unreachable things, then, above a limit, what is cheapest to lose, each with a reason.

`plan` decides and changes nothing. `collect` reads what is new first, then decides again and moves the victims into
a folder of tmp/, records before blobs, while no process adds or removes; the bytes are freed after that. So adders wait
for a decision and some renames, and a kill leaves garbage for the next time, never a record without its blobs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from trtstore.content import read
from trtstore.disk import gate, partial, scratch
from trtstore.disk.layout import Layout, read_bounded
from trtstore.disk.locks import OnWait
from trtstore.errors import Malformed, NoSpace, as_store_failures
from trtstore.format import manifest
from trtstore.index import usage
from trtstore.index.index import Index
from trtstore.index.seals import Seals
from trtstore.marks import doubts
from trtstore.upkeep.catalog import Catalog, OnParsed
from trtstore.upkeep.decisions import EvictionPlan
from trtstore.upkeep.plan import make_plan

_FULL = (errno.ENOSPC, errno.EDQUOT)


def plan(
    layout: Layout, index: Index, limit: int | None, grace: float, on_parsed: OnParsed = lambda _: None
) -> EvictionPlan:
    """What `collect` would do now. Raises NotReadable, StoreFailure."""
    with as_store_failures(layout.root, reading=True):
        return make_plan(layout, index, limit, grace, on_parsed)


def collect(
    layout: Layout,
    index: Index,
    limit: int | None,
    grace: float,
    on_parsed: OnParsed = lambda _: None,
    on_wait: OnWait | None = None,
) -> EvictionPlan:
    """Remove unreachable things, and then the cheapest artifacts until at most `limit` bytes are left.

    Everything that was used within `grace` seconds stays. Raises NotWritable, StoreFailure.
    """
    with as_store_failures(layout.root, reading=True):
        if not layout.base.is_dir():
            return EvictionPlan(limit)
        layout.check()
    scratch.sweep(layout)
    partial.sweep(layout, grace)
    with as_store_failures(layout.root, reading=True):
        for _ in Catalog(layout, index).named(on_parsed):
            pass  # the slow part, before other processes have to wait
    with ExitStack() as until_freed:
        try:
            bin_ = until_freed.enter_context(scratch.folder(layout))
        except NoSpace:
            bin_ = None  # then what goes is deleted in place: space is what is wanted here
        with gate.removing(layout, who=f"a collection, process {os.getpid()}", on_wait=on_wait):
            with as_store_failures(layout.root, reading=True):
                mine = None if bin_ is None else bin_.parent
                evictions = make_plan(layout, index, limit, grace, on_parsed, mine)
            with as_store_failures(layout.root):
                _remove(layout, evictions, bin_)
        seals = Seals(index, layout.base)
        if bin_ is not None:
            _unlink(layout, evictions, bin_, seals)
    keys, gone = ([d.name for d in evictions.removed if d.kind == kind] for kind in ("record", "tree"))
    usage.forget(index, keys)
    index.forget("copied", gone)
    seals.forget(keys=keys, trees=gone, blobs=[*evictions.blobs()])
    return evictions


def _unlink(layout: Layout, evictions: EvictionPlan, bin_: Path, seals: Seals) -> None:
    """Remove from `bin_` the trees' links to blobs that stay, one by one: each has another ctime then, and is sealed
    again, so that its bytes need not be read."""
    gone = {digits: bin_ / f"b{number}" for number, digits in enumerate(evictions.blobs())}
    for number, decision in enumerate(d for d in evictions.removed if d.kind != "record"):
        if decision.kind != "tree":
            continue
        with suppress(Malformed, OSError):
            data = read_bounded(gone.get(decision.name, layout.blob(decision.name)), manifest.MAX_BYTES)
            for entry in manifest.parse(data or b"").entries:
                if entry.sha256 not in gone:
                    with suppress(OSError), seals.linking(entry.sha256, layout.blob(entry.sha256)):
                        (bin_ / f"o{number}" / entry.path).unlink()
    seals.flush()


def _remove(layout: Layout, evictions: EvictionPlan, bin_: Path | None) -> None:
    records = [decision.place(layout) for decision in evictions.removed if decision.kind == "record"]
    others = [decision.place(layout) for decision in evictions.removed if decision.kind != "record"]
    _discard(records, bin_, "r")
    for shard in {path.parent for path in records}:
        layout.sync(shard)  # no power failure may bring back a record whose blobs are gone
    _discard(others, bin_, "o")
    _discard(map(layout.blob, evictions.blobs()), bin_, "b")
    for key in doubts.found(layout):
        if read.identity(layout, key) is None:  # no record is added meanwhile
            doubts.clear(layout, key)


def _discard(paths: Iterable[Path], bin_: Path | None, prefix: str) -> None:
    for number, path in enumerate(paths):
        try:
            if bin_ is not None:
                path.rename(bin_ / f"{prefix}{number}")
                continue
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in _FULL:
                raise
        _erase(path)  # a folder of names may need space too


def _erase(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        scratch.remove_folder(path)
    else:
        path.unlink(missing_ok=True)  # or an error: a record that stays must keep its blobs
