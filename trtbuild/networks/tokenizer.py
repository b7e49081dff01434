"""The tokenizer of a checkpoint, in the files that both `tokenizers` and onnxruntime-genai read.

A Hugging Face checkpoint's files are copied; a GGUF file's metadata become tokenizer.json and
tokenizer_config.json (`gguf_tokenizer`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks import gguf_tokenizer
from trtbuild.networks.checkpoint import Checkpoint, read_json

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
_NEEDED = ("tokenizer.json", "tokenizer_config.json")


def write(checkpoint: Checkpoint, out: Path) -> None:
    """Write the checkpoint's tokenizer to the folder `out`. Raises InputError when it has none that is usable."""
    if checkpoint.metadata is not None and "tokenizer.json" not in checkpoint.files:
        made = gguf_tokenizer.convert(checkpoint.metadata)
        _write_json(out / "tokenizer.json", made.tokenizer)
        _write_json(out / "tokenizer_config.json", made.config)
        return
    for name in _NEEDED:
        if name not in checkpoint.files:
            raise InputError(
                f"the checkpoint has no {name}, so nothing could turn text into its tokens",
                option="model.source",
                hint="transformers writes it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
            )
    for name in FILES:
        if name in checkpoint.files:
            (out / name).write_bytes(checkpoint.files[name].read_bytes())
    tokenizer = read_json(checkpoint.files, "tokenizer.json")
    better = _for_genai(tokenizer)
    if better is not None:
        _write_json(out / "tokenizer.json", tokenizer | {"pre_tokenizer": better})


def _for_genai(tokenizer: Mapping[str, Any]) -> dict[str, Any] | None:
    """A pre-tokenizer that means the same to `tokenizers`, where onnxruntime-genai misreads the given one.

    onnxruntime-extensions (bpe_tokenizer_model.hpp) passes over Digits, which SmolLM has, and cuts at each
    space when there is no pre-tokenizer, as in Llama 2's: both give other tokens for runs of spaces.
    """
    given, model = tokenizer.get("pre_tokenizer"), tokenizer.get("model")
    if given is None:
        spaced = isinstance(model, dict) and model.get("type") == "BPE" and model.get("byte_fallback")
        return gguf_tokenizer.WHOLE if spaced else None
    steps = given.get("pretokenizers", []) if isinstance(given, dict) else []
    if [step.get("type") for step in steps] != ["Digits", "ByteLevel"]:
        return None
    digits, byte_level = steps
    if byte_level.get("add_prefix_space") or not byte_level.get("use_regex", True):
        return None
    if not digits.get("individual_digits"):
        return None  # it does not understand \p{N}+ either
    return gguf_tokenizer.splits(r"\p{N}", gguf_tokenizer.GPT2)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
