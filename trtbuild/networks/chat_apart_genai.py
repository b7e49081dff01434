"""As `chat_apart`, with onnxruntime-genai's own rendering beside Jinja's: it has an interpreter of its own in C++."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from trtbuild.networks import chat_apart, genai_text
from trtbuild.networks.chat_render import ChatError


@contextmanager
def _opened(folder: Path) -> Iterator[chat_apart.Renders]:
    with genai_text.opened(folder) as tokenizer:

        def render(template: str, messages: Sequence[Mapping[str, str]], prompt: bool) -> str:
            given = {"messages": json.dumps(list(messages)), "template_str": template}
            try:
                return str(tokenizer.apply_chat_template(**given, add_generation_prompt=prompt))
            except (RuntimeError, ValueError) as error:
                raise ChatError(str(error)) from None

        yield render


if __name__ == "__main__":
    chat_apart.serve(_opened)
