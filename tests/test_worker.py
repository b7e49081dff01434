"""The worker's protocol: it refuses tools that the key does not name, and answers in JSON lines whatever happens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trtbuild.worker import matches


def work(tmp_path: Path, target: str, **request: Any) -> tuple[int, list[dict[str, Any]], str]:
    """Serve `target` in a process of its own; returns exit code, events and log."""
    asked = {"step": "s", "options": {}, "model": None, "inputs": {}, "toolchain": {}, "memory_bytes": None}
    path = tmp_path / "request.json"
    path.write_text(json.dumps(asked | request))
    code = f"from trtbuild.worker import serve; serve({target!r})"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path)},
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def module(tmp_path: Path, body: str) -> str:
    (tmp_path / "steps.py").write_text(f"import os, sys\n\ndef run(request, out, reporter):\n    {body}\n")
    return "steps:run"


def test_another_version_than_the_pinned_one_is_refused_before_the_step_is_imported(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text("raise SystemExit('imported')\n")
    code, events, _ = work(tmp_path, "steps:run", toolchain={"pytest": "1.0"})
    assert code == 1
    assert [event["event"] for event in events] == ["error"]
    assert "1.0" in events[0]["message"]
    assert "compiler.version=installed" in events[0]["hint"]


def test_a_missing_tool_is_refused(tmp_path: Path) -> None:
    code, events, _ = work(tmp_path, "steps:run", toolchain={"no-such-package": "1.0"})
    assert code == 1
    assert "no-such-package 1.0" in events[0]["message"]


def test_what_a_step_prints_goes_to_the_log_and_not_into_the_protocol(tmp_path: Path) -> None:
    body = "print('noise', flush=True); os.write(1, b'more\\n'); return {'n': 1}"
    code, events, log = work(tmp_path, module(tmp_path, body))
    assert code == 0
    assert events == [{"event": "result", "facts": {"n": 1}}]
    assert "noise" in log
    assert "more" in log


def test_an_exception_is_one_event_with_its_traceback_in_the_log(tmp_path: Path) -> None:
    code, events, log = work(tmp_path, module(tmp_path, "raise ValueError('two\\nlines')"))
    assert code == 1
    assert events[-1]["message"] == "ValueError: two"
    assert "Traceback" in log


def test_memory_beyond_the_limit_is_an_error_that_says_so(tmp_path: Path) -> None:
    body = "return {'n': len(bytearray(10**9))}"
    code, events, _ = work(tmp_path, module(tmp_path, body), memory_bytes=300_000_000)
    assert code == 1
    assert events[-1]["option"] == "executor.memory_gb"
    assert "out of memory" in events[-1]["message"]
    assert work(tmp_path, "steps:run", memory_bytes=2_000_000_000)[0] == 0


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ("2.13.0", "2.13.0", True),
        ("2.13.0+cpu", "2.13.0", True),
        ("2.13.0", "2.13.0+cpu", False),
        ("2.13.1", "2.13.0", False),
    ],
)
def test_versions_match_as_in_pep_440(found: str, wanted: str, same: bool) -> None:
    assert matches(found, wanted) is same
