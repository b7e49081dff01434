"""Text to tokens and back, with the tokenizer and chat template from an engine's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from trtbuild import untrusted
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.chat import template as chat
from trtbuild.networks.chat.render import Chat, ChatError
from trtbuild.networks.tokenizer.special_tokens import read_object, texts_of

_CHAT_FILES = ("tokenizer_config.json", "special_tokens_map.json", chat.TEMPLATE_FILE)


class Text:
    """The tokenizer in an engine's folder. Raises BuildError if it cannot be read."""

    def __init__(self, folder: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
            # Leftovers of training that would cut or pad prompts; transformers also resets them for each text.
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            untrusted.parse_object(untrusted.read_bytes(folder / "tokenizer_config.json"))
        except (OSError, ValueError) as error:
            raise BuildError(f"the engine's tokenizer cannot be read: {error}") from None
        self._chat = self._open_chat(folder)

    def _open_chat(self, folder: Path) -> Chat | None:
        """The chat template; None for a base model, which continues the text."""
        files = {name: folder / name for name in _CHAT_FILES if (folder / name).is_file()}
        try:
            template = chat.template_of(files)
            config, mapped = (read_object(files, name) for name in _CHAT_FILES[:2])
            special = texts_of(config, mapped, self._tokenizer.get_vocab(with_added_tokens=True))
            return None if template is None else Chat(template, special)
        except (InputError, ChatError) as error:
            raise BuildError(f"the engine's chat template cannot be used: {error}") from None

    def encode(self, prompt: str, raw: bool) -> list[int]:
        """The prompt's tokens. It becomes a chat turn if the model has a template, unless `raw`.

        Raises InputError for a prompt without tokens.
        """
        turn = None if raw else self._as_chat(prompt)
        # A template contains the special tokens; a plain text gets its BOS from the tokenizer.
        text, special = (prompt, True) if turn is None else (turn, False)
        ids = [int(token) for token in self._tokenizer.encode(text, add_special_tokens=special).ids]
        if not ids:
            raise InputError("the prompt is empty", option="prompt", hint='give one: prompt="Why is the sky blue?"')
        return ids

    def stream(self, on_text: Callable[[str], None]) -> Callable[[int], None]:
        """A function that takes tokens one by one; `on_text` gets each piece of text as soon as it is complete."""
        ids: list[int] = []
        shown = ""

        def decode(token: int) -> None:
            nonlocal shown
            ids.append(token)
            text = self._tokenizer.decode(ids, skip_special_tokens=True)
            if text.startswith(shown) and not text.endswith("\N{REPLACEMENT CHARACTER}"):
                on_text(text[len(shown) :])
                shown = text

        return decode

    def _as_chat(self, prompt: str) -> str | None:
        if self._chat is None:
            return None
        try:
            return self._chat.render([{"role": "user", "content": prompt}])
        except ChatError as error:
            raise BuildError(f"the model's chat template cannot be applied: {error}") from None
