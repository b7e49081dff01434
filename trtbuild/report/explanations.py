"""Explains a key in words: the differences from the nearest engine, or the facts of a hit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from trtbuild.artifacts import history, provenance
from trtbuild.artifacts.chain import Located
from trtbuild.artifacts.history import NearestBuild
from trtbuild.building.rebuild import Rebuilt
from trtbuild.compilers.registry import COMPILERS
from trtbuild.facts import key_exclusions
from trtbuild.facts.key import LOCK
from trtbuild.planning.plan import Plan
from trtbuild.report import plans
from trtstore import Entry, format_seconds, format_size, format_table, is_hex


def lines(
    plan: Plan,
    located: Located,
    near: NearestBuild | None,
    overrides: Sequence[str],
    sharers: Sequence[plans.Sharers] = (),
) -> Iterator[str]:
    """What `trtbuild explain` prints. `overrides` are the user's own words, `name=value`."""
    step = plan.final
    if located.record is not None:
        yield f"{step.name} {step.key[:12]} is in {located.store}{_when(provenance.parse(located.record))}."
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
        took = f", took {format_seconds(near.seconds)}" if near.seconds else ""
        where = "" if near.ours else f" in {near.store}"
        yield f"The nearest is {plans.called(near)}{where}{_when(provenance.parse(near.record))}{took}."
        count = len(near.differences)
        yield f"{count} difference{'s' if count != 1 else ''} from the nearest {step.name} (old → new):"
        yield ""
        yield from _differences(plan, near)
    yield from plans.shared(sharers)
    yield from _unkeyed(plan, overrides)


def _when(build: provenance.ParsedProvenance) -> str:
    return f", built {build.built}" if build.built else ""


def _differences(plan: Plan, near: NearestBuild) -> Iterator[str]:
    own = plan.final.name
    rows = []
    for each in near.differences:
        others = [step for step in each.steps if step != own]
        note = f"({', '.join(others)})" if others and own not in each.steps else ""
        if each.field == "model.identity":
            note = _files(plan, provenance.parse(near.record)) or note
        rows.append([f"  {each.field}", f"{_value(each.old)} → {_value(each.new)}", note])
    yield from _columns(rows)


def _files(plan: Plan, build: provenance.ParsedProvenance) -> str:
    """Which files of the checkpoint differ."""
    if not build.files or not plan.recipe.model.files:
        return ""
    here = {path: digest for path, _, digest in plan.recipe.model.files}
    other = [path for path in sorted({*here, *build.files}) if here.get(path) != build.files.get(path)]
    equal = len({*here, *build.files}) - len(other)
    shown = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
    return f"({shown} differ{'s' if len(other) == 1 else ''}; {equal} of {equal + len(other)} files are equal)"


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
    """Which of the user's options are in no key."""
    unread = COMPILERS[plan.recipe.tools.name].unread
    rows = []
    for word in overrides:
        name = word.partition("=")[0].lstrip("+~")
        why = key_exclusions.reason(name, unread)
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
        _, *lines = format_table([""] * len(rows[0]), rows)
        yield from lines


def _value(value: Any) -> str:
    """A value as YAML writes it; a digest by its first twelve digits."""
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
    yield from format_table(["  file", "in the store", "rebuilt"], rows)


def _file(entry: Entry | None) -> str:
    return "(not there)" if entry is None else f"{entry.sha256[:12]}  {format_size(entry.size)}  {entry.mode}"
