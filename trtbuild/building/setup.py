"""What one plan is built with: the options, the stores, and the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from trtbuild.artifacts.team import TeamStore
from trtbuild.config import schema
from trtbuild.sources import Source
from trtstore import Store


@dataclass(frozen=True)
class Setup:
    """What was configured.

    `examine` looks at the checkpoint's headers and small files: it returns notes, or raises InputError if no engine can
    be right. With `exact` the steps are those of a record, and no option may choose other tools.
    """

    config: schema.Config
    store: Store
    team: TeamStore
    open_source: Callable[[], Source]
    examine: Callable[[], tuple[str, ...]] = tuple
    exact: bool = False

    @cached_property
    def source(self) -> Source:
        """The checkpoint. Raises InputError."""
        return self.open_source()
