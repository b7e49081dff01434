"""The tokenizer of a checkpoint, in the files that `tokenizers` and onnxruntime-genai read.

A Hugging Face checkpoint's files are copied; a GGUF file's metadata become tokenizer.json and
tokenizer_config.json (`gguf`). For onnxruntime-genai, which misreads some, they are said otherwise
(`rewrite`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks.tokenizer import files as tokenizer_files
from trtbuild.networks.tokenizer import gguf
from trtbuild.networks.tokenizer import rewrite as tokenizer_rewrite
from trtbuild.networks.tokenizer.files import FILES, NEEDED
from trtbuild.networks.weights.checkpoint import Checkpoint, read_json


def write(checkpoint: Checkpoint, out: Path) -> bytes:
    """Write the checkpoint's tokenizer to the folder `out`, as the `tokenizers` library reads it.

    Returns the bytes of its tokenizer.json. Raises InputError when the checkpoint has no tokenizer that is usable.
    """
    if checkpoint.metadata is not None and "tokenizer.json" not in checkpoint.files:
        made = gguf.convert(checkpoint.metadata)
        _write_json(out / "tokenizer.json", made.tokenizer)
        _write_json(out / "tokenizer_config.json", made.config)
    else:
        _copy(checkpoint, out)
    return (out / "tokenizer.json").read_bytes()


def rewrite(folder: Path) -> None:
    """Say the tokenizer in `folder` so that onnxruntime-genai reads it as `tokenizers` does. Raises InputError.

    What it does not misread stays as it is, byte for byte.
    """
    files = {name: folder / name for name in NEEDED}
    for name, said in zip(NEEDED, tokenizer_rewrite.files_for_genai(*_read(files)), strict=True):
        if said is not None:
            files[name].unlink()  # a copy may be read-only
            _write_json(files[name], said)


def _read(files: Mapping[str, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    return read_json(files, "tokenizer.json"), read_json(files, "tokenizer_config.json")


def _copy(checkpoint: Checkpoint, out: Path) -> None:
    tokenizer_files.check(checkpoint.files)
    for name in NEEDED:
        read_json(checkpoint.files, name)  # refuse what no reader could parse
    for name in FILES:
        if name in checkpoint.files:
            (out / name).write_bytes(checkpoint.files[name].read_bytes())
    # What a trainer had set; transformers takes it back before each text (set_truncation_and_padding).
    content = read_json(checkpoint.files, "tokenizer.json")
    if content.get("truncation") is not None or content.get("padding") is not None:
        _write_json(out / "tokenizer.json", content | {"truncation": None, "padding": None})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    try:
        text = (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{path.name} holds half of a character (a lone surrogate)", option="model.source") from None
    path.write_bytes(text)
