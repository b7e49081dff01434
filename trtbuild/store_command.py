"""The command `trtstore` as trtbuild installs it: trtbuild's store is the default, and its records are understood."""

from __future__ import annotations

import importlib
import sys
from contextlib import redirect_stderr, redirect_stdout

from trtbuild.redact import scrubbed
from trtbuild.report import records
from trtbuild.stores import root, team
from trtstore import cli


def main() -> int:
    """Returns the exit code. The verb `report` is of what trtbuild writes into records."""
    with redirect_stdout(scrubbed(sys.stdout)), redirect_stderr(scrubbed(sys.stderr)):
        if sys.argv[1:2] == ["report"]:
            # By name: the store's own verbs start without.
            code: int = importlib.import_module("trtbuild.store_report").main()
            return code
        return cli.main(sys.argv[1:], root, team, records.lines)
