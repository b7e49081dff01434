"""Sizes, spans and moments in words, and the words back to bytes and seconds."""

from __future__ import annotations

import datetime
import re
import unicodedata

MAX_LINE = 20_000  # characters that are shown of a line

_SIZES = {"": 1, "b": 1}
_SIZES |= {f"{prefix}b": 1000**power for power, prefix in enumerate("kmgtp", 1)}
_SIZES |= {f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgtp", 1)}
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def format_size(count: float) -> str:
    """Decimal units, three digits: `540 MB`.

    >>> format_size(540_300_000)
    '540 MB'
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" or abs(count) >= 99.95 else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError  # the loop returns at TB


def format_seconds(value: float) -> str:
    """A span that a build takes: `3.1 s`, `4 min 10 s`, `2 h 5 min`.

    >>> format_seconds(250)
    '4 min 10 s'
    """
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_span(value: float) -> str:
    """An age in one unit: `now`, `5 min`, `3 h`, `12 days`.

    >>> format_span(3 * 3600)
    '3 h'
    """
    for unit, length in (("day", 86_400), ("h", 3600), ("min", 60)):
        count = int(value // length)
        if count:
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''}"
    return "now"


def format_ago(value: float) -> str:
    """`just now`, `3 h ago`.

    >>> format_ago(3 * 3600)
    '3 h ago'
    """
    return "just now" if value < 60 else f"{format_span(value)} ago"


def moment(value: float) -> str:
    """Seconds since the epoch as local time, to the second."""
    try:
        return datetime.datetime.fromtimestamp(value).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    except (ValueError, OverflowError, OSError):  # a time that no calendar has: anybody may have written it
        return "an unknown time"


def printable(text: str, most: int = MAX_LINE) -> str:
    """A line of at most `most` characters, without what a terminal obeys: anybody may have written it."""
    text = text if len(text) <= most else f"{text[:most]}…"
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\t" else each.encode("unicode_escape").decode("ascii") for each in text
    )


MOST = 1 << 63  # bytes
LONGEST = 100 * 366 * 86_400.0  # seconds


def parse_size(text: str) -> int:
    """Bytes of `200GB` (10^9), `10GiB` (2^30), `5000`. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]{0,3})", text.strip())
    if match is None or match[2].lower() not in _SIZES:
        raise ValueError(f"{text!r} is no size: write 200GB, 10GiB or a number of bytes")
    size = float(match[1]) * _SIZES[match[2].lower()]
    if size >= MOST:
        raise ValueError(f"{text[:40]} is more than any disk has")
    return int(size)


def parse_span(text: str) -> float:
    """Seconds of `90s`, `30m`, `12h`, `7d`, `2w` or a number of seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no span of time: write 90s, 30m, 12h or 7d")
    span = float(match[1]) * _SPANS[match[2] or "s"]
    if span > LONGEST:
        raise ValueError(f"{text[:40]} is longer than a hundred years")
    return span


def shown(text: str) -> str:
    """`text` of somebody else's, as a terminal shows it as it is: what is invisible, or turns the order round, is
    written out."""
    return "".join(
        ascii(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else c for c in text
    )
