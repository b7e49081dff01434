"""The command `trtstore` as trtbuild installs it: trtbuild's store is the default, and its records are understood."""

from __future__ import annotations

import sys

from trtbuild.report import records
from trtbuild.stores import root, team
from trtstore import cli


def main() -> int:
    """Returns the exit code."""
    return cli.main(sys.argv[1:], root, team, records.lines)
