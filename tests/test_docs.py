"""What the documentation names exists: files of this repository, and what its links lead to."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("store/*.md")])
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)(?:#[^)\s]*)?\)")
FILE = re.compile(
    r"(?<![\w/.-])((?:trtbuild|store/trtstore|trtstore|tests|bench|conf)/[\w/.-]+\.(?:py|yaml|json|c|sh))\b"
)


def test_links_lead_somewhere() -> None:
    lost = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in LINK.findall(page.read_text())
        if not (page.parent / link).exists()
    ]
    assert not lost, "\n".join(lost)


def test_files_that_are_named_exist() -> None:
    lost = []
    for page in PAGES:
        for name in FILE.findall(page.read_text()):
            if not any((base / name).exists() for base in (ROOT, ROOT / "store")):
                lost.append(f"{page.relative_to(ROOT)}: {name}")
    assert not lost, "\n".join(lost)


def test_modules_that_are_named_exist() -> None:
    """`checks.py` or `doctor/checks.py`: the end of some path. NVIDIA's own are not here."""
    paths = {
        f"/{path.relative_to(ROOT)}"
        for top in ("trtbuild", "store", "tests", "bench")
        for path in (ROOT / top).rglob("*.py")
    }
    lost = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        for name in re.findall(r"`([\w/.-]+\.py)`", page.read_text())
        if name != "convert_checkpoint.py" and not any(path.endswith(f"/{name}") for path in paths)
    ]
    assert not lost, "\n".join(lost)


def test_anchors_within_a_page_exist() -> None:
    lost = []
    for page in PAGES:
        text = page.read_text()
        heads = {
            re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-")
            for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        lost += [f"{page.name}: #{anchor}" for anchor in re.findall(r"\]\(#([^)]+)\)", text) if anchor not in heads]
    assert not lost, "\n".join(lost)
