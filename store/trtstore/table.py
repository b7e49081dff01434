"""Columns of text, as wide as they need to be."""

from __future__ import annotations

from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with `heads` above `rows`; a head that begins with > is of a column that is set flush right.

    Nothing where there are no rows. Control characters become `?`: what a record says cannot steer a terminal.
    """
    if not rows:
        return []
    right = [head.startswith(">") for head in heads]
    shown = [[head.lstrip(">") for head in heads], *rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    form = "  ".join(
        f"{{:{'>' if flush else '<'}{width}}}" for flush, width in zip(right, widths, strict=True)
    )
    lines = [form.format(*row).rstrip() for row in shown]
    return [
        line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line) for line in lines
    ]
