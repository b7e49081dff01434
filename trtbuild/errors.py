"""The errors that a user sees, each with its exit code: what is wrong, in which option, and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtbuild.redact import redact_json, redactor


def printable(text: str) -> str:
    """`text` with escapes in place of characters that steer a terminal or cannot be shown; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode("ascii") for char in text
    )


#: Characters in one line of an error: a name in an untrusted file may have a megabyte.
MAX_LINE = 4000


def bounded(text: str) -> str:
    """`text` as one printable line of at most MAX_LINE characters, so that it cannot fake another line."""
    return printable(text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]}…").replace("\n", "\\n")


class TrtbuildError(Exception):
    """An error that a user can act upon; the command line prints it without a traceback.

    `option` is the dotted option as the user would write it (`model.source=/x`), and `hint` says how to fix it.
    `details` are lines in between: the end of a log, the command that reproduces the error.
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
        """The lines that a user reads: the error, its details, and the hint."""
        option = f"{self.option}: " if self.option else ""
        lines = [f"error: {option}{self.message}", *(f"  {line}" for line in self.details)]
        hide = redactor()
        return [bounded(hide(line)) for line in ([*lines, f"hint: {self.hint}"] if self.hint else lines)]

    def document(self) -> dict[str, Any]:
        """The same as JSON, for a program."""
        fields = {
            "message": self.message,
            "option": self.option,
            "hint": self.hint,
            "details": list(self.details),
            "exit_code": self.exit_code,
        }
        return dict(redact_json(fields))


class InputError(TrtbuildError):
    """The config, or a file that it names, is wrong. Nothing was built."""

    exit_code = 2


class BuildError(TrtbuildError):
    """A step or a check ran and failed."""

    exit_code = 1


class NotInStoreError(TrtbuildError):
    """No store has the artifact, and nothing may be built."""

    exit_code = 3


class StoreError(TrtbuildError):
    """A store refused: it is not writable, full, damaged or not trusted."""

    exit_code = 4
