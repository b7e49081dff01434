"""The plots of a report, as Vega-Lite: size against speed, and a sweep's time by worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from trtbuild.report.rows import Bar, ReportRow

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
#: Told apart with any colour vision, on white and on black (Okabe and Ito's, and lighter ones).
PALETTE = {
    "light": ["#0072b2", "#d55e00", "#00785a", "#a03c78", "#8a6d00", "#444444"],
    "dark": ["#56b4e9", "#e69f00", "#2fd3a6", "#e79bc7", "#f0e442", "#bbbbbb"],
}
PHASES = ["waiting", "installing", "fetching", "building", "checking"]


def scatter(rows: Sequence[ReportRow]) -> dict[str, Any] | None:
    """Size against speed, the Pareto set joined by a line; None where nothing was measured."""
    measured = [row for row in rows if row.bytes is not None and row.tokens_per_second is not None]
    if not measured:
        return None
    values = [{**asdict(row), "megabytes": (row.bytes or 0) / 1e6} for row in measured]
    x = {
        "field": "megabytes",
        "type": "quantitative",
        "title": "size (MB)",
        "scale": {"zero": False, "nice": True},
    }
    y = {"field": "tokens_per_second", "type": "quantitative", "title": "tokens/s"}
    tips = [
        ("point", ""),
        ("megabytes", ".1f"),
        ("tokens_per_second", ".0f"),
        ("load_seconds", ".2f"),
        ("seconds", ".1f"),
    ]
    points: dict[str, Any] = {
        "mark": {"type": "point", "filled": True, "size": 110, "opacity": 0.9},
        "encoding": {
            "x": x,
            "y": y,
            "color": {"field": "quant", "type": "nominal"},
            "shape": {"field": "model", "type": "nominal"},
            "tooltip": [{"field": name, "format": form} if form else {"field": name} for name, form in tips],
        },
    }
    if any(row.quality is not None for row in measured):
        points["encoding"]["size"] = {"field": "quality", "type": "quantitative"}
        points["encoding"]["tooltip"].append({"field": "quality"})
    front = {
        "transform": [{"filter": "datum.pareto"}],
        "mark": {"type": "line", "strokeDash": [4, 3], "opacity": 0.7, "aria": False},
        "encoding": {
            "x": x,
            "y": y,
            "order": {"field": "megabytes", "type": "quantitative"},
            "detail": [{"field": "model"}, {"field": "target"}],
            "color": {"value": "#888888"},
        },
    }
    return _spec(values, {"layer": [front, points], "height": 320}, "Size against speed of each engine")


def timeline(bars: Sequence[Bar]) -> dict[str, Any] | None:
    """What each worker did, from left to right; None where none ran."""
    if not bars:
        return None
    encoding = {
        "y": {"field": "worker", "type": "nominal", "title": None, "axis": {"labelLimit": 220}},
        "x": {"field": "begin", "type": "quantitative", "title": "seconds since the sweep began"},
        "x2": {"field": "end"},
        "color": {"field": "phase", "type": "nominal", "sort": PHASES},
        "tooltip": [{"field": "step"}, {"field": "phase"}, {"field": "begin"}, {"field": "end"}],
    }
    mark = {"type": "bar", "stroke": "#888888", "strokeWidth": 0.5}
    shape = {"mark": mark, "encoding": encoding, "height": 26 * len({bar.worker for bar in bars})}
    return _spec([asdict(bar) for bar in bars], shape, "What each worker did, over time")


def _spec(values: list[dict[str, Any]], shape: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "$schema": SCHEMA,
        "description": description,
        "data": {"values": values},
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        **shape,
    }
