"""Where trtbuild's store is."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

VARIABLE = "TRTBUILD_STORE"
TEAM = "TRTBUILD_TEAM"


def root(named: str | None = None) -> Path:
    """`named`, else $TRTBUILD_STORE, else the platform's cache folder."""
    chosen = named or os.environ.get(VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("trtbuild")


def team(named: str | None = None) -> str | None:
    """The URL of the team store: `named`, else $TRTBUILD_TEAM, else None. An empty one is none."""
    return (os.environ.get(TEAM) if named is None else named) or None
