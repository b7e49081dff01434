"""A chat template tried out in a process of its own: what Jinja makes of some chats, and what onnxruntime-genai does.

A template is another's code, and may run for ever or ask for all memory: so `apart` runs it apart, within limits.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.errors import BuildError, InputError
from trtbuild.processes import programs

Json = dict[str, Any]

SECONDS = 10  # of a core, for a few chats that take milliseconds
MEMORY = 4 << 30  # bytes
_LINES = 3  # of what a failed trial printed

_SYSTEM = {"role": "system", "content": ' You answer in "one" line <b>&</b>:\n\t{"a": [1, 2]}.\n'}
_USER = {"role": "user", "content": "Why  is\nthe sky 'blue'? \\n {{ x }} é 東京 🐍 "}
_AGAIN = {"role": "user", "content": "\nAnd at night?"}
ANSWER = "It scatters 7f3a."
_ASSISTANT = {"role": "assistant", "content": ANSWER}
_THOUGHT = {"role": "assistant", "content": f"<think>\nLight, and air.\n</think>\n\n{ANSWER}"}
#: Name -> a chat that a template may be asked to render.
CHATS: Mapping[str, Sequence[Mapping[str, str]]] = {
    "one user turn": [_USER],
    "a system and a user turn": [_SYSTEM, _USER],
    "an answered turn": [_USER, _ASSISTANT],
    "two user turns": [_USER, _ASSISTANT, _AGAIN],
    "a system and two user turns": [_SYSTEM, _USER, _ASSISTANT, _AGAIN],
    "an answer that was thought over": [_USER, _THOUGHT],
    "two user turns, and an answer that was thought over": [_USER, _THOUGHT, _AGAIN],
}


@dataclass(frozen=True)
class Rendered:
    """One chat of `CHATS` with or without the beginning of an answer: a text each, or why there is none."""

    chat: str
    prompt: bool
    text: str | None
    error: str | None
    engine_text: str | None = None
    engine_error: str | None = None

    @property
    def equal(self) -> bool:
        """Whether onnxruntime-genai made the same text, or refuses the chat, too."""
        return self.text == self.engine_text


@dataclass(frozen=True)
class Tried:
    """The chats, and the template that renders them: the given one, or one of the same meaning for the engine."""

    template: str
    rendered: tuple[Rendered, ...]


def try_out(template: str, special: Mapping[str, str], folder: Path | None = None, seconds: int = SECONDS) -> Tried:
    """Each of `CHATS`, with and without `add_generation_prompt`.

    With a `folder`, which holds a tokenizer's files, onnxruntime-genai renders them, too. Raises InputError for a
    template that is not valid, or takes more than `seconds` of a core's time.
    """
    asked: Json = {"template": template, "special": dict(special), "seconds": seconds}
    asked["folder"] = None if folder is None else str(folder.absolute())
    module = "trtbuild.networks.chat.apart" + ("" if folder is None else "_genai")
    try:
        done = subprocess.run(
            programs.module(sys.executable, module),
            input=json.dumps(asked).encode(),
            env=_environment(),
            cwd="/",
            capture_output=True,
            check=False,
            timeout=10 * seconds,
        )
    except subprocess.TimeoutExpired:
        raise _endless(seconds) from None
    sys.stderr.write(done.stderr.decode(errors="replace"))  # the step's log
    if done.returncode < 0:
        raise _endless(seconds)
    try:
        answer = untrusted.parse_object(done.stdout)
    except ValueError:
        lines = done.stderr.decode(errors="replace").splitlines()[-_LINES:]
        raise BuildError("the chat template could not be tried out", details=lines) from None
    if "error" in answer:
        raise InputError(
            f"the model's chat template cannot be used: {answer['error']}",
            option="model.source",
            hint="mend the template; transformers' apply_chat_template tries one out",
        )
    return Tried(answer["template"], tuple(Rendered(**each) for each in answer["rendered"]))


def _environment() -> dict[str, str]:
    """Of the worker's environment what programs need: a template sees no variable that a step was given by name."""
    needed = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "LC_ALL", "OMP_NUM_THREADS")
    return programs.allowed(needed) | {programs.MORE: programs.inherited()[programs.MORE]}


def _endless(seconds: int) -> InputError:
    return InputError(
        f"the model's chat template takes more than {seconds} seconds or {MEMORY >> 30} GiB for a short chat, or "
        "crashes what renders it",
        option="model.source",
        hint="do not use this template: a chat's takes milliseconds",
    )
