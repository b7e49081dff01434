"""A report as one HTML page that needs nothing else, beside the same as CSV and JSON.

The tables are in the page as they are; its script sorts and filters them and draws the plots. All that comes from a
config or a record is escaped, and the page's own policy lets it load nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from html import escape
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from trtbuild.errors import InputError
from trtbuild.redact import redact_json, redactor
from trtbuild.report import plots
from trtbuild.report.rows import Bar, ReportRow, as_csv
from trtstore import format_seconds, format_size

SCHEMA = 1
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data:"
#: name of a column, its field, and whether it holds numbers
COLUMNS = (
    ("point", "point", False),
    ("outcome", "outcome", False),
    ("size", "bytes", True),
    ("took", "seconds", True),
    ("peak memory", "peak_memory_bytes", True),
    ("loads in", "load_seconds", True),
    ("tokens/s", "tokens_per_second", True),
    ("quality", "quality", True),
    ("Pareto", "pareto", False),
    ("key", "key", False),
    ("command", "command", False),
)


@dataclass(frozen=True)
class ReportPage:
    """What a page shows. `bars` are empty where nothing ran."""

    title: str
    summary: str
    rows: Sequence[ReportRow]
    bars: Sequence[Bar] = ()
    forecast: Mapping[str, Any] | None = None


def check(folder: str) -> None:
    """Raises InputError where a report could not be written, before there is one."""
    if Path(folder).exists() and not Path(folder).is_dir():
        raise InputError(f"{folder} is no folder", option="report", hint="name a folder, which need not exist")
    _plotter()


def write(report: ReportPage, folder: Path) -> Path:
    """index.html, points.csv and report.json in `folder`, each whole or not at all; the page's path.

    Raises InputError.
    """
    report = _without_secrets(report)
    document = {
        "schema": SCHEMA,
        "title": report.title,
        "summary": report.summary,
        "forecast": report.forecast,
        "points": [asdict(row) for row in report.rows],
        "timeline": [asdict(bar) for bar in report.bars],
    }
    texts = {
        "points.csv": as_csv(report.rows),
        "report.json": json.dumps(document, indent=1),
        "index.html": html(report),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            written = folder / f".{name}.new"
            written.write_text(text, encoding="utf-8")
            written.replace(folder / name)
    except OSError as failure:
        raise InputError(f"{folder} cannot be written: {failure.strerror}", option="report") from None
    return folder / "index.html"


def _without_secrets(report: ReportPage) -> ReportPage:
    """Text by text: the page holds a library whose code must stay as it is."""
    hide = redactor()

    def hidden(of: Any) -> Any:
        texts = {each.name: getattr(of, each.name) for each in fields(of)}
        return replace(of, **{name: hide(text) for name, text in texts.items() if isinstance(text, str)})

    shown: ReportPage = replace(hidden(report), rows=[hidden(row) for row in report.rows])
    return replace(shown, bars=[hidden(bar) for bar in report.bars], forecast=redact_json(report.forecast))


def html(report: ReportPage) -> str:
    """The page. Raises InputError where the plots' library is not installed."""
    drawn = {"scatter": plots.scatter(report.rows), "timeline": plots.timeline(report.bars)}
    specs = {name: spec for name, spec in drawn.items() if spec is not None}
    data = json.dumps({"plots": specs, "palette": plots.PALETTE}).replace("<", "\\u003c")
    library = _plotter().javascript_bundle() if specs else ""
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(report.title)}</title>\n<style>{_file('page.css')}</style>\n</head>\n<body>",
            '<a class="skip" href="#points">To the table of points</a>',
            f"<header><div><h1>{escape(report.title)}</h1><p>{escape(report.summary)}</p></div>",
            '<button id="theme" type="button" hidden>Dark theme</button></header>\n<main>',
            *_matrix(report.rows),
            *_figure("scatter", "Size and speed", _measured(report.rows), "scatter" in specs),
            *(_figure("timeline", "Timeline", "", True) if "timeline" in specs else ()),
            *_table(report.rows),
            "</main>\n<footer><p>The same as data: "
            '<a href="points.csv">points.csv</a>, <a href="report.json">report.json</a>.</p></footer>',
            f'<script type="application/json" id="data">{data}</script>',
            f'<script type="module">{library}</script>\n<script type="module">{_file("page.js")}</script>',
            "</body>\n</html>\n",
        ]
    )


def _plotter() -> Any:
    try:
        return import_module("vl_convert")  # large, and an extra
    except ModuleNotFoundError:
        raise InputError(
            "vl-convert-python is not installed", option="report", hint="pip install 'trtbuild[report]'"
        ) from None


def _file(name: str) -> str:
    return resources.files("trtbuild.report").joinpath(name).read_text(encoding="utf-8")


def _figure(name: str, title: str, caption: str, drawn: bool) -> Iterator[str]:
    yield f"<section><h2>{title}</h2><figure>"
    if drawn:
        yield f'<div class="plot" id="{name}"></div>'
    yield f"<figcaption>{escape(caption)}</figcaption></figure></section>"


def _measured(rows: Sequence[ReportRow]) -> str:
    count = sum(row.tokens_per_second is not None for row in rows)
    if not count:
        return "No engine was executed, so there is no speed to show."
    words = "The dashed line joins those that no other of their model and target beats in size and speed together."
    return words if count == len(rows) else f"{words} {len(rows) - count} of {len(rows)} were not measured."


def _matrix(rows: Sequence[ReportRow]) -> Iterator[str]:
    """Model and quantization by target."""
    columns = sorted({(row.target, row.compiler) for row in rows if row.target})
    lines = sorted({(row.model, row.quant) for row in rows if row.target})
    if not lines:
        return
    cells: dict[tuple[str, ...], list[ReportRow]] = {}
    for row in rows:
        cells.setdefault((row.model, row.quant, row.target, row.compiler), []).append(row)
    yield '<section><h2>Matrix</h2><div class="wide" tabindex="0" role="region" aria-label="Matrix"><table><thead><tr>'
    yield '<th scope="col">model</th><th scope="col">quant</th>'
    yield "".join(
        f'<th scope="col">{escape(target)}<small>{escape(compiler)}</small></th>' for target, compiler in columns
    )
    yield "</tr></thead><tbody>"
    for model, quant in lines:
        yield f'<tr><th scope="row">{escape(model)}</th><th scope="row">{escape(quant)}</th>'
        for column in columns:
            yield f"<td>{_cells(cells.get((model, quant, *column), []))}</td>"
        yield "</tr>"
    yield "</tbody></table></div></section>"


def _cells(rows: Sequence[ReportRow]) -> str:
    """Each engine of a place in the matrix once; with the words of its point where there are several."""
    distinct = {row.key: row for row in reversed(rows)}.values()  # the first of those with one key
    return "".join(_cell(row, row.point if len(distinct) > 1 else "") for row in reversed(distinct))


def _cell(row: ReportRow, point: str) -> str:
    numbers = [shown(row, name) for name in ("bytes", "seconds", "tokens_per_second")]
    if numbers[2]:
        numbers[2] += " tokens/s"
    more = escape(", ".join(number for number in numbers if number) or row.error)
    whose = f"<small>{escape(point)}</small>" if point else ""
    return f'<span class="{escape(row.outcome)}">{escape(row.outcome)}</span><small>{more}</small>{whose}'


def _table(rows: Sequence[ReportRow]) -> Iterator[str]:
    columns = [column for column in COLUMNS if column[1] != "quality" or any(row.quality for row in rows)]
    yield '<section><h2 id="points-title">Points</h2><div class="tools">'
    yield '<label>Filter <input id="filter" type="search" autocomplete="off"></label>'
    yield '<span id="shown" role="status"></span></div>'
    yield '<div class="wide" tabindex="0" role="region" aria-labelledby="points-title"><table id="points"><thead><tr>'
    for title, _, numeric in columns:
        kind = ' class="number"' if numeric else ""
        yield f'<th scope="col"{kind}><button type="button">{escape(title)}</button></th>'
    yield "</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{''.join(_td(row, field, numeric) for _, field, numeric in columns)}</tr>"
    yield "</tbody></table></div></section>"


def _td(row: ReportRow, field: str, numeric: bool) -> str:
    value = getattr(row, field)
    text = escape(shown(row, field))
    if numeric:
        return f'<td class="number" data-value="{"" if value is None else value}">{text}</td>'
    if field == "point":
        return f'<th scope="row">{text}</th>'
    if field == "outcome":
        error = f"<small>{escape(row.error)}</small>" if row.error else ""
        return f'<td><span class="{text}">{text}</span>{error}</td>'
    if field == "command":
        copy = '<button class="copy" type="button" hidden>Copy</button>'
        return f"<td><details><summary>show</summary><code>{text}</code>{copy}</details></td>"
    return f"<td>{text}</td>"


def shown(row: ReportRow, field: str) -> str:
    """A field for people."""
    value = getattr(row, field)
    if value is None:
        return ""
    if field in ("bytes", "peak_memory_bytes"):
        return format_size(value)
    if field == "seconds":
        return format_seconds(value)
    if field == "load_seconds":
        return f"{value:.2f} s"
    if field == "tokens_per_second":
        return f"{value:.0f}"
    if field == "pareto":
        return "yes" if value else ""
    return str(value)[:12] if field == "key" else str(value)
