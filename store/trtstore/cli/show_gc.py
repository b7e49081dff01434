"""What a collection did, or would do, in words: each thing that goes, with the reason, and why the others stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import Any

from trtstore import units
from trtstore.cli.output import Output
from trtstore.cli.show import SHORT
from trtstore.upkeep.decisions import Decision, EvictionPlan
from trtstore.upkeep.score import HORIZON


def plan(output: Output, evictions: EvictionPlan, *, dry_run: bool, everything: bool) -> None:
    """`trtstore gc`."""
    if output.json:
        document = {
            "dry_run": dry_run,
            "limit_bytes": evictions.limit,
            "before_bytes": evictions.before,
            "after_bytes": evictions.after,
            "met": evictions.met,
            "decisions": (_decision(one) for one in evictions.decisions),
        }
        output.say(document, ())
        return
    closing = _closing(evictions, dry_run=dry_run, everything=everything)
    output.say({}, chain(_decisions(evictions, "would go" if dry_run else "gone", everything=everything), closing))


def _decisions(evictions: EvictionPlan, gone: str, *, everything: bool) -> Iterator[str]:
    """A line for each decision, made one by one."""
    labels = {id(one.labels): one.labels for one in evictions.decisions}  # equal ones are one object
    kinds = {it: " ".join(value for _, value in sorted(each.items())) for it, each in labels.items()}
    size = lru_cache(None)(units.format_size)
    width = max(map(len, kinds.values()), default=0)
    form = "{:%d}  {:10}  {:12}  {:>8}  {:%d}  {}" % (len(gone), width)  # noqa: UP031  # it makes a form
    titled = False
    for one in evictions.decisions:
        if everything or (one.remove and (one.bytes or one.kind != "tree")):
            if not titled:
                yield form.format("", "KIND", "NAME", "BYTES", "LABELS"[:width], "WHY")
                titled = True
            state = gone if one.remove else "stays"[: len(gone)]
            yield form.format(state, one.kind, one.name[:SHORT], size(one.bytes), kinds[id(one.labels)], _why(one))


def _closing(evictions: EvictionPlan, *, dry_run: bool, everything: bool) -> Iterator[str]:
    reasons = Counter(one.reason for one in evictions.decisions if not one.remove and one.kind == "record")
    for why, count in () if everything else reasons.most_common():
        yield f"{count} artifact{'s stay' if count > 1 else ' stays'}: {why}"
    after = evictions.after
    limit = "" if evictions.limit is None else f"; the limit is {units.format_size(evictions.limit)}"
    verb = "would free" if dry_run else "freed"
    yield f"{verb} {units.format_size(evictions.before - after)} of {units.format_size(evictions.before)}{limit}"
    if not evictions.met:
        over = units.format_size(after - (evictions.limit or 0))
        yield f"{over} above the limit: all that is left must stay (`--all` says why)"


def _why(one: Decision) -> str:
    if one.worth is None:
        return one.reason
    it = one.worth
    built = f"{'' if it.known else 'about '}{units.format_seconds(it.seconds)} to build"
    used = f"used {it.hits} time{'' if it.hits == 1 else 's'}, {units.format_ago(it.idle)}"
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
