"""The way of a build in docs/architecture.md is the one that a build takes, from the command line to the worker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.support.cli import Project

ROOT = Path(__file__).parents[2]

# Runs the command line, and writes for each start of a process its words and the stack that led to it.
PROBE = """
import json, sys, traceback

def on_event(event, arguments):
    if event == "subprocess.Popen":
        calls = [(frame.filename, frame.name) for frame in traceback.extract_stack()]
        starts.write(json.dumps([[str(word) for word in arguments[1]], calls]) + "\\n")
        starts.flush()

starts = open(sys.argv.pop(1), "w")
from trtbuild import entry
sys.addaudithook(on_event)
sys.exit(entry.main())
"""


def test_the_way_of_a_build_is_the_one_that_it_takes(project: Project, tiny_llama: Path, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    words = [f"model.source={tiny_llama}", "until=network"]
    command = [sys.executable, "-c", PROBE, starts, *words]
    subprocess.run(command, env=project.environment(), cwd=project.root, check=True, capture_output=True)
    lines = [json.loads(line) for line in starts.read_text().splitlines()]
    (calls,) = (calls for command, calls in lines if "trtbuild.networks" in command)
    way = [(str(Path(file).relative_to(ROOT)), name) for file, name in calls if file.startswith(f"{ROOT}/trtbuild/")]
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.partition("### One build, file by file")[2].partition("\n## ")[0]
    assert way == re.findall(r"^\| `([\w/.]+)` \| `(\w+)` \|", section, re.MULTILINE)
    assert len(way) <= 8 and len({file for file, _ in way}) <= 5
