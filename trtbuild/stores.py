"""Where trtbuild's store is, and the command `trtstore` with that as its default."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from platformdirs import user_cache_path

from trtstore import cli

VARIABLE = "TRTBUILD_STORE"


def root(named: str | None = None) -> Path:
    """`named`, else $TRTBUILD_STORE, else the platform's cache folder."""
    chosen = named or os.environ.get(VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("trtbuild")


def trtstore() -> int:
    """The command `trtstore`; its verb `report` is of what trtbuild writes into records."""
    if sys.argv[1:2] == ["report"]:
        # By name: the store's own verbs start without it.
        code: int = importlib.import_module("trtbuild.store_report").main()
        return code
    return cli.main(sys.argv[1:], root)
