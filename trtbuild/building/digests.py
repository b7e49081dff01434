"""Digests of a checkpoint's files: the store's index remembers them, and hashing is reported while files are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trtbuild.building.events import ProgressReporter
from trtstore import Index, hash_files


@dataclass(frozen=True)
class Hasher:
    """The Digester of the command line: it reports progress."""

    index: Index
    reporter: ProgressReporter

    def file_digests(self, paths: Sequence[Path]) -> list[str]:
        """The hex sha256 of each file; a file is read once, for as long as its stat stays. Raises StoreFailure."""
        return hash_files(paths, self.index, self.reporter.hashing)
