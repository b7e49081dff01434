"""As `apart`, with onnxruntime-genai's own rendering beside Jinja's: it has an interpreter of its own in C++.

What it renders rests on tokenizer_config.json alone. So a vocabulary of one token stands in for the model's, which may
take a second to load.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trtbuild.networks.chat import apart
from trtbuild.networks.chat.render import ChatError
from trtbuild.networks.tokenizer import genai_text

_CONFIG = "tokenizer_config.json"
_VOCABULARY: dict[str, Any] = {
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    },
    "post_processor": None,
    "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
}


@contextmanager
def _opened(folder: Path) -> Iterator[apart.Renders]:
    with tempfile.TemporaryDirectory(prefix="chat-") as scratch:
        (Path(scratch) / "tokenizer.json").write_text(json.dumps(_VOCABULARY), encoding="utf-8")
        shutil.copyfile(folder / _CONFIG, Path(scratch) / _CONFIG)
        with genai_text.opened(Path(scratch)) as tokenizer:

            def render(template: str, messages: Sequence[Mapping[str, str]], prompt: bool) -> str:
                given = {"messages": json.dumps(list(messages)), "template_str": template}
                try:
                    return str(tokenizer.apply_chat_template(**given, add_generation_prompt=prompt))
                except (RuntimeError, ValueError) as error:
                    raise ChatError(str(error)) from None

            yield render


if __name__ == "__main__":
    apart.serve(_opened)
