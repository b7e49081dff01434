"""Chats as text, as transformers renders them: Jinja in a sandbox, with the same settings, functions and tags.

After `render_jinja_template` of transformers 5.17 (utils/chat_template_utils.py). A template is another's code: the
sandbox keeps it from Python's insides and from long ranges, and what it writes has a limit. `trial` also bounds
its time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

Messages = Sequence[Mapping[str, Any]]

MOST = 1 << 24  # characters that one chat may become
_SAID = 1000  # characters of an error: a template may raise one of any length
#: What a template can raise beside its own errors: it calls Python's methods on Python's values.
_FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


#: Kinds of Jinja's lexer, whose text may hold a sign to trim and what was trimmed.
_MARKS = {"block_begin": "{%", "block_end": "%}", "variable_begin": "{{", "variable_end": "}}"}
_NEWLINE = r"{{ '\n' }}"


class ChatError(Exception):
    """A template that is not valid, or that cannot or will not render a chat; the text says why."""


class Chat:
    """A chat template. `special` are the texts that it may write: `bos_token`, `eos_token`, …"""

    def __init__(self, template: str, special: Mapping[str, str]) -> None:
        """Raises ChatError for a template that is not valid Jinja."""
        self._special = special
        try:
            self._template = _environment().from_string(template)
        except TemplateSyntaxError as error:
            raise ChatError(f"it is not valid Jinja: {str(error.message)[:_SAID]} (line {error.lineno})") from None
        except _FAILURES as error:
            raise ChatError(f"it is not valid Jinja: {_said(error)}") from None

    def render(self, messages: Messages, *, add_generation_prompt: bool = True) -> str:
        """The text of a chat; with `add_generation_prompt` up to where the answer begins. Raises ChatError."""
        pieces, size = list[str](), 0
        try:
            for piece in self._template.generate(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special,
            ):
                size += len(piece)
                if size > MOST:
                    raise ChatError(f"it writes more than {MOST} characters")
                pieces.append(piece)
        except _FAILURES as error:
            raise ChatError(_said(error)) from None
        return "".join(pieces)


def spelt_out(template: str) -> str | None:
    """The same template for readers that trim no blocks: what Jinja trims is left out, and what it would trim, quoted.

    transformers trims the newline after a block and the blanks before it on its line (trim_blocks, lstrip_blocks);
    onnxruntime-genai trims neither. None where the template has {% raw %}. Raises ChatError for one that is not valid.
    """
    pieces, after_block = list[str](), False
    try:
        for _, kind, value in _environment().lex(template):
            if kind.startswith("raw"):
                return None
            if kind.startswith("comment"):
                continue
            text = _MARKS.get(kind, value)
            if kind == "data" and after_block and text.startswith("\n"):
                text = _NEWLINE + text[1:]
            after_block = kind == "block_end"
            pieces.append(text)
    except _FAILURES as error:
        raise ChatError(_said(error)) from None
    whole = "".join(pieces)
    return whole[:-1] + _NEWLINE if whole.endswith("\n") else whole


#: `'</think>' in message.content`, with or without `not`: a tag that is looked for within a text.
_WITHIN = re.compile(
    r"""(?P<tag>'[^'{}%]*<[^'{}%]*'|"[^"{}%]*<[^"{}%]*")\s+(?P<no>not\s+)?in\s+"""
    r"""(?P<text>[A-Za-z_]\w*(?:\.\w+|\[(?:'\w+'|"\w+"|-?\d+)\])*)(?![\w.(\[])"""
)


def without_searches(template: str) -> str:
    """The same template with each search for a tag within a text said by `split`, which onnxruntime-genai knows.

    Its `in` finds no text within a text. That what is searched is a text, and no list, is for the caller to try out.
    """

    def said(match: re.Match[str]) -> str:
        return f"({match['text']}.split({match['tag']})|length {'==' if match['no'] else '>'} 1)"

    return _WITHIN.sub(said, template)


class _Generation(Extension):
    """{% generation %} … {% endgeneration %} marks an answer for training; its text stays as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_as_it_is"), [], [], body).set_lineno(line)

    def _as_it_is(self, caller: Macro) -> str:
        return str(caller())


def _environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters["tojson"] = _to_json  # Jinja's own escapes HTML
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = _now
    return made


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: object) -> None:
    raise TemplateError(str(message))


def _now(form: str) -> str:
    """The day and hour of the machine, as its clock has it: so transformers does."""
    return datetime.now().strftime(form)


def _said(error: BaseException) -> str:
    text = (str(error) or type(error).__name__)[:_SAID]
    return text if isinstance(error, TemplateError) else f"{type(error).__name__}: {text}"
