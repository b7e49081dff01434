"""The command `trtstore` as trtbuild installs it: trtbuild's store is the default, and its records are understood."""

from __future__ import annotations

import importlib
import sys

from trtbuild.report import records
from trtbuild.stores import root, team
from trtstore import cli


def main() -> int:
    """Returns the exit code. The verb `report` is of what trtbuild writes into records."""
    if sys.argv[1:2] == ["report"]:
        code: int = importlib.import_module(
            "trtbuild.store_report"
        ).main()  # by name: the store's own verbs start without
        return code
    return cli.main(sys.argv[1:], root, team, records.lines)
