"""How a command of several verbs reads its words: `--store` and `--json` before or after the verb."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from trtstore import units

BAD_INPUT = 2

#: Adds a verb: its name, its function, and its description.
AddVerb: TypeAlias = Callable[[str, Callable[..., int], str], argparse.ArgumentParser]


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong with the words in one line and a hint, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """In place of the usage and the message."""
        sys.stderr.write(f"error: {message}\nhint: `{self.prog} --help`\n")
        raise SystemExit(BAD_INPUT)


def command_parser(prog: str, about: str | None, epilog: str) -> tuple[CommandParser, AddVerb]:
    """The parser of `prog`, and how a verb is added: what is parsed has `run`, and `store` and `json` if given.

    >>> parser, add_verb = command_parser("demo", "A demonstration.", "")
    >>> _ = add_verb("ls", lambda args: 0, "List all.")
    >>> parser.parse_args(["ls", "--json"]).json
    True
    """
    common = CommandParser(add_help=False)
    common.add_argument("--store", metavar="PATH", default=argparse.SUPPRESS, help="root folder of the store")
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
    parser = CommandParser(
        prog=prog,
        description=about,
        epilog=epilog,
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs: Any = parser.add_subparsers(metavar="COMMAND", required=True)

    def verb(name: str, run: Callable[..., int], about: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = verbs.add_parser(name, help=about, description=about, parents=[common])
        added.set_defaults(run=run)
        return added

    return parser, verb


def a_size(text: str) -> int:
    """For `type=`: 200GB, 10GiB."""
    try:
        return units.parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def a_span(text: str) -> float:
    """For `type=`: 12h, 7d."""
    try:
        return units.parse_span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
