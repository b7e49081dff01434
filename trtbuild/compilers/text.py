"""Text to tokens and back, with the tokenizer and the chat template that lie beside an engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from trtbuild import untrusted
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.chat import template as chat
from trtbuild.networks.chat.render import Chat, ChatError
from trtbuild.networks.tokenizer.special_tokens import read_object, texts_of

_SMALL = ("tokenizer_config.json", "special_tokens_map.json", chat.TEMPLATE_FILE)


class Text:
    """The tokenizer of the folder of an engine. Raises BuildError where it cannot be read."""

    def __init__(self, folder: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
            # Set by a trainer, they would cut or fill prompts; transformers takes them back before each text.
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            untrusted.parse_object(untrusted.read_bytes(folder / "tokenizer_config.json"))
        except (OSError, ValueError) as error:
            raise BuildError(f"the engine's tokenizer cannot be read: {error}") from None
        self._chat = self._opened(folder)

    def _opened(self, folder: Path) -> Chat | None:
        """What renders chats; None for a base model, which continues the text."""
        files = {name: folder / name for name in _SMALL if (folder / name).is_file()}
        try:
            template = chat.template_of(files)
            config, mapped = (read_object(files, name) for name in _SMALL[:2])
            special = texts_of(config, mapped, self._tokenizer.get_vocab(with_added_tokens=True))
            return None if template is None else Chat(template, special)
        except (InputError, ChatError) as error:
            raise BuildError(f"the engine's chat template cannot be used: {error}") from None

    def encode(self, prompt: str, raw: bool) -> list[int]:
        """The prompt's tokens: as one turn of a chat where the model has a template, unless `raw`.

        Raises InputError for a prompt without tokens.
        """
        turn = None if raw else self._as_chat(prompt)
        # A template spells the special tokens out; a plain text gets its BOS from the tokenizer.
        text, special = (prompt, True) if turn is None else (turn, False)
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
        if self._chat is None:
            return None
        try:
            return self._chat.render([{"role": "user", "content": prompt}])
        except ChatError as error:
            raise BuildError(f"the model's chat template cannot be applied: {error}") from None
