"""What tests drew at random is told at the end of a run, whichever process drew it."""

from __future__ import annotations

import pytest

DRAWN = "drawn"  # of a test's properties: a text to show


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == DRAWN:
                terminalreporter.write_line(f"\n{text}")
