"""The command `trtstore` as trtbuild installs it: trtbuild's store is the default, and its records are understood."""

from __future__ import annotations

import importlib
import sys
from contextlib import redirect_stderr, redirect_stdout

from trtbuild.config.locations import root, team
from trtbuild.redact import redacting
from trtbuild.report import records
from trtstore import run_trtstore


def main() -> int:
    """Returns the exit code. The verb `report` is of what trtbuild writes into records."""
    with redirect_stdout(redacting(sys.stdout)), redirect_stderr(redacting(sys.stderr)):
        if sys.argv[1:2] == ["report"]:
            # By name: the store's own verbs start without.
            code: int = importlib.import_module("trtbuild.cli.store_report").main()
            return code
        return run_trtstore(sys.argv[1:], root, team, records.lines)
