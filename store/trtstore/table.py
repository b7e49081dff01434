"""Columns of text, as wide as they need to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, pad: bool = False) -> Iterator[str]:
    """Lines with `heads` above `rows`; a head that begins with > is of a column that is set flush right.

    With `pad` the lines are all of one length, as a column of another table.

    Nothing where there are no rows. Control characters become `?`: what a record says cannot steer a terminal.

    >>> list(format_table(["name", ">size"], [["engine", "6 B"]]))
    ['name    size', 'engine   6 B']
    """
    if not rows:
        return
    right = [head.startswith(">") for head in heads]
    titles = [head.lstrip(">") for head in heads]
    widths = [len(title) for title in titles]
    for row in rows:
        widths = list(map(max, widths, map(len, row)))
    form = "  ".join(f"{{:{'>' if flush else '<'}{width}}}" for flush, width in zip(right, widths, strict=True))
    for row in chain([titles], rows):
        line = form.format(*row) if pad else form.format(*row).rstrip()
        yield line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)
