"""What one command line came to: JSON documents, and the first exit code that is not 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trtbuild.errors import TrtbuildError
from trtbuild.report import document, terminal


@dataclass
class CommandOutcome:
    """`documents` are one a point, in their order; `forecast` is of a sweep, None where there was none."""

    documents: list[dict[str, Any]] = field(default_factory=list)
    forecast: dict[str, Any] | None = None
    json: bool = False
    exit_code: int = 0
    #: what is left to be asked once all was answered
    afterwards: list[Callable[[], None]] = field(default_factory=list)

    def later(self, ask: Callable[[], None]) -> None:
        """Ask it once all was answered, unless it is asked already."""
        if ask not in self.afterwards:
            self.afterwards.append(ask)

    def failed(self, error: TrtbuildError, *, told: bool = False) -> None:
        """Tell of an error, unless it was `told` before, and remember it."""
        if not told:
            terminal.print_error(error)
        self.exit_code = self.exit_code or error.exit_code
        if self.json:
            self.documents.append(document.error(error))
