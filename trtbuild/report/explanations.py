"""Why a key is what it is, in words: what differs from the nearest engine, or what is equal in a hit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from trtbuild import history, provenance, unkeyed
from trtbuild.compilers.registry import COMPILERS
from trtbuild.history import Near
from trtbuild.key import LOCK
from trtbuild.lookup import Found
from trtbuild.plan import Plan
from trtbuild.rebuild import Rebuilt
from trtbuild.report import plans
from trtstore.digest import is_hex
from trtstore.manifest import Entry
from trtstore.table import table
from trtstore.words import seconds, size


def lines(
    plan: Plan,
    found: Found,
    near: Near | None,
    overrides: Sequence[str],
    sharers: Sequence[plans.Sharers] = (),
) -> Iterator[str]:
    """What `trtbuild explain` prints. `overrides` are the user's own words, `name=value`."""
    step = plan.final
    if found.record is not None:
        yield f"{step.name} {step.key[:12]} is in {found.store}{_when(provenance.told(found.record))}."
        yield "Its key holds these facts, and each of them is what this config asks for:"
        yield ""
        yield from _facts(plan)
    elif near is None:
        yield f"{step.name} {step.key[:12]} is in no store, and neither is any other {step.name} to compare it with."
        yield "Its key holds these facts:"
        yield ""
        yield from _facts(plan)
    else:
        yield f"{step.name} {step.key[:12]} is in no store."
        took = f", took {seconds(near.seconds)}" if near.seconds else ""
        where = "" if near.ours else f" in {near.store}"
        yield f"The nearest is {plans.called(near)}{where}{_when(provenance.told(near.record))}{took}."
        count = len(near.differences)
        yield f"{count} field{'s' if count != 1 else ''} of the key differ{'' if count != 1 else 's'}, there and here:"
        yield ""
        yield from _differences(plan, near)
    yield from plans.shared(sharers)
    yield from _unkeyed(plan, overrides)


def _when(told: provenance.Told) -> str:
    return f", built {told.built}" if told.built else ""


def _differences(plan: Plan, near: Near) -> Iterator[str]:
    own = plan.final.name
    rows = []
    for each in near.differences:
        others = [step for step in each.steps if step != own]
        note = f"({', '.join(others)})" if others and own not in each.steps else ""
        if each.field == "model.identity":
            note = _files(plan, provenance.told(near.record)) or note
        rows.append([f"  {each.field}", f"{_value(each.old)} → {_value(each.new)}", note])
    yield from _columns(rows)


def _files(plan: Plan, told: provenance.Told) -> str:
    """Which files of the checkpoint are others."""
    if not told.files or not plan.recipe.model.files:
        return ""
    here = {path: digest for path, _, digest in plan.recipe.model.files}
    other = [path for path in sorted({*here, *told.files}) if here.get(path) != told.files.get(path)]
    equal = len({*here, *told.files}) - len(other)
    shown = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
    return (
        f"({shown} differ{'s' if len(other) == 1 else ''}; {equal} of {equal + len(other)} files are equal)"
    )


def _facts(plan: Plan) -> Iterator[str]:
    rows = []
    seen: dict[str, Any] = {}
    tools = {step.name: step.toolchain for step in plan.steps}
    for step, fields in reversed(history.fields(plan.final).items()):
        for name, value in fields.items():
            if name in ("schema", "step.name") or seen.get(name, history.ABSENT) == value:
                continue
            seen.setdefault(name, value)
            note = [] if step == plan.final.name else [step]
            if name == LOCK:
                note += [f"{package} {version}" for package, version in tools[step].items()]
            rows.append([f"  {name}", _value(value), f"({', '.join(note)})" if note else ""])
    yield from _columns(rows)


def _unkeyed(plan: Plan, overrides: Sequence[str]) -> Iterator[str]:
    """Which of the user's own words are in no key."""
    unread = COMPILERS[plan.recipe.tools.name].unread
    rows = []
    for word in overrides:
        name = word.partition("=")[0].lstrip("+~")
        why = unkeyed.reason(name, unread)
        if why is not None:
            rows.append([f"  {name}", why])
    if rows:
        yield ""
        yield "Of what you gave, this is in no key:"
        yield ""
        yield from _columns(rows)


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows in columns, without a heading."""
    if rows:
        _, *lines = table([""] * len(rows[0]), rows)
        yield from lines


def _value(value: Any) -> str:
    """As YAML writes it; digests by their first twelve digits."""
    if value is history.ABSENT:
        return "(not read)"
    if isinstance(value, str):
        return value[:12] if is_hex(value) else value
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)


def rebuilt_lines(done: Rebuilt) -> Iterator[str]:
    """What `trtbuild rebuild` prints on standard output."""
    name, key, digest = done.record.labels.get("step", "artifact"), done.record.key[:12], done.record.manifest
    if done.same:
        yield f"{name} {key}: the same bytes, {done.record.files} files, {digest}"
        return
    yield f"{name} {key}: other bytes in {len(done.files)} of its files: {digest} in the store, {done.digest} now"
    yield ""
    rows = [[f"  {file.path}", _file(file.stored), _file(file.rebuilt)] for file in done.files]
    yield from table(["  file", "in the store", "rebuilt"], rows)


def _file(entry: Entry | None) -> str:
    return "(not there)" if entry is None else f"{entry.sha256[:12]}  {size(entry.size)}  {entry.mode}"
