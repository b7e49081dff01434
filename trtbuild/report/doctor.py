"""What the doctor found, in words and as a document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from trtbuild.doctor.checks import Examined

_MARKS = {"ok": "ok", "missing": "MISSING", "warning": "note", "unneeded": "-"}


def lines(checks: Sequence[Examined]) -> Iterator[str]:
    """A line for each check; below a failed check, the commands that fix it."""
    wide = max(len(check.name) for check in checks)
    for check in checks:
        mark = _MARKS[check.state]
        yield f"{check.name:<{wide}}  {mark:<7}  {check.words}"
        if check.state in ("missing", "warning"):
            yield from (f"{'':<{wide}}           $ {command}" for command in check.mend)
    failed = [check.name for check in checks if check.failed]
    yield ""
    if failed:
        yield f"A build with this config lacks: {', '.join(failed)}."
    else:
        yield "A build with this config can work here."


def document(checks: Sequence[Examined]) -> dict[str, Any]:
    """For output=json."""
    return {
        "schema": 1,
        "ok": not any(check.failed for check in checks),
        "checks": [
            {
                "name": check.name,
                "state": check.state,
                "required": check.required,
                "words": check.words,
                "mend": list(check.mend),
            }
            for check in checks
        ],
    }
