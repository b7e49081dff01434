"""The report in a real browser: Chromium, without a network."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.support import tiny
from tests.support.cli import TRTBUILD, Project
from trtbuild.report import page, rows
from trtbuild.report.rows import ReportRow

pytestmark = pytest.mark.xdist_group("report")
NASTY = "<script>document.title='stolen'</script>&\"'</script>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose folder `report` tells of a sweep of four points, one of which failed."""
    project = Project(tmp_path_factory.mktemp("report"))
    models = f"{tiny.write_model(project.root / 'a', seed=1)},{project.root / 'nowhere'}"
    done = project.trtbuild("-m", f"model.source={models}", "quant=none,int4", "report=report")
    assert done.code == 2, done.err
    assert f"report: {Path('report', 'index.html')}" in done.err
    return project


def opened(chromium: Any, path: Path, **options: Any) -> Page:
    """The page, drawn; whatever it asks of a network, or complains of, fails the test."""
    shown: Page = chromium.new_page(**options)
    shown.on("pageerror", lambda error: pytest.fail(f"the page's script failed: {error}"))
    shown.on("request", lambda request: pytest.fail(request.url) if request.url.startswith("http") else None)
    shown.goto(path.as_uri())
    shown.wait_for_selector("html[data-drawn=true]")
    return shown


def first_column(shown: Page) -> list[str]:
    return shown.locator("#points tbody tr:visible th").all_inner_texts()


def test_the_table_sorts_and_filters(swept: Project, chromium: Any) -> None:
    shown = opened(chromium, swept.root / "report" / "index.html")
    assert len(first_column(shown)) == 4
    size = shown.locator("#points thead th", has_text="size")
    size.get_by_role("button").click()
    assert size.get_attribute("aria-sort") == "ascending"
    smallest = first_column(shown)[0]
    assert "int4" in smallest
    size.get_by_role("button").press("Enter")  # by keyboard, too
    assert size.get_attribute("aria-sort") == "descending"
    assert first_column(shown).index(smallest) > 0
    shown.get_by_label("Filter").fill("int4 built")
    assert [("int4" in text) for text in first_column(shown)] == [True]
    assert shown.get_by_role("status").inner_text() == "1 of 4 shown"
    shown.get_by_label("Filter").fill("")
    assert "there is nothing at" in shown.locator("#points").inner_text()


def test_a_point_tells_of_itself_and_the_theme_switches(swept: Project, chromium: Any) -> None:
    shown = opened(chromium, swept.root / "report" / "index.html", color_scheme="light")
    shown.locator("#scatter .mark-symbol path").first.hover()
    tip = shown.locator("#vg-tooltip-element")
    tip.wait_for(state="visible")
    assert "tokens_per_second" in tip.inner_text()
    colour = "getComputedStyle(document.body).backgroundColor"
    light = shown.evaluate(colour)
    shown.get_by_role("button", name="Dark theme").click()
    assert shown.evaluate(colour) != light
    assert shown.get_by_role("button", name="Light theme").is_visible()
    assert shown.locator("#timeline svg").count() == 1


def test_it_fits_a_phone_and_prints(swept: Project, chromium: Any) -> None:
    shown = opened(chromium, swept.root / "report" / "index.html", viewport={"width": 390, "height": 844})
    assert shown.evaluate("document.documentElement.scrollWidth") == 390
    shown.emulate_media(media="print", color_scheme="dark")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not shown.locator("#theme").is_visible()


def test_a_reader_finds_headings_tables_and_drawings_by_name(swept: Project, chromium: Any) -> None:
    shown = opened(chromium, swept.root / "report" / "index.html")
    for name in ("Matrix", "Size and speed", "Timeline", "Points"):
        assert shown.get_by_role("heading", name=name).count() == 1
    assert shown.locator("#scatter").get_attribute("aria-label") == "Size against speed of each engine"
    engines = shown.locator("#scatter [role=graphics-symbol][aria-label*='tokens_per_second']")
    assert engines.count() == 2
    assert "quant: int4" in " ".join(each.get_attribute("aria-label") or "" for each in engines.all())
    assert shown.get_by_role("columnheader", name="tokens/s").count() == 1
    assert shown.locator("th[scope=row]").count() > 4


def test_the_same_as_data(swept: Project) -> None:
    folder = swept.root / "report"
    assert {path.name for path in folder.iterdir()} == {"index.html", "points.csv", "report.json"}
    document = json.loads((folder / "report.json").read_text())
    assert document["schema"] == 1
    assert [point["outcome"] for point in document["points"]] == ["built", "built", "failed", "failed"]
    assert {bar["phase"] for bar in document["timeline"]} >= {"building", "checking"}
    assert all(0 <= bar["begin"] <= bar["end"] for bar in document["timeline"])
    with (folder / "points.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["key"] for row in table] == [point["key"] for point in document["points"]]
    again = swept.trtbuild(*table[0]["command"].split()[1:], "output=json")
    assert again.json["key"] == table[0]["key"]
    assert again.json["outcome"] == "hit-local"


def test_a_store_has_the_same_page(swept: Project, chromium: Any) -> None:
    done = subprocess.run(
        [TRTBUILD.with_name("trtstore"), "report", "of-store"],
        cwd=swept.root,
        env=swept.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    shown = opened(chromium, swept.root / done.stdout.strip())
    assert len(first_column(shown)) == 2
    assert shown.locator("#timeline").count() == 0


def test_what_a_record_says_is_never_run(chromium: Any, tmp_path: Path) -> None:
    row = ReportRow(NASTY, NASTY, NASTY, NASTY, NASTY, "0" * 64, "built", bytes=5, tokens_per_second=3.0, command=NASTY)
    formula = ReportRow("=1+1", "", "", "", "", "", "failed", error=NASTY)
    path = page.write(page.ReportPage("a report", NASTY, [row, formula]), tmp_path / "report")
    shown = opened(chromium, path)
    assert shown.title() == "a report"
    assert first_column(shown)[0] == NASTY
    assert "'=1+1" in (tmp_path / "report" / "points.csv").read_text()


def test_the_pareto_set_is_what_nothing_beats() -> None:
    def row(size: int, speed: float | None, target: str = "cpu") -> ReportRow:
        return ReportRow("p", "m", "q", target, "c", "k", "built", bytes=size, tokens_per_second=speed)

    given = [row(10, 5.0), row(10, 4.0), row(20, 5.0), row(30, 9.0), row(5, None), row(99, 1.0, "gpu")]
    assert [each.pareto for each in rows.with_pareto(given)] == [True, False, False, True, False, True]


def test_a_report_that_cannot_be_written_is_refused_first(project: Project, tiny_llama: Path) -> None:
    (project.root / "file").touch()
    done = project.trtbuild("-m", f"model.source={tiny_llama}", "report=file")
    assert done.code == 2
    assert "report: file is no folder" in done.err
    assert project.records() == []
    done = project.trtbuild(f"model.source={tiny_llama}", "report=folder")
    assert done.code == 2
    assert "report: works only with a sweep" in done.err
