"""The command `trtbuild`; `trtbuild toolchain` has a command line of its own, which needs no config and so no Hydra."""

from __future__ import annotations

import importlib
import sys


def main() -> int:
    """Run the command line that `sys.argv` holds; returns its exit code."""
    apart = sys.argv[1:2] == ["toolchain"]
    # By name: what the other one needs takes longer to import than this one to run.
    code: int = importlib.import_module("trtbuild.toolchains.cli" if apart else "trtbuild.cli").main()
    return code
