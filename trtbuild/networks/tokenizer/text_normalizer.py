"""What is done to a text before onnxruntime-genai is asked for its tokens: steps that its own files cannot say.

tokenizer_config.json lists them as `text_normalizer`. `trtbuild run` and the checks do them; a program that calls
onnxruntime-genai itself has to do the same. Standard library only.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

FIELD = "text_normalizer"
#: Unicode's canonical composition, as Qwen2 and Qwen3 have it.
NFC = "NFC"
#: A space in front of a text that begins with none and with no added token: Metaspace's prepend_scheme "first", which
#: transformers 5 saves for Llama and Mistral. onnxruntime-genai puts one before each piece of a text, or before none.
FIRST_SPACE = "first_space"

_NOTES = {
    NFC: "onnxruntime-genai does not compose accents (NFC), as this tokenizer does",
    FIRST_SPACE: "onnxruntime-genai does not put a space in front of a text, as this tokenizer does where the text "
    "begins with no special token",
}
_SPACES = (" ", "\u2581")


def normalize(text: str, steps: Sequence[str], added: Collection[str]) -> str:
    """`text` after `steps`; `added` are the contents of the tokenizer's added tokens."""
    if NFC in steps:
        text = unicodedata.normalize("NFC", text)
    if FIRST_SPACE in steps and text and not text.startswith((*_SPACES, *(token for token in added if token))):
        text = f" {text}"
    return text


def steps_in(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The steps that a parsed tokenizer_config.json lists."""
    listed = config.get(FIELD)
    return tuple(map(str, listed)) if isinstance(listed, list) else ()


def notes(steps: Sequence[str]) -> list[str]:
    """What a user should know who calls onnxruntime-genai with the engine: a sentence for each step."""
    return [
        f"{_NOTES[step]}: `trtbuild run` does it, and a program of your own must (docs/compilers.md)" for step in steps
    ]
