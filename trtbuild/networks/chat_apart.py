"""The process that `chat_trial` starts: a JSON object in, chats as Jinja and as an engine render them out.

In:  {"template": "…", "special": {"bos_token": "<s>", …}, "seconds": 30, "folder": "/abs/folder" | null}
Out: {"rendered": [{"chat": "…", "prompt": true, "text": "…" | null, "error": "…" | null, …}, …]} | {"error": "…"}
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from trtbuild.networks.chat_render import Chat, ChatError
from trtbuild.networks.chat_trial import CHATS, MEMORY

Json = dict[str, Any]
#: A chat and `add_generation_prompt` to a text. Raises ChatError.
Renders = Callable[[Sequence[Mapping[str, str]], bool], str]


def serve(opened: Callable[[Path], AbstractContextManager[Renders | None]]) -> None:
    """Answer on standard output; `opened` gives an engine's rendering over the folder that was named."""
    asked = json.load(sys.stdin)
    limit(resource.RLIMIT_CPU, asked["seconds"])
    limit(resource.RLIMIT_DATA, MEMORY)
    limit(resource.RLIMIT_CORE, 0)
    try:
        chat = Chat(asked["template"], asked["special"])
    except ChatError as error:
        answer: Json = {"error": str(error)}
    else:
        with opened(Path(asked["folder"] or ".")) as engine:
            answer = {"rendered": [_render(chat, engine, name, p) for name in CHATS for p in (True, False)]}
    sys.stdout.write(json.dumps(answer))


def limit(what: int, most: int) -> None:
    """Lower the process's limit to `most`, and never raise it."""
    _, hard = resource.getrlimit(what)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (least, least))


def _render(chat: Chat, engine: Renders | None, name: str, prompt: bool) -> Json:
    def ours(messages: Sequence[Mapping[str, str]], prompt: bool) -> str:
        return chat.render(messages, add_generation_prompt=prompt)

    text, error = _attempt(ours, name, prompt)
    found: Json = {"chat": name, "prompt": prompt, "text": text, "error": error}
    if engine is not None:
        theirs, said = _attempt(engine, name, prompt)
        if theirs != text and text is not None:  # the clock may have gone on between the two: once more
            text, _ = _attempt(ours, name, prompt)
            found["text"] = text
        found |= {"engine_text": theirs, "engine_error": said}
    return found


def _attempt(render: Renders, name: str, prompt: bool) -> tuple[str | None, str | None]:
    try:
        return render(CHATS[name], prompt), None
    except ChatError as error:
        return None, str(error)


if __name__ == "__main__":
    serve(lambda _: nullcontext(None))
