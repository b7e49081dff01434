"""Where trtbuild's store is."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

VARIABLE = "TRTBUILD_STORE"


def root(named: str | None = None) -> Path:
    """`named`, else $TRTBUILD_STORE, else the platform's cache folder."""
    chosen = named or os.environ.get(VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("trtbuild")
