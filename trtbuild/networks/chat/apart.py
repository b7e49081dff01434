"""The process that `trial` starts: a JSON object in, chats as Jinja and as an engine render them out.

In:  {"template": "…", "special": {"bos_token": "<s>", …}, "seconds": 30, "folder": "/abs/folder" | null}
Out: {"rendered": [{"chat": "…", "prompt": true, "text": "…" | null, "error": "…" | null, …}, …],
      "template": "…"} | {"error": "…"}

`template` is the one that was given, or one of the same meaning that the engine renders as Jinja renders the given one.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trtbuild.networks.chat.render import MOST, Chat, ChatError, spelt_out, without_searches
from trtbuild.networks.chat.trial import CHATS, MEMORY, Rendered

Json = dict[str, Any]
#: A template, a chat and `add_generation_prompt` to a text. Raises ChatError.
Renders = Callable[[str, Sequence[Mapping[str, str]], bool], str]


def serve(opened: Callable[[Path], AbstractContextManager[Renders | None]]) -> None:
    """Answer on standard output; `opened` gives an engine's rendering over the folder that was named."""
    asked = json.load(sys.stdin)
    # Beyond what it took to start, which a slow machine needs ten times as long for.
    limit(resource.RLIMIT_CPU, asked["seconds"] + math.ceil(time.process_time()))
    limit(resource.RLIMIT_DATA, MEMORY)
    limit(resource.RLIMIT_CORE, 0)
    try:
        trial = _Trial(asked["template"], asked["special"])
        with opened(Path(asked["folder"] or ".")) as engine:
            answer = trial.run(engine)
    except ChatError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))


def limit(what: int, most: int) -> None:
    """Lower the process's limit to `most`, and never raise it."""
    _, hard = resource.getrlimit(what)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (least, least))


class _Trial:
    def __init__(self, template: str, special: Mapping[str, str]) -> None:
        self.template, self.special = template, special
        self.chat = Chat(template, special)

    def run(self, engine: Renders | None) -> Json:
        best, rendered = self.template, self.rendered(engine, self.template)
        if engine is not None:
            for other in self._others():
                if all(each.equal for each in rendered):
                    break
                again = self.rendered(engine, other)
                if sum(each.equal for each in again) > sum(each.equal for each in rendered):
                    best, rendered = other, again
        return {"template": best, "rendered": [asdict(each) for each in rendered]}

    def _others(self) -> Iterator[str]:
        """Templates that mean the same to Jinja, so that transformers and vLLM may read them, too."""
        searched = without_searches(self.template)
        for other in (searched, spelt_out(self.template), spelt_out(searched)):
            if other not in (None, self.template) and self._means_the_same(other):
                yield other

    def rendered(self, engine: Renders | None, template: str) -> list[Rendered]:
        return [self._one(engine, template, name, prompt) for name in CHATS for prompt in (True, False)]

    def _one(self, engine: Renders | None, template: str, name: str, prompt: bool) -> Rendered:
        text, error = self._ours(self.chat, name, prompt)
        if engine is None:
            return Rendered(name, prompt, text, error)
        theirs, said = None, None
        try:
            theirs = engine(template, CHATS[name], prompt)
            if len(theirs) > MOST:
                raise ChatError(f"it writes more than {MOST} characters")
        except ChatError as failed:
            theirs, said = None, str(failed)
        if theirs != text:  # a clock that a template shows may have gone on between the two
            text, error = self._ours(self.chat, name, prompt)
        return Rendered(name, prompt, text, error, theirs, said)

    def _ours(self, chat: Chat, name: str, prompt: bool) -> tuple[str | None, str | None]:
        try:
            return chat.render(CHATS[name], add_generation_prompt=prompt), None
        except ChatError as error:
            return None, str(error)

    def _means_the_same(self, other: str) -> bool:
        try:
            chat = Chat(other, self.special)
        except ChatError:
            return False
        kinds = [(name, prompt) for name in CHATS for prompt in (True, False)]
        return all(self._ours(self.chat, *kind) == self._ours(chat, *kind) for kind in kinds)


if __name__ == "__main__":
    serve(lambda _: nullcontext(None))
