"""Text to tokens and back, with the tokenizer and the chat template that lie beside an engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from trtbuild.errors import BuildError, InputError

_TEMPLATE = "chat_template.jinja"


class Text:
    """The tokenizer of the folder of an engine. Raises BuildError where it cannot be read."""

    def __init__(self, folder: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
            self._config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BuildError(f"the engine's tokenizer cannot be read: {error}") from None
        template = folder / _TEMPLATE
        self._template = template.read_text(encoding="utf-8") if template.is_file() else None

    def encode(self, prompt: str, raw: bool) -> list[int]:
        """The prompt's tokens: as one turn of a chat where the model has a template, unless `raw`.

        Raises InputError for a prompt without tokens.
        """
        chat = None if raw else self._as_chat(prompt)
        # A template spells the special tokens out; a plain text gets its BOS from the tokenizer.
        text, special = (prompt, True) if chat is None else (chat, False)
        ids = [int(token) for token in self._tokenizer.encode(text, add_special_tokens=special).ids]
        if not ids:
            raise InputError(
                "the prompt is empty", option="prompt", hint='give one: prompt="Why is the sky blue?"'
            )
        return ids

    def stream(self, on_text: Callable[[str], None]) -> Callable[[int], None]:
        """A function that takes tokens, and tells `on_text` what became readable with each."""
        given: list[int] = []
        told = ""

        def take(token: int) -> None:
            nonlocal told
            given.append(token)
            text = self._tokenizer.decode(given, skip_special_tokens=True)
            if text.startswith(told) and not text.endswith("\N{REPLACEMENT CHARACTER}"):
                on_text(text[len(told) :])
                told = text

        return take

    def _as_chat(self, prompt: str) -> str | None:
        template: Any = self._template or self._config.get("chat_template")
        if isinstance(template, list):
            template = next((each["template"] for each in template if each.get("name") == "default"), None)
        if template is None:
            return None  # a base model: it continues the text
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        names = ("bos_token", "eos_token", "unk_token", "pad_token")
        special = {name: self._special(name) for name in names}
        messages = [{"role": "user", "content": prompt}]
        try:
            made = environment.from_string(template)
            return made.render(messages=messages, add_generation_prompt=True, **special)
        except TemplateError as error:
            raise BuildError(f"the model's chat template cannot be applied: {error}") from None

    def _special(self, name: str) -> str:
        token = self._config.get(name) or ""
        return str(token.get("content", "")) if isinstance(token, dict) else str(token)
