"""One file of a dataset on the Hugging Face Hub, such as text to calibrate on: hf://datasets/org/name/file@revision."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from trtbuild.errors import InputError
from trtbuild.sources.base import Digester, Request
from trtbuild.sources.hub.commit import is_name
from trtbuild.sources.hub.location import PART, Location
from trtbuild.sources.hub.source import HubSource

ENDINGS = (".jsonl", ".txt", ".parquet")
_FORM = re.compile(rf"hf://datasets/(?P<repo>{PART}/{PART})(?:/(?P<file>[^@]+))?(?:@(?P<revision>.+))?")
_WRITTEN = "hf://datasets/org/name/file.jsonl@revision"


def fetch(named: str, option: str, digester: Digester) -> Path:
    """The file that `named` is, in the Hub's own cache, each byte as its commit states it.

    Raises InputError for another form, for a repository with no such file or with several, and for what the Hub
    refuses.
    """
    match = _FORM.fullmatch(named.rstrip("/"))
    if match is None or not is_name(match["file"] or "x"):
        raise InputError(f"{named} is no file of a dataset on the Hub", option=option, hint=f"write {_WRITTEN}")
    location = Location(match["repo"], match["file"], match["revision"], "dataset")
    (path,) = _Dataset(location, option, digester).here()
    return path


class _Dataset(HubSource):
    """A dataset's repository, of which one file is wanted."""

    def __init__(self, location: Location, option: str, digester: Digester) -> None:
        super().__init__(Request(location.repo, None, digester, None), location)
        self._option = option

    def here(self) -> list[Path]:
        """Where the file is, downloaded and checked."""
        self._copies.verify(self._chosen.values(), None)
        return [self._copies.seen[real].path for real in self._chosen.values()]

    @cached_property
    def _chosen(self) -> dict[str, str]:
        location = self._location
        there = [file.name for file in self._commit.files if file.name.endswith(ENDINGS)]
        listed = f"it has: {', '.join(there[:8])}" if there else f"it has none of {', '.join(ENDINGS)}"
        if location.file is None:
            if len(there) == 1:
                return {there[0]: there[0]}
            raise InputError(
                f"{location.repo} has {'several files' if there else 'no file'} of text",
                option=self._option,
                hint=f"{listed}; name one: {_WRITTEN}" if there else listed,
            )
        if location.file not in there:
            raise InputError(f"{location.repo} has no file of text {location.file}", option=self._option, hint=listed)
        return {location.file: location.file}
