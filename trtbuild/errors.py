"""What can fail, with the exit code of each: what happened, the dotted option it is about, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtbuild.redact import clean, hiding


def printable(text: str) -> str:
    """`text` without what a terminal obeys or cannot show: a stranger's file may hold any name. Line breaks stay."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


#: Characters of one line of an error: a stranger's file may hold a name of a megabyte.
MAX_LINE = 4000


def bounded(text: str) -> str:
    """`text` as one line of at most MAX_LINE characters, which no terminal obeys and which forges no other line."""
    return printable(text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]}…").replace("\n", "\\n")


class TrtbuildError(Exception):
    """An error that a user can act upon; the command line prints it without a traceback.

    `option` is the dotted option as the user would write it (`model.source=/x`), `hint` the mend, `details`
    lines in between (the end of a log, the command that reproduces it).
    """

    exit_code = 1

    def __init__(
        self, message: str, *, option: str | None = None, hint: str | None = None, details: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.option = option
        self.hint = hint
        self.details = tuple(details)

    def lines(self) -> list[str]:
        """What a user reads: the error, its details, and the hint."""
        option = f"{self.option}: " if self.option else ""
        said = [f"error: {option}{self.message}", *(f"  {line}" for line in self.details)]
        hide = hiding()
        return [bounded(hide(line)) for line in ([*said, f"hint: {self.hint}"] if self.hint else said)]

    def document(self) -> dict[str, Any]:
        """The same for a program."""
        told = {
            "message": self.message,
            "option": self.option,
            "hint": self.hint,
            "details": list(self.details),
            "exit_code": self.exit_code,
        }
        return dict(clean(told))


class InputError(TrtbuildError):
    """The config, or a file that it names, is wrong: nothing was built."""

    exit_code = 2


class BuildError(TrtbuildError):
    """A step or a check ran and failed."""

    exit_code = 1


class NotInStoreError(TrtbuildError):
    """`fetch` found the engine in no store."""

    exit_code = 3


class StoreError(TrtbuildError):
    """A store refused: not writable, full, broken or not trusted."""

    exit_code = 4
